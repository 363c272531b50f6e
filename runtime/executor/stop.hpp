// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/core_context.hpp>
#include <tokengate/detail/token_record.hpp>
#include <tokengate/error.hpp>

#include <exception>
#include <string>

/// The loop's side of stopping; stop.cpp describes the whole. Requests are in detail/admission.hpp.

namespace tokengate::detail {

/// On the token's own loop, with the token's stop bit set: ends the wait of its body, or of the
/// token that it awaits.
void deliver_stop(core_context& core, token_record& asked) noexcept;

/// The error that the awaiter receives if a token was stopped before it had started.
[[nodiscard]] std::exception_ptr not_started(const token_record& token) noexcept;

/// The error that the awaiter of a killed token receives.
[[nodiscard]] token_killed killed(const token_id& id, const std::string& reason);

/// Ends a token in place of starting it, on the core that it was routed to.
void end_unrun(core_context& core, token_record& token) noexcept;

}  // namespace tokengate::detail
