// SPDX-License-Identifier: MIT
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <mutex>
#include <utility>

/// What ran, counted by each thread for itself, so that empty bodies can be checked at next to no cost.
///
///     tally::count();                       // in the body
///     std::uint64_t ran = tally::take();    // where all of them are known to have ended
class tally {
public:
    static void count() noexcept {
        if (!mine_) [[unlikely]]
            mine_ = &another();
        mine_->ran.store(mine_->ran.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    }
    /// What has run since the last call; whoever calls has been told that it has.
    static std::uint64_t take() {
        const std::scoped_lock lock(mutex_);
        std::uint64_t sum = 0;
        for (word& each : words_) sum += each.ran.load(std::memory_order_relaxed);
        return sum - std::exchange(taken_, sum);
    }

private:
    struct alignas(64) word {
        std::atomic<std::uint64_t> ran{0};
    };
    static word& another() {
        const std::scoped_lock lock(mutex_);
        return words_.emplace_back();
    }

    static inline std::mutex mutex_;
    static inline std::deque<word> words_;
    static inline std::uint64_t taken_ = 0;
    static inline constinit thread_local word* mine_ = nullptr;
};
