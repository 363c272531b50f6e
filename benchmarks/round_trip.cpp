// SPDX-License-Identifier: MIT

/// A token on one core awaits an empty token on another, which ends there: what the way there and back takes, with both
/// executors awake (they spin longer than a trip lasts) and with both asleep in their rings between the trips (they do
/// not spin); beside two hand-written threads that do nothing but this. CPUs 0 and 1.

#include "support/raw_round_trip.hpp"
#include "support/side_by_side.hpp"

#include <tokengate/tokengate.hpp>

#include <benchmark/benchmark.h>

#include <chrono>
#include <stdexcept>
#include <utility>
#include <vector>

namespace {

namespace tg = tokengate;
using namespace std::chrono_literals;

tg::task<unsigned> answer(unsigned trip) {
    if (tg::this_token::core() != 1) throw std::logic_error("the answer came from the wrong core");
    co_return 3 * trip + 1;
}

tg::task<> travel(unsigned trips) {
    for (unsigned trip = 0; trip < trips; ++trip) {
        const unsigned answered = co_await tg::as_token(answer(trip), 1);
        if (answered != 3 * trip + 1) throw std::logic_error("a wrong answer");
    }
}

tg::task<double> timed(unsigned trips) {
    co_await tg::as_token(travel(trips / 10), 0);
    stopwatch watch;
    co_await tg::as_token(travel(trips), 0);
    co_return watch.lap();
}

double ours(unsigned trips, std::chrono::nanoseconds spin) {
    tg::runtime runtime{{.cores = 2, .cpus = {0, 1}, .spin = spin}};
    return runtime.run(timed(trips));
}

void awake(benchmark::State& state) {
    constexpr unsigned trips = 200'000;
    side_by_side rounds(state, trips);
    for (auto _ : state) {
        rounds.note("tokengate", ours(trips, 1s));
        rounds.note("raw spin", rival::spin_round_trip({.here = 0, .there = 1, .trips = trips}) * trips * 1e-9);
    }
    rounds.report();
}

void parked(benchmark::State& state) {
    constexpr unsigned trips = 5000;
    side_by_side rounds(state, trips);
    for (auto _ : state) {
        rounds.note("tokengate", ours(trips, 0ns));
        rounds.note("raw MSG_RING", rival::parked_round_trip({.here = 0, .there = 1, .trips = trips}) * trips * 1e-9);
    }
    rounds.report();
}

BENCHMARK(awake)->UseManualTime()->Unit(benchmark::kMillisecond)->Iterations(9);
BENCHMARK(parked)->UseManualTime()->Unit(benchmark::kMillisecond)->Iterations(9);

}  // namespace

BENCHMARK_MAIN();
