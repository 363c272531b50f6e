// SPDX-License-Identifier: MIT
#pragma once

#include "contender.hpp"
#include "pinned_thread.hpp"

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

/// The hand-written limit of parallel loops: threads that are there already, one a CPU, and share the indices of a
/// loop.
///
///     team threads(asked.threads);
///     threads.each_share(n, [&](std::size_t first, std::size_t last) { … });   // static: one run of indices a thread
///     threads.each_index(n, [&](std::size_t i) { … });                         // dynamic: one counter for all
///     threads.begin(work);  …  threads.finish();        // work(1), work(2) … by the others, while the caller goes on
///
/// The caller is one of the threads. The others spin for 50 µs after each loop, as executors do, then sleep in a
/// futex. The body must not throw. One caller at a time.

class team {
public:
    static void pause() noexcept {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }

    explicit team(unsigned size) {
        const std::vector<int> cpus = contest::request::cpus();
        pinned_thread::pin(cpus[0]);
        for (unsigned i = 1; i < size; ++i)
            others_.push_back(std::make_unique<pinned_thread>(cpus[i % cpus.size()],
                                                              [this, i] { serve(i); }));
    }
    ~team() {
        work_ = nullptr;
        release();
        for (const auto& each : others_) each->join();
    }
    team(const team&) = delete;
    team& operator=(const team&) = delete;

    template <class Body>
    void each_share(std::size_t count, Body body) {
        const std::size_t size = others_.size() + 1;
        run([&](std::size_t member) { body(count * member / size, count * (member + 1) / size); });
    }

    template <class Body>
    void each_index(std::size_t count, Body body) {
        std::atomic<std::size_t> next{0};  // relaxed: each thread only needs an index of its own
        run([&](std::size_t) {
            for (std::size_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;)
                body(i);
        });
    }

    /// The others begin; the caller goes on, and calls finish() before the next loop.
    void begin(std::function<void(std::size_t)> work) {
        work_ = std::move(work);
        busy_.store(others_.size(), std::memory_order_relaxed);  // published by release()
        release();
    }
    void finish() noexcept {
        while (busy_.load(std::memory_order_acquire) != 0) pause();  // pairs with serve
    }

private:
    void run(std::function<void(std::size_t)> work) {
        begin(std::move(work));
        work_(0);
        finish();
    }

    void release() noexcept {
        round_.fetch_add(1, std::memory_order_release);
        round_.notify_all();
    }

    void serve(std::size_t member) {
        for (std::uint32_t seen = 0;;) {
            const auto patience = std::chrono::steady_clock::now() + std::chrono::microseconds(50);
            while (round_.load(std::memory_order_relaxed) == seen &&
                   std::chrono::steady_clock::now() < patience)
                pause();
            round_.wait(
                seen,
                std::
                    memory_order_acquire);  // pairs with release(); returns at once if it has changed
            ++seen;  // not the load's value: nobody starts a round before all have finished the one before
            if (!work_) return;
            work_(member);
            busy_.fetch_sub(1, std::memory_order_release);  // pairs with run
        }
    }

    std::function<void(std::size_t)> work_;
    alignas(64) std::atomic<std::uint32_t> round_{
        0};                                         // release by the caller, acquire by the others
    alignas(64) std::atomic<std::size_t> busy_{0};  // release by the others, acquire by the caller
    std::vector<std::unique_ptr<pinned_thread>> others_;
};
