// SPDX-License-Identifier: MIT

/// What a look at the runtime costs: who looks, and those who are looked at.
///
///   look      `tokens()` with so many alive, all waiting, against the least that it could take, which is a copy of what it
///             gave; then `snapshot()` and `metrics()`, which count no tokens and should not depend on how many there are
///   watched   bursts of empty operations over all cores, alone and while a thread takes a snapshot, the metrics and a list
///             of 10,000 sleeping tokens ten times a second

#include "support/side_by_side.hpp"

#include <tokengate/tokengate.hpp>

#include <benchmark/benchmark.h>

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <future>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

namespace tg = tokengate;
using namespace std::chrono_literals;

constexpr std::size_t burst = 100'000;
constexpr int bursts = 40;
constexpr std::size_t sleeping = 10'000;
constexpr auto period = 100ms;

const tg::operation waits{{.name = "polling_waits"},
                          [](tg::event* until) -> tg::task<> { co_await until->wait(); }};
const tg::operation empty{{.name = "polling_empty", .weight = tg::weight::heavy}, [] {}};

const tg::operation crowd{{.name = "polling_crowd"},
                          [](tg::event* until, std::size_t size) -> tg::task<> {
                              std::vector<tg::token<>> made;
                              made.reserve(size);
                              for (std::size_t i = 0; i < size; ++i) made.push_back(waits(until));
                              auto all = tg::when_all(std::move(made));
                              co_await std::move(all);
                          }};

const tg::operation rounds_of_bursts{{.name = "polling_bursts"}, []() -> tg::task<double> {
                                         stopwatch watch;
                                         for (int round = 0; round < bursts; ++round) {
                                             std::vector<tg::token<>> made;
                                             made.reserve(burst);
                                             for (std::size_t i = 0; i < burst; ++i)
                                                 made.push_back(empty());
                                             auto all = tg::when_all(std::move(made));
                                             co_await std::move(all);
                                         }
                                         co_return watch.lap();
                                     }};

/// So many tokens that wait, from the moment when all do until it goes.
class waiting_crowd {
public:
    waiting_crowd(tg::runtime& of, std::size_t size) : over_(of.submit(crowd(&end_, size))) {
        while (true) {
            std::size_t there = 0;
            for (const tg::token_info& each : of.tokens())
                if (each.id.operation == "polling_waits" &&
                    each.state == tg::token_state::executing)
                    ++there;
            if (there == size) break;
            std::this_thread::yield();
        }
    }
    waiting_crowd(const waiting_crowd&) = delete;
    waiting_crowd& operator=(const waiting_crowd&) = delete;
    ~waiting_crowd() {
        end_.set();
        over_.wait();
    }

private:
    tg::event end_;
    std::future<void> over_;
};

/// Looks ten times a second, until it goes.
class poller {
public:
    explicit poller(tg::runtime& of) : thread_([this, &of] { poll(of); }) {}
    poller(const poller&) = delete;
    poller& operator=(const poller&) = delete;
    ~poller() {
        {
            const std::scoped_lock lock(mutex_);
            enough_ = true;
        }
        changed_.notify_one();
        thread_.join();
    }

private:
    void poll(tg::runtime& of) {
        std::unique_lock lock(mutex_);
        do {
            lock.unlock();
            benchmark::DoNotOptimize(of.tokens());
            benchmark::DoNotOptimize(of.snapshot());
            benchmark::DoNotOptimize(of.metrics());
            lock.lock();
        } while (!changed_.wait_for(lock, period, [this] { return enough_; }));
    }

    std::mutex mutex_;
    std::condition_variable changed_;
    bool enough_ = false;
    std::thread thread_;
};

void look(benchmark::State& state) {
    const auto alive = static_cast<std::size_t>(state.range(0));
    tg::runtime runtime{{.cores = 2, .metrics = true}};
    runtime.start();
    const waiting_crowd there(runtime, alive);
    side_by_side rounds(state, static_cast<double>(alive));
    double snapshot = 0, metrics = 0;
    for (auto _ : state) {
        stopwatch watch;
        std::vector<tg::token_info> tokens = runtime.tokens();
        rounds.note("tokens", watch.lap());
        std::vector<tg::token_info> again = tokens;
        benchmark::DoNotOptimize(again.data());
        rounds.note("copy", watch.lap());
        if (tokens.size() != alive + 1) state.SkipWithError("tokens are missing");
        watch.lap();
        if (runtime.snapshot().admitted != alive + 1) state.SkipWithError("the snapshot is wrong");
        snapshot += watch.lap();
        if (runtime.metrics().empty()) state.SkipWithError("no metrics");
        metrics += watch.lap();
    }
    rounds.report();
    state.counters["snapshot_us"] =
        benchmark::Counter(snapshot * 1e6, benchmark::Counter::kAvgIterations);
    state.counters["metrics_us"] =
        benchmark::Counter(metrics * 1e6, benchmark::Counter::kAvgIterations);
}

void watched(benchmark::State& state) {
    tg::runtime runtime{{.metrics = true}};
    runtime.start();
    const waiting_crowd there(runtime, sleeping);
    side_by_side rounds(state, static_cast<double>(burst) * bursts);
    for (auto _ : state) {
        {
            const poller looks(runtime);
            rounds.note("polled", runtime.submit(rounds_of_bursts()).get());
        }
        rounds.note("alone", runtime.submit(rounds_of_bursts()).get());
    }
    rounds.report();
}

BENCHMARK(look)->Arg(1'000)->Arg(100'000)->Arg(1'000'000)->UseManualTime()->Unit(
    benchmark::kMicrosecond);
BENCHMARK(watched)->Iterations(9)->UseManualTime()->Unit(benchmark::kMillisecond);

}  // namespace

BENCHMARK_MAIN();
