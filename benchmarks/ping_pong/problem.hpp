// SPDX-License-Identifier: MIT
#pragma once

#include "../support/contender.hpp"

#include <cstdint>
#include <stdexcept>

/// `size` trips from one CPU to another and back, one after the other; each carries a number, and the other side
/// answers with what only it computes. shape 0: both sides are awake all the time; 1: both sleep until something
/// comes. CPUs 0 and 1.

namespace ping_pong {

enum sides : std::uint64_t { awake, asleep };

constexpr std::uint64_t answer(std::uint64_t trip) noexcept { return 3 * trip + 1; }

inline void expect(bool right) {
    if (!right) throw std::logic_error("a wrong answer");
}

/// For contenders that cannot keep awake, or cannot sleep.
inline void only(const contest::request& asked, sides which) {
    if (asked.shape != which) throw contest::does_not_take_part();
}

inline contest::sample sample(const contest::request& asked, double seconds) {
    return {.result = asked.size, .seconds = seconds, .items = static_cast<double>(asked.size)};
}

}  // namespace ping_pong
