// SPDX-License-Identifier: MIT

/// Ten million items from one token to another through a channel with room for 1024, each token on a core of its own; and a
/// mutex that nobody contends. In turn with
///
///   asio          asio::experimental::concurrent_channel between coroutines of two io_contexts, a pinned thread each
///   deque         std::deque, std::mutex and two condition variables between two pinned threads: what one would write
///
/// each once a round. asio gets a tenth of the items. Every round checks that all items arrived, in order.

#include "support/in_token.hpp"
#include "support/pinned_thread.hpp"
#include "support/side_by_side.hpp"

#include <tokengate/channel.hpp>
#include <tokengate/mutex.hpp>
#include <tokengate/tokengate.hpp>

#include <benchmark/benchmark.h>

#ifdef TOKENGATE_PEER_ASIO
#include <asio/awaitable.hpp>
#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/experimental/concurrent_channel.hpp>
#include <asio/io_context.hpp>
#include <asio/redirect_error.hpp>
#include <asio/use_awaitable.hpp>
#endif

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>

namespace {

namespace tg = tokengate;

constexpr std::int64_t items = 10'000'000;
constexpr std::size_t room = 1024;

// Sticky, so that each has a place of its own: the keys are pinned in turn.
const tg::operation produces{{.name = "produces", .weight = tg::weight::heavy},
                             tg::sticky_by_name{"produces"},
                             [](tg::channel<std::int64_t>* into, std::int64_t count) -> tg::task<unsigned> {
                                 for (std::int64_t i = 0; i < count; ++i) co_await into->send(std::int64_t{i});
                                 into->close();
                                 co_return tg::this_token::executor();
                             }};
const tg::operation consumes{{.name = "consumes", .weight = tg::weight::heavy},
                             tg::sticky_by_name{"consumes"},
                             [](tg::channel<std::int64_t>* from, unsigned* where) -> tg::task<std::int64_t> {
                                 std::int64_t next = 0, wrong = 0;
                                 while (true) {
                                     const std::optional<std::int64_t> got = co_await from->receive();
                                     if (!got) break;
                                     wrong += *got != next++;
                                 }
                                 *where = tg::this_token::executor();
                                 co_return wrong == 0 ? next : -1;
                             }};

/// A bounded queue of the usual kind.
class blocking_queue {
public:
    void push(std::int64_t item) {
        std::unique_lock lock(mutex_);
        not_full_.wait(lock, [this] { return items_.size() < room; });
        items_.push_back(item);
        lock.unlock();
        not_empty_.notify_one();
    }
    std::int64_t pop() {
        std::unique_lock lock(mutex_);
        not_empty_.wait(lock, [this] { return !items_.empty(); });
        const std::int64_t item = items_.front();
        items_.pop_front();
        lock.unlock();
        not_full_.notify_one();
        return item;
    }

private:
    std::mutex mutex_;
    std::condition_variable not_full_, not_empty_;
    std::deque<std::int64_t> items_;
};

bool deque_round(std::int64_t count) {
    blocking_queue queue;
    std::int64_t wrong = 0;
    pinned_thread producer(0, [&] {
        for (std::int64_t i = 0; i < count; ++i) queue.push(i);
    });
    pinned_thread consumer(1, [&] {
        for (std::int64_t i = 0; i < count; ++i) wrong += queue.pop() != i;
    });
    producer.join();
    consumer.join();
    return wrong == 0;
}

#ifdef TOKENGATE_PEER_ASIO
using asio_channel = asio::experimental::concurrent_channel<void(asio::error_code, std::int64_t)>;

asio::awaitable<void> asio_produces(asio_channel& into, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) co_await into.async_send(asio::error_code{}, i, asio::use_awaitable);
}
asio::awaitable<void> asio_consumes(asio_channel& from, std::int64_t count, std::int64_t& wrong) {
    for (std::int64_t i = 0; i < count; ++i) {
        const std::int64_t got = co_await from.async_receive(asio::use_awaitable);
        wrong += got != i;
    }
}
bool asio_round(std::int64_t count) {
    asio::io_context one(1), other(1);
    asio_channel channel(one, room);
    std::int64_t wrong = 0;
    asio::co_spawn(one, asio_produces(channel, count), asio::detached);
    asio::co_spawn(other, asio_consumes(channel, count, wrong), asio::detached);
    pinned_thread producer(0, [&] { one.run(); });
    pinned_thread consumer(1, [&] { other.run(); });
    producer.join();
    consumer.join();
    return wrong == 0;
}
#endif

tg::task<void> take_turns(benchmark::State& state, const tg::runtime& runtime) {
    side_by_side rounds(state, items);
    for (auto _ : state) {
        stopwatch watch;
        {
            tg::channel<std::int64_t> channel(room);
            unsigned consumer = 0;
            const auto [producer, arrived] =
                co_await tg::when_all(produces(&channel, items), consumes(&channel, &consumer));
            rounds.note("tokengate", watch.lap());
            if (arrived != items) state.SkipWithError("items were lost or out of order");
            if (runtime.cores() > 1 && producer == consumer) state.SkipWithError("both were on one core");
        }
        if (runtime.cores() < 2) continue;
        watch.lap();
        const bool deque_right = deque_round(items);
        rounds.note("deque", watch.lap());
        if (!deque_right) state.SkipWithError("the deque lost items");
#ifdef TOKENGATE_PEER_ASIO
        const bool asio_right = asio_round(items / 10);
        rounds.note("asio", watch.lap() * 10);
        if (!asio_right) state.SkipWithError("asio lost items");
#endif
    }
    rounds.report();
}

void between_cores(benchmark::State& state) { in_main(state, take_turns); }

const tg::operation locks{{.name = "locks"}, [](benchmark::State* state) -> tg::task<void> {
                              constexpr int times = 1000;
                              tg::mutex ours;
                              std::mutex theirs;
                              std::int64_t count = 0;
                              side_by_side rounds(*state, times);
                              for (auto _ : *state) {
                                  stopwatch watch;
                                  for (int i = 0; i < times; ++i) {
                                      const auto held = co_await ours.lock();
                                      benchmark::DoNotOptimize(++count);
                                  }
                                  rounds.note("tokengate", watch.lap());
                                  for (int i = 0; i < times; ++i) {
                                      const std::scoped_lock held(theirs);
                                      benchmark::DoNotOptimize(++count);
                                  }
                                  rounds.note("std", watch.lap());
                              }
                              rounds.report();
                          }};

void mutex_uncontended(benchmark::State& state) { in_token(state, locks); }

BENCHMARK(between_cores)->Iterations(5)->UseManualTime()->Unit(benchmark::kMillisecond);
BENCHMARK(mutex_uncontended)->Iterations(1000)->UseManualTime();

}  // namespace

BENCHMARK_MAIN();
