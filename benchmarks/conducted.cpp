// SPDX-License-Identifier: MIT

/// What a conducted child of an operation costs on its own core: made, admitted, routed, run, ended, awaited; as an
/// ordinary function and as a coroutine, beside a minimal pooled coroutine that is none of this; and eight at a time
/// through `when_all`, as a parent with eight children would. All run in one lead on a pinned executor, in turn.
///
/// `instructions` are those of a child, with the locked ones, the looks at the clock and the system calls among them.
/// The path itself has none: what is left comes from the loop's turn that every 128th child goes through, and the
/// benchmark fails if there is more. (Not those of `when_all`: its children start from the ready queue, where the
/// executor measures them, and a thread that is traced finds them slow.) To see the same in the code: `await_functions`
/// (its resume function) and what it calls, in
///
///     objdump -d --demangle build/release/benchmarks/conducted_benchmark

#include "support/baseline.hpp"
#include "support/in_token.hpp"
#include "support/instruction_counter.hpp"
#include "support/instruction_report.hpp"
#include "support/side_by_side.hpp"

#include <tokengate/tokengate.hpp>

#include <benchmark/benchmark.h>

#include <utility>
#include <vector>

namespace {

namespace tg = tokengate;

const tg::operation function_child{{.name = "function_child"}, [](int a, int b) { return a + b; }};
const tg::operation coroutine_child{{.name = "coroutine_child"},
                                    [](int a, int b) -> tg::task<int> { co_return a + b; }};
const tg::operation void_child{{.name = "void_child"}, [](int* total) { ++*total; }};

[[gnu::noinline]] baseline::coroutine<int> baseline_child(int a, int b) { co_return a + b; }

// Each awaits `children` children and returns half their number. Tasks of the lead: so its children are conducted.
tg::task<int> await_functions(int children) {
    int total = 0;
    for (int i = 0; i < children; ++i) total = co_await function_child(total, i & 1);
    co_return total;
}

tg::task<int> await_coroutines(int children) {
    int total = 0;
    for (int i = 0; i < children; ++i) total = co_await coroutine_child(total, i & 1);
    co_return total;
}

tg::task<int> await_eights(int children) {
    int total = 0;
    for (int i = 0; i < children; i += 8) {
        auto eight = tg::when_all(function_child(0, 0), function_child(0, 1), function_child(0, 0),
                                  function_child(0, 1), function_child(0, 0), function_child(0, 1),
                                  function_child(0, 0), function_child(0, 1));
        const auto [a, b, c, d, e, f, g, h] = co_await std::move(eight);
        total += a + b + c + d + e + f + g + h;
    }
    co_return total;
}

tg::task<int> await_vectors(int children) {
    int total = 0;
    for (int i = 0; i < children; i += 8) {
        std::vector<tg::token<void>> eight;
        eight.reserve(8);
        for (int k = 0; k < 8; ++k) eight.push_back(void_child(&total));
        auto all = tg::when_all(std::move(eight));
        co_await std::move(all);
    }
    co_return total / 2;
}

baseline::coroutine<int> await_baselines(int children) {
    int total = 0;
    for (int i = 0; i < children; ++i) total = co_await baseline_child(total, i & 1);
    co_return total;
}

// Rounds are shorter than a time slice, so that most of them run undisturbed on a machine that others use.
constexpr int children = 32'000;

const tg::operation take_turns{{.name = "take_turns"},
                               tg::lead{"function_child", "coroutine_child", "void_child"},
                               [](benchmark::State* state) -> tg::task<void> {
                                   side_by_side rounds(*state, children);
                                   for (auto _ : *state) {
                                       stopwatch watch;
                                       int half = co_await await_functions(children);
                                       rounds.note("function", watch.lap());
                                       half += run(await_baselines(children));
                                       rounds.note("baseline", watch.lap());
                                       half += co_await await_coroutines(children);
                                       rounds.note("coroutine", watch.lap());
                                       half += co_await await_eights(children);
                                       rounds.note("when_all_8", watch.lap());
                                       half += co_await await_vectors(children);
                                       rounds.note("when_all_vector_8", watch.lap());
                                       if (half != 5 * children / 2)
                                           state->SkipWithError("wrong sum");
                                   }
                                   rounds.report();
                               }};

const tg::operation count_instructions{
    {.name = "count_instructions"},
    tg::lead{"function_child", "coroutine_child", "void_child"},
    [](benchmark::State* state) -> tg::task<void> {
        constexpr int counted = 4096;
        constexpr double seldom =
            1.0 / 16;  // a turn of the loop costs a few of each, every 128th child
        struct kind {
            const char* name;
            tg::task<int> (*await)(int);
        };
        instruction_counter counter;
        int half =
            run(await_baselines(1)) + co_await await_functions(1);  // the thread's first frames
        for (auto _ : *state) {
            for (const kind each :
                 {kind{"function", await_functions}, kind{"coroutine", await_coroutines}}) {
                if (!counter.start()) {
                    state->SkipWithError("this system lets no process trace another");
                    break;
                }
                half += co_await each.await(counted);
                const executed all = counter.stop();
                report(*state, each.name, all, counted);
                if (static_cast<double>(all.locked + all.clocks + all.system_calls) >
                    seldom * counted)
                    state->SkipWithError(
                        "a locked instruction, a clock or a system call is on the path");
            }
            if (counter.start()) {
                half += run(await_baselines(counted));
                report(*state, "baseline", counter.stop(), counted);
            }
            if (half != 3 * counted / 2) state->SkipWithError("wrong sum");
        }
    }};

void child(benchmark::State& state) { in_token(state, take_turns); }
void instructions(benchmark::State& state) { in_token(state, count_instructions); }

BENCHMARK(child)->UseManualTime()->Unit(benchmark::kMicrosecond);
BENCHMARK(instructions)->Iterations(1);

}  // namespace

BENCHMARK_MAIN();
