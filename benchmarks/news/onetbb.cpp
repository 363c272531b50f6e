// SPDX-License-Identifier: MIT

/// oneTBB: a task_group's children, while the thread that ran them computes.

#include "../support/contender.hpp"
#include "problem.hpp"

#include <tbb/global_control.h>
#include <tbb/task_group.h>

#include <cstddef>

int main(int argc, char** argv) {
    const contest::request asked(argc, argv);
    const tbb::global_control threads(tbb::global_control::max_allowed_parallelism, asked.threads);
    tbb::task_group group;
    return contest::answer(asked, {{"task_group", [&] {
                                        return news::repeat(
                                            asked,
                                            [&](news::rounds& all) {
                                                for (std::size_t i = 0; i < all.size(); ++i)
                                                    group.run([&all, i] { all.child(i); });
                                            },
                                            [&](news::rounds&) { group.wait(); });
                                    }}});
}
