// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <vector>

/// In how many ways `size` queens can stand on a board of that size: every safe place for the next row's queen is a
/// child.

namespace nqueens {

/// The rows so far, as the columns and diagonals that they threaten in the next one.
struct board {
    std::uint32_t size;
    std::uint32_t columns = 0, left = 0, right = 0;

    [[nodiscard]] bool full() const noexcept { return columns == (1U << size) - 1; }
    /// A bit for every place that nothing threatens.
    [[nodiscard]] std::uint32_t safe() const noexcept {
        return ~(columns | left | right) & ((1U << size) - 1);
    }
    [[nodiscard]] board with(std::uint32_t place) const noexcept {
        return {size, columns | place, (left | place) << 1, (right | place) >> 1};
    }
};

/// Calls `visit` with every board that follows.
template <class Visit>
void each_child(const board& from, Visit visit) {
    for (std::uint32_t safe = from.safe(); safe != 0; safe &= safe - 1)
        visit(from.with(safe & -safe));
}

/// Boards that make up the whole, enough of them to share out: those after two rows.
inline std::vector<board> parts(std::uint32_t size, unsigned threads) {
    std::vector<board> boards{{size}};
    for (int row = 0; row < 2 && threads > 1 && size > 2; ++row) {
        std::vector<board> below;
        for (const board& each : boards)
            each_child(each, [&](const board& child) { below.push_back(child); });
        boards = below;
    }
    return boards;
}

}  // namespace nqueens
