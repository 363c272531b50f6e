// SPDX-License-Identifier: MIT
#pragma once

#include <chrono>

namespace tokengate::detail {

/// The time `span` after `from`, or the end of the clock if that would lie beyond it.
constexpr std::chrono::steady_clock::time_point later(std::chrono::steady_clock::time_point from,
                                                      std::chrono::nanoseconds span) noexcept {
    constexpr auto end = std::chrono::steady_clock::time_point::max();
    return span > end - from ? end : from + span;
}

inline std::chrono::steady_clock::time_point from_now(std::chrono::nanoseconds span) noexcept {
    return later(std::chrono::steady_clock::now(), span);
}

}  // namespace tokengate::detail
