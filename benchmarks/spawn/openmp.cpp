// SPDX-License-Identifier: MIT

/// OpenMP: tasks of one parallel region. The implementation may run a task at once when it has enough of them queued.

#include "../support/contender.hpp"
#include "problem.hpp"

#include <cstdint>

int main(int argc, char** argv) {
    const contest::request asked(argc, argv);
    return contest::answer(asked, {{"task", [&] {
                                        return spawn::counted([&] {
                                            const std::uint64_t count = asked.size;
#pragma omp parallel num_threads(asked.threads)
#pragma omp single
                                            for (std::uint64_t i = 0; i < count; ++i) {
#pragma omp task
                                                tally::count();
                                            }
                                        });
                                    }}});
}
