// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/core_context.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

/// The contexts of all threads (core_context.hpp), as a whole. Any thread.

namespace tokengate::detail {

inline constexpr std::size_t most_operations =
    65536;  ///< distinct ones over the life of the process

inline constexpr unsigned sequence_bits =
    40;  ///< of a token's number; above them stands the number of its thread's context

/// Which tokens had been made at one moment, over all threads: exact for the thread that asked, and for what it knew of.
struct sequence_marks {
    std::vector<std::uint64_t> next;  ///< by number of context

    [[nodiscard]] bool covers(std::uint64_t sequence) const noexcept {
        const std::uint64_t context = sequence >> sequence_bits;
        return context < next.size() && sequence < next[context];
    }
    /// What either covers.
    void unite(const sequence_marks& other) {
        if (next.size() < other.next.size()) next.resize(other.next.size());
        for (std::size_t i = 0; i < other.next.size(); ++i)
            next[i] = std::max(next[i], other.next[i]);
    }
    friend bool operator==(const sequence_marks&, const sequence_marks&) = default;
};
[[nodiscard]] sequence_marks mark_sequences();

/// A thread, or the last domain that named it, does without this context: the next thread may have it.
void give_back_context(core_context& unused) noexcept;

/// Frames of an operation's tokens that exist now, on all threads. Exact when none is being made or destroyed.
/// Looks at every frame there is: for the end of an operation, not for its path.
[[nodiscard]] std::size_t live_frames_of(const operation_record& operation);

/// Every operation there has been, by index; addresses stay. Throws std::bad_alloc.
[[nodiscard]] std::vector<const operation_record*> known_operations();

}  // namespace tokengate::detail
