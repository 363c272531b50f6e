// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/tokengate.hpp>

#include <benchmark/benchmark.h>

#include <utility>

/// Runs a benchmark's loop inside a runtime.
///
///     const tg::operation body{{.name = "body"}, [](benchmark::State* state) -> tg::task<void> {
///         for (auto _ : *state) { … co_await child(1); … }
///     }};
///     void benchmark(benchmark::State& state) { in_token(state, body); }             // on a pinned executor's thread
///     void another(benchmark::State& state) { in_main(state, coroutine); }       // on the control loop, this thread

template <class Body>
void in_token(benchmark::State& state, const Body& body,
              tokengate::runtime_options options = {.cores = 1}) {
    tokengate::runtime runtime{std::move(options)};
    runtime.run([&]() -> tokengate::task<void> { co_await body(&state); });
}

inline void in_main(benchmark::State& state,
                    tokengate::task<void> (*body)(benchmark::State&, const tokengate::runtime&),
                    tokengate::runtime_options options = {}) {
    tokengate::runtime runtime{std::move(options)};
    runtime.run([&]() -> tokengate::task<void> { return body(state, runtime); });
}
