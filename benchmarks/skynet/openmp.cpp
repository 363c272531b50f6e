// SPDX-License-Identifier: MIT

/// OpenMP: a task for every child.

#include "../support/contender.hpp"
#include "problem.hpp"

#include <array>
#include <cstdint>
#include <numeric>

namespace {

std::uint64_t sum(skynet::part of) {
    if (of.leaves == 1) return of.first;
    std::array<std::uint64_t, 10> seen;
    for (unsigned i = 0; i < 10; ++i) {
#pragma omp task shared(seen) firstprivate(of, i)
        seen[i] = sum(of.child(i));
    }
#pragma omp taskwait
    return std::accumulate(seen.begin(), seen.end(), std::uint64_t{0});
}

}  // namespace

int main(int argc, char** argv) {
    const contest::request asked(argc, argv);
    return contest::answer(asked, {{"task", [&] {
                                        std::uint64_t result = 0;
#pragma omp parallel num_threads(asked.threads)
#pragma omp single
                                        result = sum({0, asked.size});
                                        return result;
                                    }}});
}
