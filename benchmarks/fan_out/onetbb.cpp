// SPDX-License-Identifier: MIT

/// oneTBB: a task_group, from the program's thread and from inside a task.

#include "../support/contender.hpp"
#include "problem.hpp"

#include <tbb/global_control.h>
#include <tbb/task_group.h>

#include <cstddef>

namespace {

void children(fan_out::rounds& all) {
    tbb::task_group group;
    for (std::size_t i = 0; i < all.size(); ++i) group.run([&all, i] { all.child(i); });
    group.wait();
}

}  // namespace

int main(int argc, char** argv) {
    const contest::request asked(argc, argv);
    const tbb::global_control threads(tbb::global_control::max_allowed_parallelism, asked.threads);
    return contest::answer(asked, {{"main", [&] { return fan_out::alternate(asked, children); }},
                                   {"task", [&] {
                                        contest::sample seen;
                                        tbb::task_group outer;
                                        outer.run_and_wait([&] {
                                            seen = fan_out::alternate(asked, children);
                                        });
                                        return seen;
                                    }}});
}
