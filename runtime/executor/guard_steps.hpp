// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/core_context.hpp>
#include <tokengate/detail/token_record.hpp>

#include <exception>

/// The steps of a guarded operation's token that its guard_desk records, each on the thread of the
/// step.

namespace tokengate::detail {

/// At admission: null, or the error with which the guard rejects the token.
[[nodiscard]] std::exception_ptr guard_admission(core_context& core,
                                                 const token_record& token) noexcept;
void guard_start(core_context& core, const token_record& token) noexcept;
/// When the token's state is final, and its notes still exist.
void guard_end(core_context& core, token_record& token) noexcept;
/// The token was never admitted, and is about to be destroyed.
void guard_drop(token_record& token) noexcept;

}  // namespace tokengate::detail
