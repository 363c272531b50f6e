// SPDX-License-Identifier: MIT

/// OpenMP: tasks of a parallel region, while the thread that made them computes.

#include "../support/contender.hpp"
#include "problem.hpp"

#include <cstddef>

namespace {

void start(news::rounds& all) {
    for (std::size_t i = 0; i < all.size(); ++i) {
#pragma omp task shared(all) firstprivate(i)
        all.child(i);
    }
}
void await(news::rounds&) {
#pragma omp taskwait
}

}  // namespace

int main(int argc, char** argv) {
    const contest::request asked(argc, argv);
    return contest::answer(asked, {{"task", [&] {
                                        contest::sample seen;
#pragma omp parallel num_threads(asked.threads)
#pragma omp single
                                        seen = news::repeat(asked, start, await);
                                        return seen;
                                    }}});
}
