// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/core_context.hpp>
#include <tokengate/detail/frame_pool.hpp>

#include <atomic>
#include <cstddef>
#include <utility>
#include <vector>

/// What tests count to see that nothing leaks: objects by constructor and destructor, and slots of the frame pools.
///
///     counted::reset(); … CHECK(counted::alive() == 0);
///     const std::size_t before = live_slots(); { tg::runtime runtime; … } CHECK(live_slots() == before);

namespace tokengate::test {

/// A value with a non-trivial copy, move and destructor that knows how many of its kind exist. Thread-safe.
class counted {
public:
    explicit counted(int number = 0) noexcept : number_(number) { made(); }
    counted(const counted& other) noexcept : number_(other.number_), self_(this) { made(); }
    counted(counted&& other) noexcept : number_(std::exchange(other.number_, -1)) { made(); }
    counted& operator=(const counted& other) noexcept = delete;
    counted& operator=(counted&& other) noexcept {
        number_ = std::exchange(other.number_, -1);
        return *this;
    }
    ~counted() {
        if (self_ != this) wrong_.fetch_add(1);  // destroyed twice, or copied as bytes
        self_ = nullptr;
        alive_.fetch_sub(1);
    }

    [[nodiscard]] int number() const noexcept { return number_; }

    static void reset() noexcept {
        alive_ = 0;
        wrong_ = 0;
    }
    [[nodiscard]] static int alive() noexcept { return alive_; }
    [[nodiscard]] static int wrongly_destroyed() noexcept { return wrong_; }

private:
    static void made() noexcept { alive_.fetch_add(1); }

    int number_;
    counted* volatile self_ = this;

    static inline std::atomic<int> alive_{0}, wrong_{0};  // seq_cst, for whoever counts at the end
};

/// Slots of all frame pools in use. Only while no runtime lives and no other thread uses a pool: takes home first what was
/// freed elsewhere, for the pools of ended threads too.
inline std::size_t live_slots() {
    using detail::frame_pool;
    detail::context().pool->flush_returns();
    std::vector<frame_pool*> pools(frame_pool::statistics().pools);
    for (frame_pool*& each : pools) each = frame_pool::acquire();  // every orphan among them
    detail::context().pool->collect();
    for (frame_pool* each : pools) {
        each->collect();
        frame_pool::release(each);
    }
    return frame_pool::statistics().live_slots;
}

}  // namespace tokengate::test
