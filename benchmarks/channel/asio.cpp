// SPDX-License-Identifier: MIT

/// asio: concurrent_channel between coroutines of io_contexts, a pinned thread each. Closing it would drop what is in it,
/// so an item of its own ends each consumer.

#include "../support/pinned_thread.hpp"
#include "problem.hpp"

#include <asio/awaitable.hpp>
#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/experimental/concurrent_channel.hpp>
#include <asio/io_context.hpp>
#include <asio/use_awaitable.hpp>

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <numeric>
#include <vector>

namespace {

using items = asio::experimental::concurrent_channel<void(asio::error_code, std::uint64_t)>;

constexpr std::uint64_t last = ~std::uint64_t{0};

asio::awaitable<void> produce(items& into, std::atomic<std::uint64_t>& left, std::uint64_t first,
                              std::uint64_t step, std::uint64_t end) {
    for (std::uint64_t item = first; item < end; item += step)
        co_await into.async_send(asio::error_code{}, item, asio::use_awaitable);
    if (left.fetch_sub(1, std::memory_order_acq_rel) != 1) co_return;
    for (std::uint64_t i = 0; i < step; ++i)
        co_await into.async_send(asio::error_code{}, last, asio::use_awaitable);
}

asio::awaitable<void> consume(items& from, std::uint64_t producers, std::uint64_t& sum) {
    channel::received all(producers);
    for (;;) {
        const std::uint64_t item = co_await from.async_receive(asio::use_awaitable);
        if (item == last) break;
        all.add(item);
    }
    sum = all.sum();
}

std::uint64_t pass(const contest::request& asked) {
    const std::vector<int> cpus = contest::request::cpus();
    std::deque<asio::io_context> contexts;
    for (unsigned i = 0; i < asked.threads; ++i) contexts.emplace_back(1);
    items between(contexts.front(), channel::room);
    std::atomic<std::uint64_t> left{asked.shape};
    std::vector<std::uint64_t> sums(asked.shape);
    for (std::uint64_t i = 0; i < asked.shape; ++i) {
        asio::co_spawn(contexts[(i + 1) % contexts.size()], consume(between, asked.shape, sums[i]),
                       asio::detached);
        asio::co_spawn(contexts[i % contexts.size()],
                       produce(between, left, i, asked.shape, asked.size), asio::detached);
    }
    std::vector<std::unique_ptr<pinned_thread>> threads;
    for (unsigned i = 0; i < contexts.size(); ++i)
        threads.push_back(std::make_unique<pinned_thread>(
            cpus[i % cpus.size()], [&context = contexts[i]] { context.run(); }));
    for (const auto& each : threads) each->join();
    return std::accumulate(sums.begin(), sums.end(), std::uint64_t{0});
}

}  // namespace

int main(int argc, char** argv) {
    const contest::request asked(argc, argv);
    return contest::answer(asked, {{"concurrent_channel", [&] { return pass(asked); }}});
}
