// SPDX-License-Identifier: MIT

/// What it costs a token to be watched: three runtimes that differ in nothing else (nothing kept, metrics, trace) do the same
/// work in turn, a conducted child on its own core (P2) and bursts of empty operations over all cores (P3). The waves,
/// whose tokens do some work, are in watching.sh.

#include "support/side_by_side.hpp"

#include <tokengate/tokengate.hpp>

#include <benchmark/benchmark.h>

#include <array>
#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

namespace {

namespace tg = tokengate;

constexpr int children = 32'000;
constexpr std::size_t burst = 100'000;

const tg::operation child{{.name = "watching_child"},
                          [](int a, int b) -> tg::task<int> { co_return a + b; }};
const tg::operation empty{{.name = "watching_empty", .weight = tg::weight::heavy}, [] {}};

/// Seconds for all children; negative if a sum is wrong.
const tg::operation parent{
    {.name = "watching_parent"}, tg::lead{"watching_child"}, []() -> tg::task<double> {
        stopwatch watch;
        int total = 0;
        for (int i = 0; i < children; ++i) total = co_await child(total, i & 1);
        const double took = watch.lap();
        co_return total == children / 2 ? took : -1;
    }};

const tg::operation bursts{{.name = "watching_bursts"}, []() -> tg::task<double> {
                               stopwatch watch;
                               std::vector<tg::token<void>> made;
                               made.reserve(burst);
                               for (std::size_t i = 0; i < burst; ++i) made.push_back(empty());
                               auto all = tg::when_all(std::move(made));
                               co_await std::move(all);
                               co_return watch.lap();
                           }};

struct watched_runtime {
    const char* name;
    tg::runtime runtime;

    watched_runtime(const char* of, tg::runtime_options options)
        : name(of), runtime(std::move(options)) {
        runtime.start();
    }
};

template <class Work>
void take_turns(benchmark::State& state, const Work& work, double items) {
    watched_runtime off("off", {}), metrics("metrics", {.metrics = true}),
        trace("trace", {.trace_events = 65'536});
    const std::array all{&off, &metrics, &trace};
    for (watched_runtime* each : all) each->runtime.submit(work()).get();  // the first frames
    side_by_side rounds(state, items);
    std::uint64_t admitted = 0;
    for (auto _ : state) {
        for (watched_runtime* each : all) {
            const double took = each->runtime.submit(work()).get();
            if (took < 0) state.SkipWithError("wrong sum");
            rounds.note(each->name, took);
        }
        ++admitted;
    }
    for (watched_runtime* each : all) {
        const tg::snapshot now = each->runtime.snapshot();
        if (static_cast<double>(now.admitted) < items * static_cast<double>(admitted + 1) ||
            now.admitted != now.ended)
            state.SkipWithError("tokens were lost");
    }
    rounds.report();
}

void conducted_child(benchmark::State& state) { take_turns(state, parent, children); }
void empty_operations(benchmark::State& state) {
    take_turns(state, bursts, static_cast<double>(burst));
}

BENCHMARK(conducted_child)->UseManualTime()->Unit(benchmark::kMicrosecond);
BENCHMARK(empty_operations)->Iterations(15)->UseManualTime()->Unit(benchmark::kMillisecond);

}  // namespace

BENCHMARK_MAIN();
