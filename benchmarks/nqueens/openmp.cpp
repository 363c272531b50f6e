// SPDX-License-Identifier: MIT

/// OpenMP: a task for every child.

#include "../support/contender.hpp"
#include "problem.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <numeric>

namespace {

std::uint64_t count(nqueens::board from) {
    if (from.full()) return 1;
    std::array<std::uint64_t, 32> seen;
    std::size_t children = 0;
    for (std::uint32_t safe = from.safe(); safe != 0; safe &= safe - 1) {
        std::uint64_t* const to = &seen[children++];
        const nqueens::board child = from.with(safe & -safe);
#pragma omp task firstprivate(to, child)
        *to = count(child);
    }
#pragma omp taskwait
    return std::accumulate(seen.data(), seen.data() + children, std::uint64_t{0});
}

}  // namespace

int main(int argc, char** argv) {
    const contest::request asked(argc, argv);
    return contest::answer(asked, {{"task", [&] {
                                        std::uint64_t result = 0;
#pragma omp parallel num_threads(asked.threads)
#pragma omp single
                                        result = count({static_cast<std::uint32_t>(asked.size)});
                                        return result;
                                    }}});
}
