// SPDX-License-Identifier: MIT
#pragma once

#include "../support/contender.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <thread>
#include <vector>

/// A parent starts `size` children and then computes for `shape` milliseconds, without awaiting anything: how long
/// does it take until the first of them, and until the last, has begun on another core, which has been idle for a
/// while?
///
///     news::rounds rounds(asked);
///     for (unsigned i = 0; i < news::rounds::count; ++i) {
///         … let the other cores fall asleep (a millisecond) …
///         … start the children, each of them rounds.child(k) …
///         rounds.compute();
///         … await the children …
///         rounds.end();
///     }
///     return rounds.sample();    // .seconds: until the first had begun, a median; "last_us": until the last had
///
/// If a child begins only because the parent has ended its computation, that time is at least `shape` milliseconds.

namespace news {

constexpr auto pause = std::chrono::milliseconds(1);

class rounds {
public:
    static constexpr unsigned count = 15;

    explicit rounds(const contest::request& asked) : compute_(asked.shape), begun_(asked.size) {}

    [[nodiscard]] std::size_t size() const noexcept { return begun_.size(); }

    void child(std::size_t index) noexcept {
        begun_[index].at = contest::clock::now();
        ran_.fetch_add(1, std::memory_order_relaxed);
    }
    void compute() noexcept {
        told_ = contest::clock::now();
        for (const auto until = told_ + compute_; contest::clock::now() < until;) {}
    }
    void end() {
        contest::clock::time_point first = begun_[0].at, last = first;
        for (const slot& each : begun_) {
            first = std::min(first, each.at);
            last = std::max(last, each.at);
        }
        const auto after = [this](contest::clock::time_point at) {
            return std::max(0.0, std::chrono::duration<double>(at - told_).count());
        };
        first_.push_back(after(first));
        last_.push_back(after(last));
    }

    [[nodiscard]] contest::sample sample() const {
        return {.result = ran_.load(std::memory_order_relaxed),
                .seconds = contest::quantile(first_, 0.5),
                .more = {{"last_us", contest::quantile(last_, 0.5) * 1e6},
                         {"worst_us", contest::quantile(last_, 1) * 1e6}}};
    }

private:
    struct alignas(64) slot {
        contest::clock::time_point at;
    };
    std::chrono::milliseconds compute_;
    contest::clock::time_point told_;
    std::vector<slot> begun_;            // each by its child; read when all have been awaited
    std::atomic<std::uint64_t> ran_{0};  // a count; what it counts has been awaited when it is read
    std::vector<double> first_, last_;
};

/// For those who need no coroutine: `start(all)`, and after the computation `await(all)`.
template <class Start, class Await>
contest::sample repeat(const contest::request& asked, Start start, Await await) {
    rounds all(asked);
    for (unsigned i = 0; i < rounds::count; ++i) {
        std::this_thread::sleep_for(pause);
        start(all);
        all.compute();
        await(all);
        all.end();
    }
    return all.sample();
}

}  // namespace news
