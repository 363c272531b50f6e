// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/core_context.hpp>
#include <tokengate/detail/token_record.hpp>

#include <exception>

/// What the steps of a guarded operation's token say to its guard_desk, on the thread where they are taken.

namespace tokengate::detail {

/// The gate has it: null, or why it must not come in.
[[nodiscard]] std::exception_ptr guard_admission(core_context& core,
                                                 const token_record& token) noexcept;
void guard_start(core_context& core, const token_record& token) noexcept;
/// Its state is final; its notes are there yet.
void guard_end(core_context& core, token_record& token) noexcept;
/// It was never admitted, and goes.
void guard_drop(token_record& token) noexcept;

}  // namespace tokengate::detail
