// SPDX-License-Identifier: MIT

/// oneTBB: one task_group, whose starter helps while it waits.

#include "../support/contender.hpp"
#include "problem.hpp"

#include <tbb/global_control.h>
#include <tbb/task_group.h>

#include <cstdint>

int main(int argc, char** argv) {
    const contest::request asked(argc, argv);
    const tbb::global_control threads(tbb::global_control::max_allowed_parallelism, asked.threads);
    return contest::answer(asked, {{"task_group", [&] {
                                        return spawn::counted([&] {
                                            tbb::task_group group;
                                            for (std::uint64_t i = 0; i < asked.size; ++i)
                                                group.run([] { tally::count(); });
                                            group.wait();
                                        });
                                    }}});
}
