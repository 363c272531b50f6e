// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/frame_pool.hpp>
#include <tokengate/detail/token_record.hpp>

#include <cstdint>
#include <string>

/// What is kept of a watched token beside its frame, from its admission (with a quarantine: from the call) to its end.

namespace tokengate::detail {

/// The times of one token, on the steady clock; 0 while unknown. In the frame pool, from its admission to its end; with a
/// quarantine from the call on.
struct token_notes {
    std::uint64_t admitted_ns = 0;
    std::uint64_t started_ns = 0;
    std::string* arguments = nullptr;  ///< with a quarantine; owned
};
void forget(frame_pool& pool, token_notes& notes) noexcept;

/// Its operation has a breaker or a quarantine.
[[nodiscard]] bool is_guarded(const token_record& token) noexcept;
/// What its call has begun; null if nothing, or the token is not guarded.
[[nodiscard]] token_notes* guarded_notes(token_record& token) noexcept;

}  // namespace tokengate::detail
