// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <vector>

/// A tree of ten children a node with `size` leaves, a power of ten; leaf i returns i, a node the sum of its
/// children.

namespace skynet {

struct part {
    std::uint64_t first;
    std::uint64_t leaves;

    [[nodiscard]] part child(unsigned i) const noexcept {
        return {first + i * (leaves / 10), leaves / 10};
    }
};

/// Subtrees that make up the whole, enough of them to share out.
inline std::vector<part> parts(std::uint64_t leaves, unsigned threads) {
    const std::uint64_t each = threads > 1 && leaves >= 1000 ? leaves / 100 : leaves;
    std::vector<part> all;
    for (std::uint64_t first = 0; first < leaves; first += each) all.push_back({first, each});
    return all;
}

}  // namespace skynet
