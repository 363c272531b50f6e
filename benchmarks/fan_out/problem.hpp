// SPDX-License-Identifier: MIT
#pragma once

#include "../support/contender.hpp"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <vector>

/// `size` children of `shape` microseconds each, started at once and awaited: the time that takes, divided by the
/// time of the same calls one after the other on the same thread. Serial calls and fan-outs alternate.
///
///     fan_out::rounds rounds(asked);
///     for (unsigned i = 0; i < fan_out::rounds::count; ++i) {
///         rounds.serial();
///         rounds.begin();
///         … rounds.child(k) for every k < size, on any thread …
///         rounds.end();
///     }
///     return rounds.sample();       // .result: how many children ran; "ratio": the median of elapsed ÷ serial

namespace fan_out {

/// Work that takes as long as it was found to take: a chain of multiplications, not a look at the clock, so that a
/// thread that is not running makes no progress.
class work {
public:
    explicit work(double microseconds) {
        double fastest = 1e9;  // seconds a step
        for (int i = 0; i < 50; ++i) {
            const auto began = contest::clock::now();
            steps(probe);
            fastest = std::min(fastest, contest::seconds_since(began) / probe);
        }
        steps_ =
            std::max<std::uint64_t>(1, static_cast<std::uint64_t>(microseconds * 1e-6 / fastest));
    }
    void operator()() const noexcept { steps(steps_); }

private:
    static constexpr std::uint64_t probe = 20'000;

    static void steps(std::uint64_t count) noexcept {
        std::uint64_t state = count;
        for (std::uint64_t i = 0; i < count; ++i)
            state = state * 6364136223846793005U + 1442695040888963407U;
        asm volatile("" : : "r"(state));
    }
    std::uint64_t steps_;
};

class rounds {
public:
    static constexpr unsigned count = 100;

    explicit rounds(const contest::request& asked)
        : work_(static_cast<double>(asked.shape)), ran_(asked.size) {}

    [[nodiscard]] std::size_t size() const noexcept { return ran_.size(); }

    void serial() {
        const auto began = contest::clock::now();
        for (std::size_t i = 0; i < ran_.size(); ++i) work_();
        serial_ = contest::seconds_since(began);
    }
    void begin() noexcept { began_ = contest::clock::now(); }
    void child(std::size_t index) noexcept {
        work_();
        ++ran_[index].times;
    }
    void end() {
        elapsed_.push_back(contest::seconds_since(began_));
        ratios_.push_back(elapsed_.back() / serial_);
    }

    [[nodiscard]] contest::sample sample() {
        contest::sample seen{.seconds = contest::quantile(elapsed_, 0.5),
                             .more = {{"ratio", contest::quantile(ratios_, 0.5)}}};
        for (const slot& each : ran_) seen.result += each.times;
        return seen;
    }

private:
    struct alignas(64) slot {
        std::uint64_t times = 0;
    };
    work work_;
    std::vector<slot> ran_;
    std::vector<double> elapsed_, ratios_;
    contest::clock::time_point began_;
    double serial_ = 0;
};

/// For those who need no coroutine.
template <class Run>
contest::sample alternate(const contest::request& asked, Run run) {
    rounds all(asked);
    for (unsigned i = 0; i < rounds::count; ++i) {
        all.serial();
        all.begin();
        run(all);
        all.end();
    }
    return all.sample();
}

}  // namespace fan_out
