// SPDX-License-Identifier: MIT

/// How soon a core that has nothing to run gets what another one has: on two executors, CPUs 0 and 1.
///
///   news     a token on core 0 makes something ready for core 1 and computes on for 5 ms: from then until that begins. By
///            kind: children that it admits (1, 4, 20, 70; the last one counts), a task bound to core 1, an event's waiter.
///            `awake`: core 1 has just run something and spins; `asleep`: it has parked
///   behind   400 unanchored tokens of 20 µs are admitted by a token that then computes for 30 ms: the longest time that
///            core 1 had nothing to run while some of them had not begun
///
/// Median, 99th percentile and longest, in µs.

#include <tokengate/tokengate.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace {

namespace tg = tokengate;
using namespace std::chrono_literals;
using clock_type = std::chrono::steady_clock;

void compute_until(clock_type::time_point until) {
    while (clock_type::now() < until) {}
}

std::atomic<std::int64_t> begun_ns{0};
std::atomic<int> begun{0};
std::int64_t now_ns() { return clock_type::now().time_since_epoch().count(); }

void begin() {
    begun_ns = now_ns();
    ++begun;
}

const tg::operation child{{.name = "hand_over_child", .weight = tg::weight::heavy}, begin};

tg::task<> call(std::function<void()> body) {
    body();
    co_return;
}

/// Made on core 0; must have begun on core 1 before the teller comes to its end. A machine that is shared now and then leaves a
/// thread asleep for milliseconds: that is a figure, not an error.
tg::task<double> one_news(int count, const std::function<void()>& make, bool asleep) {
    begun = 0;
    if (asleep)
        co_await tg::sleep_for(2ms);  // longer than an executor spins
    else
        co_await tg::as_token(call([] {}), 1);
    double took = -1;
    co_await tg::as_token(call([&] {
                              const auto told = now_ns();
                              make();
                              const auto until = clock_type::now() + 200ms;
                              while (begun < count && clock_type::now() < until) {}
                              if (begun >= count)
                                  took = static_cast<double>(begun_ns - told) * 1e-3;
                          }),
                          0);
    co_return took;
}

void report(benchmark::State& state, const std::string& name, std::vector<double>& took) {
    if (std::ranges::count(took, -1.0) != 0)
        state.SkipWithError((name + ": not begun before the teller had ended").c_str());
    std::ranges::sort(took);
    state.counters[name + ".p50_us"] = took[took.size() / 2];
    state.counters[name + ".p99_us"] = took[took.size() * 99 / 100];
    state.counters[name + ".max_us"] = took.back();
}

void news(benchmark::State& state) {
    constexpr int rounds = 500;
    tg::runtime runtime{{.cores = 2, .cpus = {0, 1}}};
    for (auto _ : state)
        runtime.run([&]() -> tg::task<> {
            for (const bool asleep : {false, true}) {
                const std::string suffix = asleep ? ".asleep" : ".awake";
                for (const int count : {1, 4, 20, 70}) {
                    std::vector<double> took;
                    const std::function<void()> admit = [count] {
                        for (int i = 0; i < count; ++i) child().admit();
                    };
                    for (int i = 0; i < rounds; ++i)
                        took.push_back(co_await one_news(count, admit, asleep));
                    report(state, "admit_" + std::to_string(count) + suffix, took);
                }
                std::vector<double> bound;
                const std::function<void()> bind = [] { tg::as_token(call(begin), 1).admit(); };
                for (int i = 0; i < rounds; ++i)
                    bound.push_back(co_await one_news(1, bind, asleep));
                report(state, "bound" + suffix, bound);
                std::vector<double> woken;
                for (int i = 0; i < rounds; ++i) {
                    tg::event event;
                    std::atomic<bool> waits{false};
                    const auto wait = [&]() -> tg::task<> {
                        waits = true;
                        co_await event.wait();
                        begin();
                    };
                    tg::token<> waiter = tg::as_token(wait(), 1);
                    waiter.admit();
                    while (!waits) co_await tg::yield();
                    const std::function<void()> set = [&event] { event.set(); };
                    woken.push_back(co_await one_news(1, set, asleep));
                    co_await waiter;
                }
                report(state, "event" + suffix, woken);
            }
        });
}

/// When each began and ended, on core 1.
struct span {
    std::int64_t from, to;
};
std::vector<span> spans;
std::atomic<std::size_t> next_span{0};

const tg::operation piece{{.name = "hand_over_piece", .weight = tg::weight::heavy}, [] {
                              const auto from = now_ns();
                              compute_until(clock_type::now() + 20us);
                              spans[next_span++] = {from, now_ns()};
                          }};

void behind(benchmark::State& state) {
    constexpr std::size_t pieces = 400;
    tg::runtime runtime{{.cores = 2, .cpus = {0, 1}}};
    std::vector<double> longest;
    for (auto _ : state)
        runtime.run([&]() -> tg::task<> {
            for (int round = 0; round < 100; ++round) {
                spans.assign(pieces, {});
                next_span = 0;
                std::int64_t made = 0;
                std::size_t begun_meanwhile = 0;
                co_await tg::as_token(call([&] {
                                          for (std::size_t i = 0; i < pieces; ++i) piece().admit();
                                          made = now_ns();
                                          compute_until(clock_type::now() + 30ms);
                                          begun_meanwhile = next_span;
                                      }),
                                      0);
                while (next_span < pieces) co_await tg::yield();
                if (begun_meanwhile != pieces)
                    state.SkipWithError("some waited for the end of the long one");
                std::ranges::sort(spans, {}, &span::from);
                std::int64_t idle = 0;
                std::int64_t before = made;
                for (const span& each : spans) {
                    idle = std::max(idle, each.from - before);
                    before = std::max(before, each.to);
                }
                longest.push_back(static_cast<double>(idle) * 1e-3);
            }
        });
    report(state, "idle", longest);
}

BENCHMARK(news)->Iterations(1)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK(behind)->Iterations(1)->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace

BENCHMARK_MAIN();
