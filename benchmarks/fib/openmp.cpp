// SPDX-License-Identifier: MIT

/// OpenMP: a task in every call for one branch.

#include "../support/contender.hpp"

#include <cstdint>

namespace {

std::uint64_t recurse(unsigned n) {
    if (n < 2) return n;
    std::uint64_t before = 0;
#pragma omp task shared(before) firstprivate(n)
    before = recurse(n - 1);
    const std::uint64_t last = recurse(n - 2);
#pragma omp taskwait
    return before + last;
}

}  // namespace

int main(int argc, char** argv) {
    const contest::request asked(argc, argv);
    return contest::answer(asked, {{"task", [&] {
                                        std::uint64_t result = 0;
#pragma omp parallel num_threads(asked.threads)
#pragma omp single
                                        result = recurse(static_cast<unsigned>(asked.size));
                                        return result;
                                    }}});
}
