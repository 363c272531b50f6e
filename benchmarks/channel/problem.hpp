// SPDX-License-Identifier: MIT
#pragma once

#include "../support/contender.hpp"

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <vector>

/// `size` numbers from `shape` producers to as many consumers through a queue with room for 1024, on `threads`
/// CPUs. Producer p sends p, p + shape, p + 2 × shape …; consumers add up what they receive, and check that what
/// comes from one producer comes in order.

namespace channel {

constexpr std::size_t room = 1024;

/// What one consumer has received.
class received {
public:
    explicit received(std::uint64_t producers) : next_(producers) {}

    void add(std::uint64_t item) {
        std::uint64_t& next = next_[item % next_.size()];
        if (item / next_.size() < next)
            throw std::logic_error("items of one producer came out of order");
        next = item / next_.size() + 1;
        sum_ += item;
    }
    [[nodiscard]] std::uint64_t sum() const noexcept { return sum_; }

private:
    std::vector<std::uint64_t> next_;  // by producer: the least that may come
    std::uint64_t sum_ = 0;
};

}  // namespace channel
