// SPDX-License-Identifier: MIT
#include "executor/executor.hpp"

#include "lifecycle/runtime_core.hpp"
#include "support/manual_event.hpp"
#include "support/waiting.hpp"

#include <tokengate/detail/io_wait.hpp>
#include <tokengate/error.hpp>
#include <tokengate/operation.hpp>
#include <tokengate/runtime.hpp>
#include <tokengate/stop.hpp>
#include <tokengate/task_token.hpp>
#include <tokengate/this_token.hpp>
#include <tokengate/time.hpp>
#include <tokengate/when_all.hpp>

#include <doctest/doctest.h>

#include <fcntl.h>
#include <liburing.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <future>
#include <iterator>
#include <set>
#include <thread>
#include <utility>
#include <vector>

namespace tg = tokengate;
using tg::test::blockade;
using tg::test::manual_event;
using tg::test::wait_until;

namespace {

using cores = std::set<unsigned>;

const tg::operation light{{.name = "executor_test_light", .weight = tg::weight::light},
                          [] { return tg::this_token::core(); }};
const tg::operation medium{{.name = "executor_test_medium"}, [] { return tg::this_token::core(); }};
const tg::operation heavy{{.name = "executor_test_heavy", .weight = tg::weight::heavy},
                          [] { return tg::this_token::core(); }};
const tg::operation worker{{.name = "executor_test_worker", .weight = tg::weight::heavy},
                           [] { return tg::this_token::executor(); }};

const tg::operation block_light{{.name = "executor_test_block_light", .weight = tg::weight::light},
                                [](blockade* on) { on->wait(); }};
const tg::operation block_heavy{{.name = "executor_test_block_heavy", .weight = tg::weight::heavy},
                                [](blockade* on) { on->wait(); }};

struct count_by_core {
    std::atomic<int> total{0};
    std::atomic<int> on[16]{};

    void note() {
        ++on[tg::this_token::core()];
        ++total;
    }
};
const tg::operation count_light{{.name = "executor_test_count_light", .weight = tg::weight::light},
                                [](count_by_core* in) { in->note(); }};
const tg::operation count_heavy{{.name = "executor_test_count_heavy", .weight = tg::weight::heavy},
                                [](count_by_core* in) { in->note(); }};
const tg::operation sticky_block{
    {.name = "executor_test_sticky_block", .weight = tg::weight::heavy},
    tg::sticky{"executor_test", [](int key, blockade*) { return key; }},
    [](int, blockade* on) { on->wait(); }};
const tg::operation sticky_count{
    {.name = "executor_test_sticky_count", .weight = tg::weight::heavy},
    tg::sticky{"executor_test", [](int key, count_by_core*) { return key; }},
    [](int, count_by_core* in) { in->note(); }};

constexpr int window =
    static_cast<int>(tg::detail::window_for(0));  // of a core that has not measured yet

/// Where `count` tokens of an operation run.
template <class Operation>
cores where(tg::runtime& runtime, const Operation& op, int count) {
    const auto all = runtime.run([&]() -> tg::task<std::vector<unsigned>> {
        std::vector<tg::token<unsigned>> tokens;
        for (int i = 0; i < count; ++i) tokens.push_back(op());
        co_return co_await tg::when_all(std::move(tokens));
    });
    return {all.begin(), all.end()};
}

/// Whether they come to run on just these cores. Not in every round: what waits to start on a core that the kernel has
/// suspended is taken back for one that is idle.
template <class Operation>
bool comes_to_run_on(tg::runtime& runtime, const Operation& op, int count, const cores& expected) {
    constexpr int most_rounds = 1000;
    for (int round = 0; round < most_rounds; ++round)
        if (where(runtime, op, count) == expected) return true;
    return false;
}

/// Holds one core after the other, each by a token bound to it, until the blockade ends.
tg::task<> hold_core(blockade* on) {
    on->wait();
    co_return;
}
const tg::operation hold_cores{{.name = "executor_test_hold_cores", .weight = tg::weight::heavy},
                               [](unsigned first, unsigned end, blockade* on) -> tg::task<> {
                                   std::vector<tg::token<>> holders;
                                   for (unsigned core = first; core < end; ++core)
                                       holders.push_back(tg::as_token(hold_core(on), core));
                                   co_await tg::when_all(std::move(holders));
                               }};

struct gauge {
    std::atomic<int> running{0}, most{0};

    void enter() {
        const int now = ++running;
        for (int seen = most.load(); seen < now && !most.compare_exchange_weak(seen, now);) {}
    }
    void leave() { --running; }
};

tg::task<> use_storage(gauge* in, manual_event* release) {
    in->enter();
    co_await *release;
    in->leave();
}
const tg::operation on_slow{{.name = "executor_test_slow", .storage = tg::storage::slow},
                            use_storage};
const tg::operation on_moderate{
    {.name = "executor_test_moderate", .storage = tg::storage::moderate}, use_storage};
const tg::operation on_fast{{.name = "executor_test_fast", .storage = tg::storage::fast},
                            use_storage};
const tg::operation on_insane{{.name = "executor_test_insane", .storage = tg::storage::insane},
                              use_storage};

const tg::operation slow_child{{.name = "executor_test_slow_child", .storage = tg::storage::slow},
                               [](int n) { return n; }};
const tg::operation slow_parent{{.name = "executor_test_slow_parent", .storage = tg::storage::slow},
                                [](int n) -> tg::task<int> {
                                    const int first = co_await slow_child(n);
                                    auto [second, third] =
                                        co_await tg::when_all(slow_child(n), slow_child(n));
                                    co_return first + second + third;
                                }};
tg::task<int> deeper(int levels);
const tg::operation slow_chain{{.name = "executor_test_slow_chain", .storage = tg::storage::slow},
                               deeper};
tg::task<int> deeper(int levels) {
    if (levels == 0) co_return 0;
    const int below = co_await slow_chain(levels - 1);
    co_return below + 1;
}
const tg::operation slow_lead{{.name = "executor_test_slow_lead", .storage = tg::storage::slow},
                              tg::lead{"executor_test_slow_child"},
                              [](int n) -> tg::task<int> {
                                  int sum = 0;
                                  for (int i = 0; i < n; ++i) {
                                      const int one = co_await slow_child(1);
                                      sum += one;
                                  }
                                  co_return sum;
                              }};
const tg::operation permits_in_use{
    {.name = "executor_test_permits"},
    [] { return tg::detail::context().runtime->at_gate.in_use(tg::storage::slow); }};

const tg::operation leads_workers{{.name = "executor_test_leads_workers"},
                                  tg::lead{"executor_test_worker"},
                                  [](int children) -> tg::task<bool> {
                                      const unsigned mine = tg::this_token::executor();
                                      std::vector<tg::token<unsigned>> tokens;
                                      for (int i = 0; i < children; ++i) tokens.push_back(worker());
                                      const auto all = co_await tg::when_all(std::move(tokens));
                                      co_return std::count(all.begin(), all.end(), mine) ==
                                          children;
                                  }};

/// A byte to or from a pipe, as the kernel's operation.
class moving_a_byte : public tg::detail::io_wait {
public:
    moving_a_byte(int descriptor, char* byte, bool writes) : io_wait("move a byte") {
        if (writes)
            io_uring_prep_write(sqe(), descriptor, byte, 1, 0);
        else
            io_uring_prep_read(sqe(), descriptor, byte, 1, 0);
    }
    int await_resume() { return finished(); }
};

struct test_pipe {
    test_pipe() { REQUIRE(::pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0); }
    test_pipe(const test_pipe&) = delete;
    test_pipe& operator=(const test_pipe&) = delete;
    ~test_pipe() {
        ::close(ends[0]);
        ::close(ends[1]);
    }
    bool take() const {
        char byte;
        return ::read(ends[0], &byte, 1) == 1;
    }
    int ends[2];
};

const tg::operation write_byte{{.name = "executor_test_write_byte", .weight = tg::weight::light},
                               [](int descriptor) -> tg::task<int> {
                                   char byte = 'w';
                                   co_return co_await moving_a_byte(descriptor, &byte, true);
                               }};
std::atomic<int> reading{0};
/// From a blocking descriptor, so that the kernel waits for a byte.
const tg::operation read_byte{{.name = "executor_test_read_byte", .weight = tg::weight::light},
                              [](int descriptor) -> tg::task<int> {
                                  char byte = 0;
                                  ++reading;
                                  co_return co_await moving_a_byte(descriptor, &byte, false);
                              }};

}  // namespace

TEST_SUITE("executor") {
    TEST_CASE("classes run on the cores of their range, and on all of them") {
        tg::runtime runtime{{.cores = 8, .spill = tg::spill::never}};
        const auto within = [](const cores& found, unsigned first) {
            return *found.begin() >= first;
        };
        CHECK(within(where(runtime, medium, 400), 1));
        CHECK(within(where(runtime, light, 400), 2));
        CHECK(within(where(runtime, light, 20'000), 2));  // far more than their windows
        CHECK(within(where(runtime, medium, 20'000), 1));
        CHECK(comes_to_run_on(runtime, heavy, 400, cores{0, 1, 2, 3, 4, 5, 6, 7}));
        CHECK(comes_to_run_on(runtime, medium, 400, cores{1, 2, 3, 4, 5, 6, 7}));
        CHECK(comes_to_run_on(runtime, light, 400, cores{2, 3, 4, 5, 6, 7}));
        runtime.start();
        const auto hold_all = [&](const auto& block, int count) {
            blockade all;  // a core that is held begins no other: so each holds another core
            std::vector<std::future<void>> ended;
            for (int i = 0; i < count; ++i) ended.push_back(runtime.submit(block(&all)));
            all.until(count);
            all.end();
            for (auto& each : ended) each.get();
        };
        hold_all(block_light, 6);
        hold_all(block_heavy, 8);
    }

    TEST_CASE("on few cores the ranges fold") {
        tg::runtime one{{.cores = 1, .spill = tg::spill::never}};
        CHECK(where(one, heavy, 10) == cores{0});
        CHECK(where(one, medium, 10) == cores{0});
        CHECK(where(one, light, 10) == cores{0});
        tg::runtime two{{.cores = 2, .spill = tg::spill::never}};
        CHECK(comes_to_run_on(two, heavy, 10, cores{0, 1}));
        CHECK(where(two, medium, 1000) == cores{1});
        CHECK(where(two, light, 1000) == cores{1});
    }

    TEST_CASE("a class whose range has room does not leave it") {
        tg::runtime runtime{{.cores = 8, .spill = tg::spill::when_saturated}};
        CHECK(comes_to_run_on(runtime, light, 6 * 8, cores{2, 3, 4, 5, 6, 7}));
    }

    TEST_CASE("a saturated class spills to cores outside its range; with spill::never it waits") {
        for (const tg::spill policy : {tg::spill::when_saturated, tg::spill::never}) {
            blockade home;
            count_by_core counts;
            std::vector<std::future<void>> ended;
            tg::runtime runtime{{.cores = 8, .spill = policy}};
            runtime.start();
            ended.push_back(runtime.submit(hold_cores(2, 8, &home)));
            home.until(6);  // the whole range
            for (int i = 0; i < 2000; ++i) ended.push_back(runtime.submit(count_light(&counts)));
            if (policy == tg::spill::when_saturated)
                wait_until([&] { return counts.total >= 2000 - 6 * window; });
            else
                wait_until([&] {
                    return runtime.snapshot().waiting >=
                           2000 - 6 * static_cast<std::uint64_t>(window);
                });
            for (unsigned core = 2; core < 8; ++core) CHECK(counts.on[core] == 0);
            if (policy == tg::spill::never) CHECK(counts.total == 0);
            home.end();
            for (auto& each : ended) each.get();
            CHECK(counts.total == 2000);
            if (policy == tg::spill::never) CHECK(counts.on[0] + counts.on[1] == 0);
        }
    }

    TEST_CASE("a core that a long token holds keeps back no more than its window") {
        blockade one;
        count_by_core counts;
        std::vector<std::future<void>> ended;
        tg::runtime runtime{{.cores = 8}};
        runtime.start();
        ended.push_back(runtime.submit(block_heavy(&one)));
        one.until(1);
        for (int i = 0; i < 5000; ++i) ended.push_back(runtime.submit(count_heavy(&counts)));
        wait_until([&] { return counts.total >= 5000 - window; });
        one.end();
        for (auto& each : ended) each.get();
        CHECK(counts.total == 5000);
    }

    TEST_CASE("what waits at the gate goes to the core that becomes free") {
        blockade all, last;
        count_by_core counts;
        std::vector<std::future<void>> ended;
        tg::runtime runtime{{.cores = 4}};
        runtime.start();
        for (int i = 0; i < 3; ++i) ended.push_back(runtime.submit(block_heavy(&all)));
        all.until(3);
        ended.push_back(runtime.submit(block_heavy(&last)));
        last.until(1);
        for (int i = 0; i < 4 * window + 500; ++i)
            ended.push_back(runtime.submit(count_heavy(&counts)));
        wait_until([&] { return runtime.snapshot().waiting >= 500; });
        CHECK(counts.total == 0);
        last.end();
        wait_until([&] {
            return counts.total >= window + 500;
        });  // its own, and all that nobody had
        all.end();
        for (auto& each : ended) each.get();
    }

    TEST_CASE("anchored tokens go where they must, and do not stand in front of others") {
        blockade one;
        count_by_core sticky, free;
        std::vector<std::future<void>> ended;
        tg::runtime runtime{{.cores = 4}};
        runtime.start();
        ended.push_back(runtime.submit(sticky_block(7, &one)));
        one.until(1);
        for (int i = 0; i < 1000; ++i) {
            ended.push_back(runtime.submit(sticky_count(7, &sticky)));
            ended.push_back(runtime.submit(count_heavy(&free)));
        }
        wait_until([&] { return free.total >= 1000 - window; });
        CHECK(sticky.total == 0);
        one.end();
        for (auto& each : ended) each.get();
        CHECK(sticky.total == 1000);
        CHECK(std::count_if(std::begin(sticky.on), std::end(sticky.on),
                            [](const auto& n) { return n != 0; }) == 1);
    }

    TEST_CASE("what ended is heard of before a token that may run long begins") {
        blockade first, second;
        tg::runtime runtime{{.cores = 1}};
        runtime.start();
        auto begins = runtime.submit(block_heavy(&first));
        first.until(1);
        auto ends = runtime.submit(heavy());  // both are in the core's mailbox when it looks again
        auto runs_long = runtime.submit(block_heavy(&second));
        wait_until([&] { return runtime.tokens().size() == 3; });
        first.end();
        second.until(1);
        CHECK(ends.wait_for(std::chrono::seconds(0)) == std::future_status::ready);
        second.end();
        begins.get();
        runs_long.get();
        CHECK(ends.get() == 0);
    }

    TEST_CASE("a loop that goes on spawning sends at every 32 tokens") {
        count_by_core counts;
        tg::runtime runtime{{.cores = 1}};
        runtime.run([&]() -> tg::task<> {
            for (int i = 0; i < window; ++i) count_heavy(&counts).admit();
            wait_until([&] { return counts.total == window; });  // without having let the loop go
            co_return;
        });
        CHECK(counts.total == window);
    }

    TEST_CASE("storage tiers: never more than the limit at once, and as many as that") {
        gauge in[4];
        manual_event release;
        tg::runtime runtime{
            {.cores = 3, .storage = {.slow = 2, .moderate = 3, .fast = 4, .insane = 5}}};
        runtime.start();
        std::vector<std::future<void>> ended;
        for (int i = 0; i < 20; ++i) {
            ended.push_back(runtime.submit(on_slow(&in[0], &release)));
            ended.push_back(runtime.submit(on_moderate(&in[1], &release)));
            ended.push_back(runtime.submit(on_fast(&in[2], &release)));
            ended.push_back(runtime.submit(on_insane(&in[3], &release)));
        }
        wait_until([&] {
            return in[0].running + in[1].running + in[2].running + in[3].running == 2 + 3 + 4 + 5;
        });
        wait_until([&] { return runtime.tokens().size() == 80; });
        for (int tier = 0; tier < 4; ++tier) CHECK(in[tier].running == 2 + tier);
        release.set();
        for (auto& each : ended) each.get();
        for (int tier = 0; tier < 4; ++tier) {
            CHECK(in[tier].most == 2 + tier);
            CHECK(in[tier].running == 0);
        }
    }

    TEST_CASE("the default limits are those of the seed") {
        gauge in;
        manual_event release;
        tg::runtime runtime{{.cores = 2}};
        runtime.start();
        std::vector<std::future<void>> ended;
        for (int i = 0; i < 30; ++i) ended.push_back(runtime.submit(on_slow(&in, &release)));
        wait_until([&] { return in.running == 10 && runtime.tokens().size() == 30; });
        release.set();
        for (auto& each : ended) each.get();
        CHECK(in.most == 10);
    }

    TEST_CASE(
        "a permit is given up while its token awaits others: parents and children of one tier "
        "end") {
        for (const int limit : {1, 3, 10}) {
            CAPTURE(limit);
            tg::runtime runtime{{.cores = 3, .storage = {.slow = limit}}};
            runtime.run([&]() -> tg::task<> {
                std::vector<tg::token<int>> parents;
                for (int i = 0; i < 50; ++i) parents.push_back(slow_parent(i));
                const auto sums = co_await tg::when_all(std::move(parents));
                for (int i = 0; i < 50; ++i) CHECK(sums[static_cast<std::size_t>(i)] == 3 * i);
                const int levels = co_await slow_chain(20);
                CHECK(levels == 20);
                std::vector<tg::token<int>> chains;
                for (int i = 0; i < 20; ++i) chains.push_back(slow_lead(i));
                const auto conducted = co_await tg::when_all(std::move(chains));
                for (int i = 0; i < 20; ++i) CHECK(conducted[static_cast<std::size_t>(i)] == i);
                const int left = co_await permits_in_use();
                CHECK(left == 0);
            });
        }
    }

    TEST_CASE("a token may be awaited while its core gives its permit back") {
        tg::runtime runtime{{.cores = 2}};
        runtime.run([]() -> tg::task<> {
            for (int round = 0; round < 200; ++round) {
                std::vector<tg::token<int>> tokens;
                for (int i = 0; i < 20; ++i) tokens.push_back(slow_child(i));
                for (auto& each : tokens) each.admit();
                for (int i = 0; i < 20; ++i) {
                    const int result = co_await tokens[static_cast<std::size_t>(i)];
                    CHECK(result == i);
                }
            }
        });
    }

    TEST_CASE("several workers of a core are executors of their own") {
        tg::runtime runtime{{.cores = 2, .workers_per_core = 3, .spill = tg::spill::never}};
        CHECK(runtime.cores() == 2);
        CHECK(runtime.executors() == 6);
        CHECK(comes_to_run_on(runtime, worker, 100, cores{0, 1, 2, 3, 4, 5}));
        CHECK(comes_to_run_on(runtime, heavy, 100, cores{0, 1}));
        CHECK(where(runtime, light, 100) == cores{1});
        blockade all;  // they block at the same time
        runtime.start();
        std::vector<std::future<void>> ended;
        for (int i = 0; i < 6; ++i) ended.push_back(runtime.submit(block_heavy(&all)));
        all.until(6);
        all.end();
        for (auto& each : ended) each.get();
        for (int i = 0; i < 20; ++i)
            CHECK(runtime.submit(leads_workers(50)).get());  // a domain names one of them
    }

    TEST_CASE("what a token has asked of the kernel is under way before another's long body") {
        tg::runtime runtime{{.cores = 1}};
        const test_pipe pipe;
        const tg::operation waits_for_it{
            {.name = "executor_test_waits_for_a_byte", .weight = tg::weight::light}, [&pipe] {
                while (!pipe.take()) std::this_thread::yield();
            }};
        // Once: afterwards it might be known as short.
        runtime.run([&]() -> tg::task<> {
            const auto [written, none] =
                co_await tg::when_all(write_byte(pipe.ends[1]), waits_for_it());
            CHECK(written == 1);
        });
    }

    TEST_CASE(
        "an awaited operation of the kernel's: success, error, stop before and meanwhile, "
        "timeout") {
        tg::runtime runtime{{.cores = 2}};
        const test_pipe pipe;
        CHECK(::fcntl(pipe.ends[0], F_SETFL, 0) == 0);
        runtime.run([&]() -> tg::task<> {
            CHECK(co_await write_byte(pipe.ends[1]) == 1);
            CHECK(co_await read_byte(pipe.ends[0]) == 1);
            CHECK(co_await read_byte(-1) == -EBADF);
            reading = 0;
            tg::token<int> never = read_byte(pipe.ends[0]);
            never.request_stop();
            CHECK_THROWS_AS(co_await never, tg::token_stopped);
            CHECK(reading == 0);
            tg::token<int> asked = read_byte(pipe.ends[0]);
            asked.admit();
            while (reading == 0) co_await tg::yield();
            asked.request_stop();
            CHECK_THROWS_AS(co_await asked, tg::token_stopped);
            CHECK_THROWS_AS(co_await tg::with_timeout(read_byte(pipe.ends[0]),
                                                      std::chrono::milliseconds(1)),
                            tg::token_timeout);
            CHECK(co_await write_byte(pipe.ends[1]) == 1);  // nobody has taken it
            CHECK(co_await read_byte(pipe.ends[0]) == 1);
        });
    }
}
