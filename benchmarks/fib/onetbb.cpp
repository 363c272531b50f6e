// SPDX-License-Identifier: MIT

/// oneTBB: a task_group in every call, one branch run by it and one by the caller.

#include "../support/contender.hpp"

#include <tbb/global_control.h>
#include <tbb/task_group.h>

#include <cstdint>

namespace {

std::uint64_t recurse(unsigned n) {
    if (n < 2) return n;
    std::uint64_t before = 0;
    tbb::task_group group;
    group.run([&] { before = recurse(n - 1); });
    const std::uint64_t last = recurse(n - 2);
    group.wait();
    return before + last;
}

}  // namespace

int main(int argc, char** argv) {
    const contest::request asked(argc, argv);
    const tbb::global_control threads(tbb::global_control::max_allowed_parallelism, asked.threads);
    return contest::answer(asked, {{"task_group",
                                    [&] { return recurse(static_cast<unsigned>(asked.size)); }}});
}
