// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/core_context.hpp>
#include <tokengate/detail/domain.hpp>
#include <tokengate/options.hpp>

#include <string_view>

/// The hash conductor: opens a seed domain for a lead when it starts, on the core where it landed, and names it by a digest
/// when somebody looks. Inheriting is done where tokens are made (operation.hpp), routing by the domain's home.
///
/// All on the thread of the domain's executor.

namespace tokengate::detail {

// open_domain, in detail/admission.hpp: a lead is about to run. It keeps counting in the domain it was itself made in, if
// any, until it ends.

/// A token of a domain has ended, or was dropped unadmitted, on the domain's home; `token.anchor` is not looked at again.
void leave_domain(core_context& core, token_record& token) noexcept;

[[nodiscard]] std::string_view seed_of(domain& of, digest_policy policy);

}  // namespace tokengate::detail
