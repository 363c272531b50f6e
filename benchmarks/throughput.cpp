// SPDX-License-Identifier: MIT

/// A million empty operations from one coroutine, `when_all`, every core: from the first one made
/// until all results are taken and all frames destroyed; and its parts. In turn with
///
///   probe         the hand-written limit, support/probe.hpp, in the same shape: all made first, then all run
///   streamed      the same probe while few tokens live at a time, whose frames therefore stay in the caches
///   tbb           tbb::task_group, run from an outside thread, which helps while it waits: two threads on two CPUs
///   asio          asio::post to a thread_pool of as many threads as cores
///
/// each once a round. An empty body counts itself in a word of its own thread, so that all of them can be checked.
///
/// `cold` does the same once on a new thread, whose frame pool is empty: the kernel hands out and clears every page.

#include "support/baseline.hpp"
#include "support/in_token.hpp"
#include "support/instruction_counter.hpp"
#include "support/instruction_report.hpp"
#include "support/probe.hpp"
#include "support/side_by_side.hpp"
#include "support/tally.hpp"

#include <tokengate/tokengate.hpp>

#include <benchmark/benchmark.h>

#ifdef TOKENGATE_PEER_TBB
#include <tbb/global_control.h>
#include <tbb/task_group.h>
#endif
#ifdef TOKENGATE_PEER_ASIO
#include <asio/post.hpp>
#include <asio/thread_pool.hpp>
#endif

#include <cstddef>
#include <cstdint>
#include <thread>
#include <utility>
#include <vector>

namespace {

namespace tg = tokengate;

const tg::operation empty{{.name = "empty", .weight = tg::weight::heavy}, [] { tally::count(); }};

[[gnu::noinline]] probe::token empty_probe() {
    tally::count();
    co_return;
}

constexpr std::size_t tokens = 1'000'000;

struct parts {
    double make, run, destroy;
};

tg::task<void> when_all_of(std::size_t count, parts& took) {
    stopwatch watch;
    std::vector<tg::token<void>> made;
    made.reserve(count);
    for (std::size_t i = 0; i < count; ++i) made.push_back(empty());
    took.make = watch.lap();
    {
        auto all = tg::when_all(std::move(made));
        co_await all;
        took.run = watch.lap();
    }
    took.destroy = watch.lap();
}

void note(side_by_side& rounds, const parts& took) {
    rounds.note("tokengate", took.make + took.run + took.destroy);
    rounds.note("tokengate.make", took.make);
    rounds.note("tokengate.run", took.run);
    rounds.note("tokengate.destroy", took.destroy);
}

#ifdef TOKENGATE_PEER_TBB
void tbb_round(unsigned cores) {
    const tbb::global_control threads(tbb::global_control::max_allowed_parallelism, cores);
    tbb::task_group group;
    for (std::size_t i = 0; i < tokens; ++i) group.run([] { tally::count(); });
    group.wait();
}
#endif
#ifdef TOKENGATE_PEER_ASIO
void asio_round(unsigned cores, stopwatch& watch) {
    asio::thread_pool pool(cores);
    watch.lap();
    for (std::size_t i = 0; i < tokens; ++i) asio::post(pool, [] { tally::count(); });
    pool.join();
}
#endif

tg::task<void> take_turns(benchmark::State& state, const tg::runtime& runtime) {
    const auto check = [&state](const char* who) {
        if (tally::take() != tokens) state.SkipWithError(who);
    };
    parts took{};
    co_await when_all_of(tokens, took);  // the frame pool is warm from here on
    check("the first round lost tokens");
    side_by_side rounds(state, tokens);
    for (auto _ : state) {
        const tg::snapshot before = runtime.snapshot();
        co_await when_all_of(tokens, took);
        const tg::snapshot after = runtime.snapshot();
        note(rounds, took);
        check("tokengate lost tokens");
        if (after.admitted - before.admitted != tokens || after.ended - before.ended != tokens)
            state.SkipWithError("tokengate counts wrongly");
        {
            probe::machine machine(runtime.cores());
            stopwatch watch;
            machine.run_all(tokens, empty_probe);
            rounds.note("probe", watch.lap());
            check("the probe lost tokens");
            watch.lap();
            machine.stream(tokens, empty_probe);
            rounds.note("streamed", watch.lap());
            check("the streaming probe lost tokens");
        }
        stopwatch watch;
#ifdef TOKENGATE_PEER_TBB
        tbb_round(runtime.cores());
        rounds.note("tbb", watch.lap());
        check("tbb lost tasks");
#endif
#ifdef TOKENGATE_PEER_ASIO
        asio_round(runtime.cores(), watch);
        rounds.note("asio", watch.lap());
        check("asio lost tasks");
#endif
    }
    rounds.report();
}

void million(benchmark::State& state) { in_main(state, take_turns); }

void cold(benchmark::State& state) {
    side_by_side rounds(state, tokens);
    for (auto _ : state) {
        parts took{};
        std::thread([&] {
            tg::runtime runtime;
            runtime.run([&]() -> tg::task<void> { return when_all_of(tokens, took); });
        }).join();
        note(rounds, took);
        double probed = 0;
        std::thread([&] {
            probe::machine machine(std::thread::hardware_concurrency());
            stopwatch watch;
            machine.run_all(tokens, empty_probe);
            probed = watch.lap();
        }).join();
        rounds.note("probe", probed);
        if (tally::take() != 2 * tokens) state.SkipWithError("tokens were lost");
    }
    rounds.report();
}

/// What the submitting thread executes for a token: making it; routing or queueing it, and looking at its end;
/// destroying it.
tg::task<void> count_instructions(benchmark::State& state, const tg::runtime&) {
    constexpr std::size_t counted = 2000;
    instruction_counter counter;
    parts took{};
    co_await when_all_of(counted, took);
    for (auto _ : state) {
        std::vector<tg::token<void>> made;
        made.reserve(counted);
        if (!counter.start()) {
            state.SkipWithError("this system lets no process trace another");
            break;
        }
        for (std::size_t i = 0; i < counted; ++i) made.push_back(empty());
        report(state, "make", counter.stop(), counted);
        {
            auto all = tg::when_all(std::move(made));
            counter.start();
            co_await all;
            report(state, "run", counter.stop(), counted);
            counter.start();
        }
        report(state, "destroy", counter.stop(), counted);
    }
    if (tally::take() != 2 * counted) state.SkipWithError("tokens were lost");
}

void instructions(benchmark::State& state) { in_main(state, count_instructions); }

BENCHMARK(million)->Iterations(9)->UseManualTime()->Unit(benchmark::kMillisecond);
BENCHMARK(cold)->Iterations(5)->UseManualTime()->Unit(benchmark::kMillisecond);
BENCHMARK(instructions)->Iterations(1);

}  // namespace

BENCHMARK_MAIN();
