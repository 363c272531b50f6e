// SPDX-License-Identifier: MIT

/// OpenMP: tasks from inside the single task of a parallel region.

#include "../support/contender.hpp"
#include "problem.hpp"

#include <cstddef>

namespace {

void children(fan_out::rounds& all) {
    for (std::size_t i = 0; i < all.size(); ++i) {
#pragma omp task shared(all) firstprivate(i)
        all.child(i);
    }
#pragma omp taskwait
}

}  // namespace

int main(int argc, char** argv) {
    const contest::request asked(argc, argv);
    return contest::answer(asked, {{"task", [&] {
                                        contest::sample seen;
#pragma omp parallel num_threads(asked.threads)
#pragma omp single
                                        seen = fan_out::alternate(asked, children);
                                        return seen;
                                    }}});
}
