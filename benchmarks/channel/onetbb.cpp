// SPDX-License-Identifier: MIT

/// oneTBB: concurrent_bounded_queue between pinned threads. An item of its own ends each consumer.

#include "../support/pinned_thread.hpp"
#include "problem.hpp"

#include <tbb/concurrent_queue.h>

#include <cstdint>
#include <memory>
#include <numeric>
#include <vector>

namespace {

constexpr std::uint64_t last = ~std::uint64_t{0};

std::uint64_t pass(const contest::request& asked) {
    tbb::concurrent_bounded_queue<std::uint64_t> between;
    between.set_capacity(channel::room);
    const std::vector<int> cpus = contest::request::cpus();
    std::vector<std::uint64_t> sums(asked.shape);
    std::vector<std::unique_ptr<pinned_thread>> consumers, producers;
    for (std::uint64_t i = 0; i < asked.shape; ++i) {
        consumers.push_back(std::make_unique<pinned_thread>(cpus[(i + 1) % cpus.size()], [&, i] {
            channel::received all(asked.shape);
            for (std::uint64_t item = 0; between.pop(item), item != last;) all.add(item);
            sums[i] = all.sum();
        }));
        producers.push_back(std::make_unique<pinned_thread>(cpus[i % cpus.size()], [&, i] {
            for (std::uint64_t item = i; item < asked.size; item += asked.shape) between.push(item);
        }));
    }
    for (const auto& each : producers) each->join();
    for (std::uint64_t i = 0; i < asked.shape; ++i) between.push(last);
    for (const auto& each : consumers) each->join();
    return std::accumulate(sums.begin(), sums.end(), std::uint64_t{0});
}

}  // namespace

int main(int argc, char** argv) {
    const contest::request asked(argc, argv);
    return contest::answer(asked, {{"bounded_queue", [&] { return pass(asked); }}});
}
