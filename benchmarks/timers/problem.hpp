// SPDX-License-Identifier: MIT
#pragma once

#include "../support/contender.hpp"
#include "../support/pinned_thread.hpp"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <random>
#include <stdexcept>
#include <vector>

/// `size` sleepers on one core: what each costs to arm, and to fire. They are all armed before the first deadline,
/// and the deadlines lie so close together that the core is never done before the last has passed; so "fire" is the
/// time from the first deadline to the last resumption, and "arm" that of starting the sleepers. The time is the
/// sum of both, the result the number of those that fired. shape 0: deadlines in the order of arming; 1: not.

namespace timers {

using clock = std::chrono::steady_clock;

/// More than arming takes, with the slowest of them.
inline clock::duration until_first(std::size_t sleepers) {
    return std::chrono::milliseconds(300) + sleepers * std::chrono::nanoseconds(2500);
}
/// In which all are due: less than firing takes, with the fastest of them.
inline clock::duration window(std::size_t sleepers) {
    return sleepers * std::chrono::nanoseconds(20);
}

/// The deadlines' distances from the first, with a fixed seed.
inline std::vector<clock::duration> delays(const contest::request& asked) {
    std::vector<clock::duration> all(asked.size);
    std::mt19937_64 random(20);
    const auto within = static_cast<std::uint64_t>(window(asked.size).count());
    for (auto& each : all) each = clock::duration(random() % within);
    if (asked.shape == 0) std::sort(all.begin(), all.end());
    return all;
}

struct figures {
    double arm = 0;  // seconds, of all
    double fire = 0;
    std::size_t fired = 0;
    std::size_t early = 0;
};

inline contest::sample sample(const figures& seen, std::size_t sleepers) {
    if (seen.early != 0) throw std::logic_error("a sleeper woke early");
    const double each = 1e9 / static_cast<double>(sleepers);
    return {.result = seen.fired,
            .seconds = seen.arm + seen.fire,
            .items = static_cast<double>(sleepers),
            .more = {{"arm_ns", seen.arm * each}, {"fire_ns", seen.fire * each}}};
}

/// `measure(delays)` on a thread of CPU 0.
template <class Measure>
contest::sample pinned(const contest::request& asked, Measure measure) {
    const auto after = delays(asked);
    figures seen;
    pinned_thread there(0, [&] { seen = measure(after); });
    there.join();
    return sample(seen, asked.size);
}

}  // namespace timers
