// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/core_context.hpp>
#include <tokengate/detail/domain.hpp>
#include <tokengate/options.hpp>

#include <string_view>

/// The hash conductor. It opens a seed domain for a lead when the lead starts, on the core where
/// the lead was routed. It computes the digest that names the domain when a seed is first
/// requested. Tokens inherit the domain where they are made (operation.hpp), and are routed to the
/// domain's home.
///
/// All on the thread of the domain's executor.

namespace tokengate::detail {

// open_domain, in detail/admission.hpp: a lead is about to run. If the lead was made in a domain,
// it counts in that outer domain until it ends.

/// On the domain's home: a token of the domain has ended, or was dropped unadmitted. `token.anchor`
/// is not read afterwards.
void leave_domain(core_context& core, token_record& token) noexcept;

[[nodiscard]] std::string_view seed_of(domain& of, digest_policy policy);

}  // namespace tokengate::detail
