// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/core_context.hpp>
#include <tokengate/detail/token_record.hpp>

/// The awaiters of a token: from a running token up to the one that began the chain of awaits. All
/// of them are suspended below the running token.

namespace tokengate::detail {

/// The token whose body awaits this one. Null if there is none. It stays suspended until this token
/// has ended, so code that runs below it may read it.
[[nodiscard]] const token_record* awaiter_of(const token_record& token) noexcept;

/// The same, but only if its body belongs to this thread, as this token's does. Then neither
/// changes while this token runs.
[[nodiscard]] const token_record* awaiter_here(const core_context& core,
                                               const token_record& token) noexcept;

/// The wrapper token that keeps this token's time limit, or the arguments for its next attempt.
/// Null if there is none, or if it has admitted this token and does not await it yet.
[[nodiscard]] const token_record* keeper_of(const token_record& token) noexcept;

}  // namespace tokengate::detail
