// SPDX-License-Identifier: MIT

/// What a nested `co_await task<T>` costs, beside a minimal pooled coroutine that also carries a result and an
/// exception: a parent awaiting children one by one, and a recursion. Both run in one token on a
/// pinned executor, in turn. `instructions` are those of a child.

#include "support/baseline.hpp"
#include "support/in_token.hpp"
#include "support/instruction_counter.hpp"
#include "support/instruction_report.hpp"
#include "support/side_by_side.hpp"

#include <tokengate/tokengate.hpp>

#include <benchmark/benchmark.h>

namespace {

namespace tg = tokengate;

// The same source for both, not inlined: else a compiler that can see a child's whole life may leave out its frame.
template <template <class> class Coroutine>
[[gnu::noinline]] Coroutine<int> add(int a, int b) {
    co_return a + b;
}

template <template <class> class Coroutine>
[[gnu::noinline]] Coroutine<int> sum(int children) {
    int total = 0;
    for (int i = 0; i < children; ++i) total = co_await add<Coroutine>(total, i & 1);
    co_return total;
}

template <template <class> class Coroutine>
[[gnu::noinline]] Coroutine<int> fibonacci(int n) {
    if (n < 2) co_return n;
    const int before = co_await fibonacci<Coroutine>(n - 1);
    co_return before + co_await fibonacci<Coroutine>(n - 2);
}

// Rounds are shorter than a time slice, so that most of them run undisturbed on a machine that others use.
constexpr int children = 50'000;
constexpr int nth = 20, nth_fibonacci = 6'765, calls = 21'891;

const tg::operation await_children{
    {.name = "await_children"}, [](benchmark::State* state) -> tg::task<void> {
        side_by_side rounds(*state, children);
        for (auto _ : *state) {
            stopwatch watch;
            const int ours = co_await sum<tg::task>(children);
            rounds.note("task", watch.lap());
            const int theirs = run(sum<baseline::coroutine>(children));
            rounds.note("baseline", watch.lap());
            if (ours != children / 2 || theirs != ours) state->SkipWithError("wrong sum");
        }
        rounds.report();
    }};

const tg::operation recurse{{.name = "recurse"}, [](benchmark::State* state) -> tg::task<void> {
                                side_by_side rounds(*state, calls);
                                for (auto _ : *state) {
                                    stopwatch watch;
                                    const int ours = co_await fibonacci<tg::task>(nth);
                                    rounds.note("task", watch.lap());
                                    const int theirs = run(fibonacci<baseline::coroutine>(nth));
                                    rounds.note("baseline", watch.lap());
                                    if (ours != nth_fibonacci || theirs != ours)
                                        state->SkipWithError("wrong number");
                                }
                                rounds.report();
                            }};

const tg::operation count_instructions{
    {.name = "count_instructions"}, [](benchmark::State* state) -> tg::task<void> {
        constexpr int counted = 4096;
        instruction_counter counter;
        static_cast<void>(co_await sum<tg::task>(1));  // the thread's first frames
        static_cast<void>(run(sum<baseline::coroutine>(1)));
        for (auto _ : *state) {
            if (!counter.start()) {
                state->SkipWithError("this system lets no process trace another");
                break;
            }
            const int ours = co_await sum<tg::task>(counted);
            report(*state, "task", counter.stop(), counted);
            counter.start();
            const int theirs = run(sum<baseline::coroutine>(counted));
            report(*state, "baseline", counter.stop(), counted);
            if (ours != counted / 2 || theirs != ours) state->SkipWithError("wrong sum");
        }
    }};

void children_of_one_parent(benchmark::State& state) { in_token(state, await_children); }
void recursion(benchmark::State& state) { in_token(state, recurse); }
void instructions(benchmark::State& state) { in_token(state, count_instructions); }

BENCHMARK(children_of_one_parent)->UseManualTime()->Unit(benchmark::kMicrosecond);
BENCHMARK(recursion)->UseManualTime()->Unit(benchmark::kMicrosecond);
BENCHMARK(instructions)->Iterations(1);

}  // namespace

BENCHMARK_MAIN();
