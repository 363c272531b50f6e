// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/core_context.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

/// Functions over the contexts of all threads (core_context.hpp). Any thread.

namespace tokengate::detail {

/// The most distinct operations over the life of the process.
inline constexpr std::size_t most_operations = 65536;

/// The bits of a token's sequence number. The bits above them number its thread's context.
inline constexpr unsigned sequence_bits = 40;

/// Marks of all threads: which tokens had been made at one moment. Exact for the tokens of the
/// calling thread, and for those whose making happened before the call.
struct sequence_marks {
    std::vector<std::uint64_t> next;  ///< by number of context

    [[nodiscard]] bool covers(std::uint64_t sequence) const noexcept {
        const std::uint64_t context = sequence >> sequence_bits;
        return context < next.size() && sequence < next[context];
    }
    /// Extends the marks to the union of both.
    void unite(const sequence_marks& other) {
        if (next.size() < other.next.size()) next.resize(other.next.size());
        for (std::size_t i = 0; i < other.next.size(); ++i)
            next[i] = std::max(next[i], other.next[i]);
    }
    friend bool operator==(const sequence_marks&, const sequence_marks&) = default;
};
[[nodiscard]] sequence_marks mark_sequences();

/// A thread, or the last domain that named this context, no longer needs it. The next thread may
/// have it.
void give_back_context(core_context& unused) noexcept;

/// The number of frames of an operation's tokens that exist now, on all threads. Exact if none is
/// being made or destroyed. Reads every frame of the process, so it is for the end of an operation,
/// not for its path.
[[nodiscard]] std::size_t live_frames_of(const operation_record& operation);

/// Every operation that ever existed, by index. The addresses stay valid. Throws std::bad_alloc.
[[nodiscard]] std::vector<const operation_record*> known_operations();

}  // namespace tokengate::detail
