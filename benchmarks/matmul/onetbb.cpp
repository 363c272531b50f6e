// SPDX-License-Identifier: MIT

/// oneTBB: a task_group for the four quadrants, twice.

#include "measured.hpp"

#include <tbb/global_control.h>
#include <tbb/task_group.h>

namespace {

void multiply(const matmul::product& of) {
    if (of.small()) return of.multiply();
    for (const unsigned half : {0U, 1U}) {
        tbb::task_group group;
        for (unsigned i = 0; i < 3; ++i) group.run([part = of.part(i, half)] { multiply(part); });
        multiply(of.part(3, half));
        group.wait();
    }
}

}  // namespace

int main(int argc, char** argv) {
    const contest::request asked(argc, argv);
    const tbb::global_control threads(tbb::global_control::max_allowed_parallelism, asked.threads);
    matmul::matrices all(asked.size);
    return contest::answer(asked,
                           {{"task_group", [&] { return matmul::measured(all, multiply); }}});
}
