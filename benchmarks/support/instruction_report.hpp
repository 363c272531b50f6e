// SPDX-License-Identifier: MIT
#pragma once

#include "instruction_counter.hpp"

#include <benchmark/benchmark.h>

#include <string>

/// As counters of the benchmark, each per item.
inline void report(benchmark::State& state, const std::string& name, const executed& all,
                   double items) {
    state.counters[name] = static_cast<double>(all.instructions) / items;
    state.counters[name + "_locked"] = static_cast<double>(all.locked) / items;
    state.counters[name + "_clocks"] = static_cast<double>(all.clocks) / items;
    state.counters[name + "_syscalls"] = static_cast<double>(all.system_calls) / items;
}
