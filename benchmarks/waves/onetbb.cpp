// SPDX-License-Identifier: MIT

/// oneTBB: a task of one task_group for each piece; the thread that waits helps.

#include "contenders.hpp"

#include <tbb/global_control.h>
#include <tbb/task_group.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace {

class onetbb : public waves::contender {
public:
    explicit onetbb(unsigned threads)
        : threads_(tbb::global_control::max_allowed_parallelism, threads) {}
    void run(std::vector<std::uint64_t>& fingerprints) override {
        tbb::task_group group;
        for (std::size_t i = 0; i < fingerprints.size(); ++i)
            group.run([&to = fingerprints[i], i] { to = waves::piece(static_cast<unsigned>(i)); });
        group.wait();
    }

private:
    tbb::global_control threads_;
};

}  // namespace

std::unique_ptr<waves::contender> waves::make_onetbb(unsigned threads) {
    return std::make_unique<onetbb>(threads);
}
