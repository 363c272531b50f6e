// SPDX-License-Identifier: MIT

/// oneTBB: a task_group in every node, which runs its children.

#include "../support/contender.hpp"
#include "problem.hpp"

#include <tbb/global_control.h>
#include <tbb/task_group.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <numeric>

namespace {

std::uint64_t count(nqueens::board from) {
    if (from.full()) return 1;
    std::array<std::uint64_t, 32> seen;
    std::size_t children = 0;
    tbb::task_group group;
    nqueens::each_child(from, [&](const nqueens::board& child) {
        group.run([&to = seen[children++], child] { to = count(child); });
    });
    group.wait();
    return std::accumulate(seen.data(), seen.data() + children, std::uint64_t{0});
}

}  // namespace

int main(int argc, char** argv) {
    const contest::request asked(argc, argv);
    const tbb::global_control threads(tbb::global_control::max_allowed_parallelism, asked.threads);
    return contest::answer(
        asked, {{"task_group", [&] { return count({static_cast<std::uint32_t>(asked.size)}); }}});
}
