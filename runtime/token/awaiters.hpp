// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/core_context.hpp>
#include <tokengate/detail/token_record.hpp>

/// Who awaits a token: from one that runs, up to whoever began it all. All of them lie suspended below the one that runs.

namespace tokengate::detail {

/// The token whose body awaits this one, if one does. It lies suspended until this one has ended, so who runs below it may
/// look at it.
[[nodiscard]] const token_record* awaiter_of(const token_record& token) noexcept;

/// The same, if its body belongs to this thread as this one's does: then neither changes while this one runs.
[[nodiscard]] const token_record* awaiter_here(const core_context& core,
                                               const token_record& token) noexcept;

/// The token that keeps this one's time limit, or the arguments for its next attempt; null if there is none, or if it has
/// admitted this one and does not await it yet.
[[nodiscard]] const token_record* keeper_of(const token_record& token) noexcept;

}  // namespace tokengate::detail
