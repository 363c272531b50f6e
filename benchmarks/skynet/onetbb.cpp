// SPDX-License-Identifier: MIT

/// oneTBB: a task_group in every node, which runs its ten children.

#include "../support/contender.hpp"
#include "problem.hpp"

#include <tbb/global_control.h>
#include <tbb/task_group.h>

#include <array>
#include <cstdint>
#include <numeric>

namespace {

std::uint64_t sum(skynet::part of) {
    if (of.leaves == 1) return of.first;
    std::array<std::uint64_t, 10> seen;
    tbb::task_group group;
    for (unsigned i = 0; i < 10; ++i) group.run([&seen, of, i] { seen[i] = sum(of.child(i)); });
    group.wait();
    return std::accumulate(seen.begin(), seen.end(), std::uint64_t{0});
}

}  // namespace

int main(int argc, char** argv) {
    const contest::request asked(argc, argv);
    const tbb::global_control threads(tbb::global_control::max_allowed_parallelism, asked.threads);
    return contest::answer(asked, {{"task_group", [&] { return sum({0, asked.size}); }}});
}
