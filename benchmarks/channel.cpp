// SPDX-License-Identifier: MIT

/// Ten million items from one token to another through a channel with room for 1024, each token on a core of its own; and a
/// mutex that nobody contends. In turn with
///
///   asio          asio::experimental::concurrent_channel between coroutines of two io_contexts, a pinned thread each
///   deque         std::deque, std::mutex and two condition variables between two pinned threads: what one would write
///
/// each once a round. asio gets a tenth of the items. Every round checks that all items arrived, in order.
///
/// And ten million from four tokens to four, two senders and two receivers on each of two cores, in turn with
///
///   ring          a ring of tickets by hand: two pinned threads that send 128, receive 128, and never wait for anybody:
///                 the limit
///   deque         as above, between eight pinned threads
///
/// Every round checks that each item arrived exactly once. What has `.cpu` behind its name is CPU time of all threads.

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

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace {

namespace tg = tokengate;

constexpr std::int64_t items = 10'000'000;
constexpr std::size_t room = 1024;

// Sticky, so that each has a place of its own: the keys are pinned in turn.
const tg::operation produces{
    {.name = "produces", .weight = tg::weight::heavy},
    tg::sticky_by_name{"produces"},
    [](tg::channel<std::int64_t>* into, std::int64_t count) -> tg::task<unsigned> {
        for (std::int64_t i = 0; i < count; ++i) co_await into->send(std::int64_t{i});
        into->close();
        co_return tg::this_token::executor();
    }};
const tg::operation consumes{
    {.name = "consumes", .weight = tg::weight::heavy},
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
    for (std::int64_t i = 0; i < count; ++i)
        co_await into.async_send(asio::error_code{}, i, asio::use_awaitable);
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
            if (runtime.cores() > 1 && producer == consumer)
                state.SkipWithError("both were on one core");
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

constexpr unsigned sides = 4;
constexpr std::int64_t of_each = items / sides;

/// What arrived: each item exactly once, if number and sum are right and no receiver got one twice.
class arrivals {
public:
    void note(std::int64_t item) noexcept {
        ++count_;
        sum_ += item;
        const std::size_t sender = static_cast<std::size_t>(item / of_each);
        disordered_ +=
            item <= last_[sender];  // of one sender, a receiver gets them in order: so none twice
        last_[sender] = item;
    }
    void add(const arrivals& other) noexcept {
        count_ += other.count_;
        sum_ += other.sum_;
        disordered_ += other.disordered_;
    }
    [[nodiscard]] std::int64_t count() const noexcept { return count_; }
    [[nodiscard]] bool all() const noexcept {
        return count_ == items && sum_ == items * (items - 1) / 2 && disordered_ == 0;
    }

private:
    std::int64_t count_ = 0, sum_ = 0, disordered_ = 0;
    std::array<std::int64_t, sides> last_{-1, -1, -1, -1};
};

// Not anchored: their starts are spread over the cores in turn.
const tg::operation sends_some{
    {.name = "sends_some", .weight = tg::weight::heavy},
    [](tg::channel<std::int64_t>* into, std::int64_t first) -> tg::task<> {
        for (std::int64_t i = first; i < first + of_each; ++i) co_await into->send(std::int64_t{i});
    }};
const tg::operation receives_some{{.name = "receives_some", .weight = tg::weight::heavy},
                                  [](tg::channel<std::int64_t>* from) -> tg::task<arrivals> {
                                      arrivals mine;
                                      while (true) {
                                          const std::optional<std::int64_t> got =
                                              co_await from->receive();
                                          if (!got) break;
                                          mine.note(*got);
                                      }
                                      co_return mine;
                                  }};

/// A ring of slots whose tickets say whose turn each is; one compare-and-swap to take a ticket.
class ticket_ring {
public:
    ticket_ring() : slots_(room) {
        for (std::size_t i = 0; i < room; ++i) slots_[i].turn.store(i, std::memory_order_relaxed);
    }
    bool push(std::int64_t item) {
        std::size_t ticket = tail_.load(std::memory_order_relaxed);
        slot* at = claim(tail_, ticket, 0);
        if (!at) return false;
        at->item = item;
        at->turn.store(ticket + 1, std::memory_order_release);  // pairs with claim by pop
        return true;
    }
    bool pop(std::int64_t& item) {
        std::size_t ticket = head_.load(std::memory_order_relaxed);
        slot* at = claim(head_, ticket, 1);
        if (!at) return false;
        item = at->item;
        at->turn.store(ticket + room, std::memory_order_release);  // pairs with claim by push
        return true;
    }

private:
    struct slot {
        std::atomic<std::size_t> turn{0};
        std::int64_t item = 0;
    };

    slot* claim(std::atomic<std::size_t>& from, std::size_t& ticket, std::size_t filled) {
        for (;;) {
            slot& at = slots_[ticket % room];
            const auto ahead = static_cast<std::ptrdiff_t>(at.turn.load(std::memory_order_acquire) -
                                                           (ticket + filled));
            if (ahead < 0) return nullptr;
            if (ahead > 0)
                ticket = from.load(std::memory_order_relaxed);
            else if (from.compare_exchange_weak(ticket, ticket + 1, std::memory_order_relaxed))
                return &at;
        }
    }

    std::vector<slot> slots_;
    alignas(64) std::atomic<std::size_t> tail_{0};
    alignas(64) std::atomic<std::size_t> head_{0};
};

bool ring_of_four() {
    constexpr int burst = 128;
    ticket_ring ring;
    std::array<arrivals, 2> got;
    std::atomic<std::int64_t> arrived{0};  // relaxed: the join publishes what was counted
    const auto both = [&](std::size_t which) {
        std::int64_t next = static_cast<std::int64_t>(which) * items / 2;
        const std::int64_t end = next + items / 2;
        arrivals& mine = got[which];
        while (arrived.load(std::memory_order_relaxed) != items) {
            for (int i = 0; i < burst && next != end && ring.push(next); ++i) ++next;
            const std::int64_t before = mine.count();
            std::int64_t item = 0;
            for (int i = 0; i < burst && ring.pop(item); ++i) mine.note(item);
            arrived.fetch_add(mine.count() - before, std::memory_order_relaxed);
        }
    };
    pinned_thread one(0, [&] { both(0); });
    pinned_thread other(1, [&] { both(1); });
    one.join();
    other.join();
    got[0].add(got[1]);
    return got[0].all();
}

bool deque_of_four() {
    blocking_queue queue;
    std::array<arrivals, sides> got;
    std::deque<pinned_thread> threads;
    for (std::size_t i = 0; i < sides; ++i) {
        const int cpu = static_cast<int>(i % 2);
        threads.emplace_back(cpu, [&queue, first = static_cast<std::int64_t>(i) * of_each] {
            for (std::int64_t item = first; item < first + of_each; ++item) queue.push(item);
        });
        threads.emplace_back(cpu, [&queue, &mine = got[i]] {
            for (std::int64_t n = 0; n < of_each; ++n) mine.note(queue.pop());
        });
    }
    for (pinned_thread& each : threads) each.join();
    for (std::size_t i = 1; i < sides; ++i) got[0].add(got[i]);
    return got[0].all();
}

double cpu_seconds() {
    timespec spent{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &spent);
    return static_cast<double>(spent.tv_sec) + static_cast<double>(spent.tv_nsec) * 1e-9;
}

tg::task<void> four_take_turns(benchmark::State& state, const tg::runtime&) {
    side_by_side rounds(state, items);
    const auto rival = [&](const char* name, bool (*run)()) {
        const double cpu_before = cpu_seconds();
        stopwatch watch;
        const bool right = run();
        rounds.note(name, watch.lap());
        rounds.note(std::string(name) + ".cpu", cpu_seconds() - cpu_before);
        if (!right) state.SkipWithError("a rival lost items");
    };
    for (auto _ : state) {
        const double cpu_before = cpu_seconds();
        stopwatch watch;
        tg::channel<std::int64_t> channel(room);
        std::vector<tg::token<>> senders;
        std::vector<tg::token<arrivals>> receivers;
        for (unsigned i = 0; i < sides; ++i) {
            senders.push_back(sends_some(&channel, i * of_each));
            senders.back().admit();
        }
        for (unsigned i = 0; i < sides; ++i) {
            receivers.push_back(receives_some(&channel));
            receivers.back().admit();
        }
        for (tg::token<>& each : senders) co_await each;
        channel.close();
        arrivals got;
        for (tg::token<arrivals>& each : receivers) {
            const arrivals part = co_await each;
            got.add(part);
        }
        rounds.note("tokengate", watch.lap());
        rounds.note("tokengate.cpu", cpu_seconds() - cpu_before);
        if (!got.all()) state.SkipWithError("items were lost, came twice or out of order");
        rival("ring", ring_of_four);
        rival("deque", deque_of_four);
    }
    rounds.report();
}

void between_cores(benchmark::State& state) { in_main(state, take_turns); }

void four_to_four(benchmark::State& state) { in_main(state, four_take_turns, {.cores = 2}); }

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
BENCHMARK(four_to_four)->Iterations(5)->UseManualTime()->Unit(benchmark::kMillisecond);
BENCHMARK(mutex_uncontended)->Iterations(1000)->UseManualTime();

}  // namespace

BENCHMARK_MAIN();
