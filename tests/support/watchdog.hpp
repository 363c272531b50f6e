// SPDX-License-Identifier: MIT
#pragma once

#include "executor/shared.hpp"

#include <tokengate/runtime.hpp>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

namespace tokengate::test {

/// Aborts the program when tokens are alive and for `patience` none has been admitted or has ended, and says where they
/// are, what each loop publishes of itself, and what the kernel says of each thread.
///
///     const watchdog watching(runtime, [] { return ran.load(); });    // `progress` is one more thing that may move
class watchdog {
public:
    using count = std::function<std::uint64_t()>;

    explicit watchdog(
        const runtime& over, count progress = [] { return 0; },
        std::chrono::seconds patience = std::chrono::seconds(20))
        : over_(over),
          progress_(std::move(progress)),
          patience_(patience),
          thread_([this] { watch(); }) {}
    ~watchdog() {
        {
            const std::scoped_lock lock(mutex_);
            done_ = true;
        }
        wake_.notify_one();
        thread_.join();
    }
    watchdog(const watchdog&) = delete;
    watchdog& operator=(const watchdog&) = delete;

private:
    void watch() {
        using clock = std::chrono::steady_clock;
        std::uint64_t seen = 0;
        auto since = clock::now();
        std::unique_lock lock(mutex_);
        while (!wake_.wait_for(lock, std::chrono::milliseconds(100), [this] { return done_; })) {
            const snapshot now = over_.snapshot();
            const std::uint64_t moved = now.ended + now.admitted + progress_();
            if (moved != seen || now.ended == now.admitted) {
                seen = moved;
                since = clock::now();
            } else if (clock::now() - since > patience_) {
                tell(now);
                std::abort();
            }
        }
    }

    void tell(const snapshot& now) const {
        std::fprintf(stderr,
                     "stuck: admitted %llu, ended %llu, waiting %llu, domains %llu, pins %llu\n",
                     number(now.admitted), number(now.ended), number(now.waiting),
                     number(now.domains), number(now.pins));
        std::size_t left = 40;
        for (const token_info& each : over_.tokens()) {
            if (left-- == 0) break;
            std::fprintf(stderr, "  %s %s core %u awaited by %llu\n", each.id.text().c_str(),
                         std::string(name_of(each.state)).c_str(), each.core,
                         number(each.awaited_by_sequence));
        }
        for (std::uint16_t slot = 1; slot < 64; ++slot) detail::with_runtime(slot, tell_loops);
        for (const auto& thread : std::filesystem::directory_iterator("/proc/self/task"))
            std::fprintf(stderr, "  thread %s: %s in %s\n", thread.path().filename().c_str(),
                         first_line(thread.path() / "comm").c_str(),
                         first_line(thread.path() / "wchan").c_str());
    }

    static void tell_loops(detail::shared_state& of) {
        for (const auto& each : of.executors)
            std::fprintf(stderr, "  runtime %u, loop %u: %s, mail %s, turn %s\n", of.slot,
                         each->position(), each->loop.parked() ? "parked" : "not parked",
                         each->loop.has_mail() ? "waits" : "none",
                         each->loop.turn_began_ns() != 0 ? "under way" : "none");
    }

    static unsigned long long number(std::uint64_t n) { return n; }
    static std::string first_line(const std::filesystem::path& of) {
        std::string line;
        std::getline(std::ifstream(of) >> std::ws, line);
        return line;
    }

    const runtime& over_;
    const count progress_;
    const std::chrono::seconds patience_;
    std::mutex mutex_;
    std::condition_variable wake_;
    bool done_ = false;
    std::thread thread_;
};

}  // namespace tokengate::test
