// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/core_context.hpp>
#include <tokengate/detail/token_record.hpp>
#include <tokengate/error.hpp>

#include <exception>
#include <string>

/// The side of stopping that loops have; stop.cpp says how it works. What asks is in detail/admission.hpp.

namespace tokengate::detail {

/// On the token's own loop, its bit set: ends the wait of its body, or of the one that it waits for.
void deliver_stop(core_context& core, token_record& asked) noexcept;

/// What the awaiter of a token gets that was stopped before it had started.
[[nodiscard]] std::exception_ptr not_started(const token_record& token) noexcept;

/// What the awaiter of a killed token gets.
[[nodiscard]] token_killed killed(const token_id& id, const std::string& reason);

/// Ends a token in place of starting it. On the core it was routed to.
void end_unrun(core_context& core, token_record& token) noexcept;

}  // namespace tokengate::detail
