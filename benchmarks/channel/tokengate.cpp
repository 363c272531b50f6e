// SPDX-License-Identifier: MIT

/// Ours: tg::channel; the tokens are spread over the cores, so that a producer and its consumer are not on one.

#include "problem.hpp"

#include <tokengate/channel.hpp>
#include <tokengate/tokengate.hpp>

#include <cstdint>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

namespace {

namespace tg = tokengate;
using items = tg::channel<std::uint64_t>;

tg::task<> produce(items* into, std::uint64_t first, std::uint64_t step, std::uint64_t end) {
    for (std::uint64_t item = first; item < end; item += step) co_await into->send(item);
}

tg::task<std::uint64_t> consume(items* from, std::uint64_t producers) {
    channel::received all(producers);
    while (true) {
        const std::optional<std::uint64_t> item = co_await from->receive();
        if (!item) break;
        all.add(*item);
    }
    co_return all.sum();
}

tg::task<std::uint64_t> pass(const contest::request* asked) {
    items between(channel::room);
    const auto pairs = static_cast<unsigned>(asked->shape);
    std::vector<tg::token<std::uint64_t>> consumers;
    std::vector<tg::token<>> producers;
    for (unsigned i = 0; i < pairs; ++i) {
        consumers.push_back(tg::as_token(consume(&between, pairs), (i + 1) % asked->threads));
        producers.push_back(tg::as_token(produce(&between, i, pairs, asked->size),
                                         i % asked->threads));
    }
    for (tg::token<std::uint64_t>& each : consumers) each.admit();
    co_await tg::when_all(std::move(producers));
    between.close();
    const std::vector<std::uint64_t> sums = co_await tg::when_all(std::move(consumers));
    co_return std::accumulate(sums.begin(), sums.end(), std::uint64_t{0});
}

}  // namespace

int main(int argc, char** argv) {
    const contest::request asked(argc, argv);
    tg::runtime runtime{{.cores = asked.threads}};
    return contest::answer(asked, {{"channel", [&] { return runtime.run(pass(&asked)); }}});
}
