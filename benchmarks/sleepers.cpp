// SPDX-License-Identifier: MIT

/// A million sleepers on one core: what each costs to arm, and to fire. They are all armed before the first deadline,
/// and the deadlines lie so close together that the core is never done before the last has passed; so *fire* is the
/// time from the first deadline to the last resumption, and *arm* that of starting the sleepers, each over their
/// number. For us a sleeper is a token: its making, admission, start and end are in the figures, while the rivals'
/// timers run a bare callback. `tokengate.token` is what the same tokens take, on memory touched for the first time,
/// with deadlines that have passed, so that they do not sleep; the sleepers then use that memory again. (The rivals
/// touch theirs for the first time: a timer object, an entry of the kernel's.)
///
///   tokengate     sleep_until in a token each: no ring timeout and no thread per timer
///   io_uring      IORING_OP_TIMEOUT each, in a ring of its own
///   asio          steady_timer each, in one io_context (where asio is installed)
///
/// ordered: deadlines in the order of arming; shuffled: not. Each checks that all have fired, and none early.

#include "support/pinned_thread.hpp"
#include "support/raw_ring.hpp"
#include "support/side_by_side.hpp"

#include <tokengate/detail/frame_pool.hpp>
#include <tokengate/tokengate.hpp>

#include <benchmark/benchmark.h>
#ifdef TOKENGATE_PEER_ASIO
#include <asio.hpp>
#endif

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <stdexcept>
#include <vector>

namespace {

namespace tg = tokengate;
using clock_type = std::chrono::steady_clock;
using namespace std::chrono_literals;

constexpr std::size_t sleepers = 1'000'000;
constexpr auto until_first = 6s;  // more than arming takes, with the slowest of them
constexpr auto window = 20ms;     // in which all are due: less than firing takes, with the fastest of them

struct result {
    double token = 0;  // seconds, of all: of as many tokens that do not sleep
    double arm = 0;
    double fire = 0;  // from the first deadline to the last sleeper
};

std::vector<std::chrono::nanoseconds> delays(bool ordered) {
    std::vector<std::chrono::nanoseconds> all(sleepers);
    std::mt19937_64 random(20);
    for (auto& each : all) each = std::chrono::nanoseconds(random() % std::chrono::nanoseconds(window).count());
    if (ordered) std::sort(all.begin(), all.end());
    return all;
}

double seconds(clock_type::duration duration) { return std::chrono::duration<double>(duration).count(); }

void check(std::size_t fired, std::size_t early) {
    if (fired != sleepers) throw std::logic_error("not all sleepers woke");
    if (early != 0) throw std::logic_error("a sleeper woke early");
}

// ---- ours ---------------------------------------------------------------------------------------------------------------

struct dormitory {
    std::size_t armed = 0, fired = 0, early = 0;  // one core's, so plain
    clock_type::time_point all_armed, all_fired;
};

tg::task<> sleep_there(dormitory* in, clock_type::time_point until) {
    if (++in->armed == sleepers) in->all_armed = clock_type::now();
    co_await tg::sleep_until(until);
    if (++in->fired != sleepers && in->fired % 1024 != 0) co_return;  // a look at the clock now and then
    in->all_fired = clock_type::now();
    if (in->all_fired < until) ++in->early;
}
const tg::operation sleeper{{.name = "sleeper"}, sleep_there};

tg::task<> sleep_all(dormitory* in, clock_type::time_point first, const std::vector<std::chrono::nanoseconds>& after) {
    *in = {};
    std::vector<tg::token<>> tokens;
    tokens.reserve(sleepers);
    for (const auto delay : after) tokens.push_back(sleeper(in, first + delay));
    co_await tg::when_all(std::move(tokens));
    check(in->fired, in->early);
}

tg::task<result> measure(const std::vector<std::chrono::nanoseconds>& after) {
    dormitory in;
    result found;
    stopwatch watch;
    co_await sleep_all(&in, clock_type::now() - window, after);
    found.token = watch.lap();
    const auto began = clock_type::now();
    const auto first = began + until_first;
    co_await sleep_all(&in, first, after);
    if (in.all_armed > first) throw std::logic_error("arming took longer than the first sleep");
    found.arm = seconds(in.all_armed - began);
    found.fire = seconds(in.all_fired - first);
    co_return found;
}

tg::task<result> on_core(const std::vector<std::chrono::nanoseconds>& after) {
    co_return co_await tg::as_token(measure(after), 0);
}

result ours(const std::vector<std::chrono::nanoseconds>& after) {
    tg::detail::frame_pool::keep(std::size_t{1} << 30);  // more than the sleepers' frames
    tg::runtime runtime{{.cores = 1, .cpus = {0}}};
    return runtime.run(on_core(after));
}

// ---- a timeout of the ring's for each -----------------------------------------------------------------------------------

result ring_timeouts(const std::vector<std::chrono::nanoseconds>& after) {
    raw_ring ring(4096);
    std::vector<__kernel_timespec> deadlines(sleepers);
    const auto began = clock_type::now();
    const auto first = began + until_first;
    for (std::size_t i = 0; i < sleepers; ++i) {
        const auto at = (first + after[i]).time_since_epoch().count();
        deadlines[i] = {at / 1'000'000'000, at % 1'000'000'000};
        io_uring_sqe* entry = ring.entry();
        io_uring_prep_timeout(entry, &deadlines[i], 0, IORING_TIMEOUT_ABS);
        io_uring_sqe_set_data64(entry, i);
    }
    raw_ring::check(io_uring_submit(ring.get()), "io_uring_enter");
    const double arm = seconds(clock_type::now() - began);
    std::size_t fired = 0, early = 0;
    while (fired < sleepers) {
        ring.submit_and_wait();
        const auto now = clock_type::now();
        ring.for_each_completion([&](const io_uring_cqe& done) {
            ++fired;
            if (now < first + after[done.user_data]) ++early;
        });
    }
    check(fired, early);
    return {.arm = arm, .fire = seconds(clock_type::now() - first)};
}

// ---- asio ---------------------------------------------------------------------------------------------------------------

#ifdef TOKENGATE_PEER_ASIO
result asio_timers(const std::vector<std::chrono::nanoseconds>& after) {
    asio::io_context context(1);
    std::size_t fired = 0;
    const auto began = clock_type::now();
    const auto first = began + until_first;
    std::vector<asio::steady_timer> timers;
    timers.reserve(sleepers);
    for (const auto delay : after) {
        timers.emplace_back(context, first + delay);
        timers.back().async_wait([&fired](const asio::error_code&) { ++fired; });
    }
    const double arm = seconds(clock_type::now() - began);
    context.run();
    check(fired, clock_type::now() < first + window - 1ms ? 1 : 0);
    return {.arm = arm, .fire = seconds(clock_type::now() - first)};
}
#endif

// -------------------------------------------------------------------------------------------------------------------------

void compare(benchmark::State& state, bool ordered) {
    const auto after = delays(ordered);
    side_by_side rounds(state, sleepers);
    for (auto _ : state) {
        const auto note = [&](const char* arm, const char* fire, const char* both, result found) {
            rounds.note(both, found.arm + found.fire);
            rounds.note(arm, found.arm);
            rounds.note(fire, found.fire);
        };
        result found = ours(after);
        note("tokengate.arm", "tokengate.fire", "tokengate", found);
        rounds.note("tokengate.token", found.token);
        pinned_thread there(0, [&] { found = ring_timeouts(after); });
        there.join();
        note("io_uring.arm", "io_uring.fire", "io_uring", found);
#ifdef TOKENGATE_PEER_ASIO
        pinned_thread elsewhere(0, [&] { found = asio_timers(after); });
        elsewhere.join();
        note("asio.arm", "asio.fire", "asio", found);
#endif
    }
    rounds.report();
}

void ordered(benchmark::State& state) { compare(state, true); }
void shuffled(benchmark::State& state) { compare(state, false); }

BENCHMARK(ordered)->UseManualTime()->Unit(benchmark::kMillisecond)->Iterations(3);
BENCHMARK(shuffled)->UseManualTime()->Unit(benchmark::kMillisecond)->Iterations(3);

}  // namespace

BENCHMARK_MAIN();
