// SPDX-License-Identifier: MIT

/// OpenMP: tasks for the four quadrants, twice.

#include "measured.hpp"

namespace {

void multiply(const matmul::product& of) {
    if (of.small()) return of.multiply();
    for (unsigned half = 0; half < 2; ++half) {
        for (unsigned i = 0; i < 3; ++i) {
            const matmul::product part = of.part(i, half);
#pragma omp task firstprivate(part)
            multiply(part);
        }
        multiply(of.part(3, half));
#pragma omp taskwait
    }
}

}  // namespace

int main(int argc, char** argv) {
    const contest::request asked(argc, argv);
    matmul::matrices all(asked.size);
    return contest::answer(asked, {{"task", [&] {
                                        return matmul::measured(all,
                                                                [&](const matmul::product& whole) {
#pragma omp parallel num_threads(asked.threads)
#pragma omp single
                                                                    multiply(whole);
                                                                });
                                    }}});
}
