// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/frame_pool.hpp>
#include <tokengate/detail/token_record.hpp>

#include <cstdint>
#include <string>

/// Notes on an instrumented (`watched`) token, kept beside its frame.

namespace tokengate::detail {

/// The times of one token, on the steady clock; 0 while unknown. The notes lie in the frame pool,
/// from the token's admission to its end. If its operation has a quarantine, they exist from the
/// call on.
struct token_notes {
    std::uint64_t admitted_ns = 0;
    std::uint64_t started_ns = 0;
    std::string* arguments = nullptr;  ///< only with a quarantine; owned
};
void forget(frame_pool& pool, token_notes& notes) noexcept;

/// Whether the token's operation has a breaker or a quarantine.
[[nodiscard]] inline bool is_guarded(const token_record& token) noexcept {
    return token.operation.load()->special.load() & guarded;
}
/// The notes that the call has begun. Null if there are none, or if the token is not guarded.
[[nodiscard]] token_notes* guarded_notes(token_record& token) noexcept;

}  // namespace tokengate::detail
