// SPDX-License-Identifier: MIT

// How groups begin their children: in place, depth first, within bounds. What comes out of them is in when_all_test.cpp.

#include <tokengate/detail/group.hpp>

#include "lifecycle/runtime_core.hpp"
#include "support/manual_event.hpp"
#include "support/sanitizers.hpp"
#include "support/settled.hpp"
#include "support/waiting.hpp"

#include <tokengate/tokengate.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace tg = tokengate;
using namespace std::chrono_literals;
using tg::test::check_settled;
using tg::test::manual_event;
using tg::test::until;
using tg::test::wait_until;

namespace {

// ---- trees

std::atomic<int> leaves{0};
std::atomic<std::size_t> most_frames{0};

/// Not at each leaf: it counts all slots there are.
void look_at_frames() {
    if (leaves.fetch_add(1) % 512 != 0) return;
    const std::size_t found = tg::detail::frame_pool::statistics().live_slots;
    for (std::size_t most = most_frames;
         most < found && !most_frames.compare_exchange_weak(most, found);) {}
}

tg::task<int> fork(int n);
const tg::operation forks{{.name = "group_test_forks", .weight = tg::weight::heavy}, fork};
tg::task<int> fork(int n) {
    if (n < 2) {
        look_at_frames();
        co_return n;
    }
    const auto [a, b] = co_await tg::when_all(forks(n - 1), forks(n - 2));
    co_return a + b;
}

tg::task<int> fan(int levels);
const tg::operation fans{{.name = "group_test_fans", .weight = tg::weight::heavy}, fan};
tg::task<int> fan(int levels) {
    if (levels == 0) {
        look_at_frames();
        co_return 1;
    }
    std::vector<tg::token<int>> children;
    children.reserve(10);
    for (int i = 0; i < 10; ++i) children.push_back(fans(levels - 1));
    int sum = 0;
    for (const int each : co_await tg::when_all(std::move(children))) sum += each;
    co_return sum;
}

tg::task<int> fork_tasks(int n) {
    if (n < 2) {
        look_at_frames();
        co_return n;
    }
    std::vector<tg::task<int>> both;
    both.reserve(2);
    both.push_back(fork_tasks(n - 1));
    both.push_back(fork_tasks(n - 2));
    const std::vector<int> results = co_await tg::when_all(std::move(both));
    co_return results[0] + results[1];
}

/// Children as tokens that are admitted first and awaited afterwards.
tg::task<int> fork_admitted(int n) {
    if (n < 2) {
        look_at_frames();
        co_return n;
    }
    tg::token<int> a = tg::as_token(fork_admitted(n - 1)), b = tg::as_token(fork_admitted(n - 2));
    a.admit();
    b.admit();
    const int first = co_await a;
    const int second = co_await b;
    co_return first + second;
}

const tg::operation leads{
    {.name = "group_test_leads", .weight = tg::weight::heavy},
    tg::lead{"group_test_forks", "group_test_fans"},
    [](tg::task<int> (*tree)(int), int n) -> tg::task<int> { co_return co_await tree(n); }};
const tg::operation free_root{
    {.name = "group_test_root", .weight = tg::weight::heavy},
    [](tg::task<int> (*tree)(int), int n) -> tg::task<int> { co_return co_await tree(n); }};

tg::task<int> result_of(tg::token<int> work) { co_return co_await work; }

// ---- children of one group

std::vector<std::string> order;  // of one core's tokens

const tg::operation notes{{.name = "group_test_notes"},
                          [](std::string what) { order.push_back(std::move(what)); }};
const tg::operation suspends{{.name = "group_test_suspends"},
                             [](std::string what, manual_event* go) -> tg::task<> {
                                 order.push_back(what);
                                 co_await *go;
                                 order.push_back(what + " again");
                             }};
const tg::operation sets{{.name = "group_test_sets"}, [](std::string what, manual_event* go) {
                             order.push_back(std::move(what));
                             go->set();
                         }};
const tg::operation fails{{.name = "group_test_fails"},
                          [](std::string what) { throw std::runtime_error(what); }};
const tg::operation fails_late{{.name = "group_test_fails_late"},
                               [](std::string what, manual_event* go) -> tg::task<> {
                                   co_await *go;
                                   throw std::runtime_error(what);
                               }};

template <class Body>
void in_chain(tg::runtime& runtime, Body body) {
    const tg::operation lead{{.name = "group_test_chain", .weight = tg::weight::heavy},
                             tg::lead{"group_test_notes"},
                             [&body]() -> tg::task<> { co_await body(); }};
    runtime.run([&]() -> tg::task<> { co_await lead(); });
}

int nested_leaves = 0;
tg::task<int> nest(int levels);
const tg::operation nests{{.name = "group_test_nests"}, nest};
tg::task<int> nest(int levels) {
    if (levels == 0) co_return 0;
    const auto [below, leaf] = co_await tg::when_all(nests(levels - 1), nests(0));
    nested_leaves += leaf == 0;
    co_return below + 1;
}

std::atomic<int> begun{0};
std::atomic<bool> flag{false};

}  // namespace

TEST_SUITE("group") {
    TEST_CASE("a tree of groups keeps no more frames than its depth and width ask for") {
        constexpr int n = 23, result = 28'657, levels = 5;
        // Each turn begins with one that has waited: the slower the machine, the more turns. All at once would be 90,000.
        constexpr bool slow = tg::test::under_asan || tg::test::under_tsan;
        constexpr int most = slow ? 45'000 : 4'000, most_admitted = slow ? 45'000 : 16'000;
        for (const bool watched : {false, true}) {
            CAPTURE(watched);
            tg::runtime runtime{{.cores = 1, .metrics = watched}};
            const auto peak = [&](auto work, int expected) {
                leaves = 0;
                most_frames = 0;
                CHECK(runtime.run(result_of(std::move(work))) == expected);
                return most_frames.load();
            };
            CHECK(peak(leads(fork, n), result) < most);
            CHECK(peak(leads(fan, levels), 100'000) < most);
            CHECK(peak(free_root(fork, n), result) < most);
            CHECK(peak(free_root(fan, levels), 100'000) < most);
            CHECK(peak(free_root(fork_tasks, n), result) < most);
            CHECK(peak(free_root(fork_admitted, n), result) < most_admitted);
            CHECK(peak(leads(fork_admitted, n), result) < most_admitted);
            check_settled(runtime);
        }
    }

    TEST_CASE("the same tree on several cores sums up alike, and keeps few frames") {
        tg::runtime runtime{{.cores = 3}};
        for (int round = 0; round < 5; ++round) {
            leaves = 0;
            CHECK(runtime.run(result_of(free_root(fork, 21))) == 10'946);
            CHECK(leaves == 17'711);
        }
        check_settled(runtime);
    }

    TEST_CASE(
        "children start in the order given, each goes as far as it can, and the rest follows") {
        order.clear();
        tg::runtime runtime{{.cores = 1}};
        in_chain(runtime, []() -> tg::task<> {
            manual_event go;
            co_await tg::when_all(notes("a"), suspends("b", &go), notes("c"), suspends("d", &go),
                                  sets("e", &go));
            order.push_back("all");
        });
        CHECK(order ==
              std::vector<std::string>{"a", "b", "c", "d", "e", "b again", "d again", "all"});
        check_settled(runtime);
    }

    TEST_CASE("a group that ends in place has not let the loop have a turn") {
        order.clear();
        tg::runtime runtime{{.cores = 1}};
        in_chain(runtime, []() -> tg::task<> {
            notes("behind").admit();
            co_await tg::when_all(notes("a"), notes("b"));
            std::vector<tg::token<>> three;
            for (const char* each : {"c", "d", "e"}) three.push_back(notes(each));
            co_await tg::when_all(std::move(three));
            order.push_back("all");
        });
        CHECK(order == std::vector<std::string>{"a", "b", "c", "d", "e", "all", "behind"});
        check_settled(runtime);
    }

    TEST_CASE("a failure in place, and one of a child that had suspended") {
        order.clear();
        tg::runtime runtime{{.cores = 1, .on_failure = [](const tg::failure& heard) {
                                 try {
                                     std::rethrow_exception(heard.error);
                                 } catch (const std::runtime_error& error) {
                                     order.push_back(std::string("reported ") + error.what());
                                 }
                             }}};
        in_chain(runtime, []() -> tg::task<> {
            manual_event go;
            std::string thrown;
            try {
                co_await tg::when_all(notes("a"), fails_late("late", &go), fails("early"),
                                      sets("b", &go));
            } catch (const std::runtime_error& error) {
                thrown = error.what();
            }
            order.push_back(thrown);
            try {
                co_await tg::when_all(fails("first"), fails("second"));
            } catch (const std::runtime_error& error) {
                thrown = error.what();
            }
            order.push_back(thrown);
        });
        CHECK(order == std::vector<std::string>{"a", "b", "reported early", "late",
                                                "reported second", "first"});
        check_settled(runtime);
    }

    TEST_CASE("groups 10,000 deep use no more stack than there is") {
        tg::runtime runtime{{.cores = 1}};
        constexpr int levels = 10'000;
        nested_leaves = 0;
        in_chain(runtime, []() -> tg::task<> {
            const int depth = co_await nest(10'000);
            CHECK(depth == 10'000);
        });
        CHECK(nested_leaves == levels);
        CHECK(runtime.run(nest(1'000)) == 1'000);
        check_settled(runtime);
    }

    TEST_CASE(
        "more children than run in place between two turns: the loop has its turn, in between") {
        order.clear();
        tg::runtime runtime{{.cores = 1}};
        int ended_when_it_ran = -1;
        int ended = 0;
        const tg::operation counts{{.name = "group_test_counts"}, [&ended] { ++ended; }};
        const tg::operation looks{{.name = "group_test_looks"}, [&] { ended_when_it_ran = ended; }};
        in_chain(runtime, [&]() -> tg::task<> {
            looks().admit();
            std::vector<tg::token<>> many;
            for (int i = 0; i < 100'000; ++i) many.push_back(counts());
            co_await tg::when_all(std::move(many));
            CHECK(ended == 100'000);
        });
        CHECK(ended_when_it_ran > 0);
        CHECK(ended_when_it_ran < 100'000);
        check_settled(runtime);
    }

    TEST_CASE(
        "a token that awaits groups without end starves neither what waits to start nor the mail") {
        tg::runtime runtime{{.cores = 1}};
        flag = false;
        leaves = 0;
        const tg::operation raises{{.name = "group_test_raises", .weight = tg::weight::heavy},
                                   [] { flag = true; }};
        const tg::operation busy{{.name = "group_test_busy", .weight = tg::weight::heavy},
                                 tg::lead{"group_test_forks"},
                                 []() -> tg::task<> {
                                     while (!flag) co_await fork(8);
                                 }};
        SUBCASE("routed from another loop") {
            runtime.run([&]() -> tg::task<> { co_await tg::when_all(busy(), raises()); });
        }
        SUBCASE("submitted") {
            runtime.start();
            auto ends = runtime.submit(busy());
            wait_until([&] { return leaves > 0; });
            auto raised = runtime.submit(raises());
            ends.get();
            raised.get();
            runtime.stop(10s);
        }
        CHECK(flag);
        check_settled(runtime);
    }

    TEST_CASE("nor does work that makes work without end, each before what waited") {
        tg::runtime runtime{{.cores = 1}};
        flag = false;
        struct endless {
            static tg::task<> go() {
                if (flag) co_return;
                for (int i = 0; i < 2; ++i)
                    if (begun.fetch_add(1) < 1'000 || i == 0) tg::as_token(go()).admit();
                co_return;
            }
        };
        begun = 0;
        const tg::operation raises{{.name = "group_test_raises", .weight = tg::weight::heavy},
                                   [] { flag = true; }};
        const tg::operation root{{.name = "group_test_endless", .weight = tg::weight::heavy},
                                 []() -> tg::task<> { co_await endless::go(); }};
        runtime.run([&]() -> tg::task<> { co_await tg::when_all(root(), raises()); });
        CHECK(flag);
        check_settled(runtime);
    }

    TEST_CASE("where another core of the range has nothing to do, the oldest that wait go there") {
        tg::runtime runtime{{.cores = 2}};
        std::atomic<int> elsewhere{0};
        const tg::operation meets{{.name = "group_test_meets", .weight = tg::weight::heavy},
                                  [&](unsigned home) {
                                      ++begun;
                                      elsewhere += tg::this_token::executor() != home;
                                      // Not for ever: the core that looked idle may have had something to do after all.
                                      for (int i = 0; i < 100'000 && begun < 2; ++i)
                                          std::this_thread::yield();
                                  }};
        const tg::operation parent{
            {.name = "group_test_parent", .weight = tg::weight::heavy}, [&]() -> tg::task<> {
                tg::detail::core_context& core = *tg::detail::this_core;
                const unsigned here = tg::this_token::executor();
                for (int met = 0; met < 20;) {
                    wait_until([&] { return core.runtime->at_gate.find_parked(0, 2) != 2; });
                    begun = 0;
                    elsewhere = 0;
                    tg::token<> first = meets(here), second = meets(here);
                    const auto index =
                        tg::detail::token_access::record(first).operation.load()->index;
                    core.operations[index] = {
                        .longest_ns = 1, .until_measured = 31, .is_short = true};
                    co_await tg::when_all(std::move(first), std::move(second));
                    CHECK(begun == 2);
                    met += elsewhere == 1;
                }
            }};
        runtime.run([&]() -> tg::task<> { co_await parent(); });
        check_settled(runtime);
    }

    TEST_CASE("and what is not known to be short waits for nobody") {
        tg::runtime runtime{{.cores = 2}};
        int met = 0;
        std::atomic<int> found{0};
        const tg::operation meets{{.name = "group_test_meets_new", .weight = tg::weight::heavy},
                                  [&] {
                                      ++begun;
                                      for (int i = 0; i < 100'000 && begun < 2; ++i)
                                          std::this_thread::yield();
                                      found += begun == 2;
                                  }};
        const tg::operation parent{
            {.name = "group_test_parent_new", .weight = tg::weight::heavy}, [&]() -> tg::task<> {
                tg::token<> first = meets(), second = meets();
                const auto index = tg::detail::token_access::record(first).operation.load()->index;
                tg::detail::this_core->operations[index] = {};  // nothing is known
                co_await tg::when_all(std::move(first), std::move(second));
            }};
        for (int round = 0; round < 20 || met == 0; ++round) {
            begun = found = 0;
            runtime.run([&]() -> tg::task<> { co_await parent(); });
            CHECK(begun == 2);
            met += found == 2;
        }
        check_settled(runtime);
    }

    TEST_CASE(
        "a stop of the awaiter while a child runs in place: that one hears of it, and the next "
        "never starts") {
        tg::runtime runtime{{.cores = 2}};
        begun = 0;
        std::atomic<bool> started_after{false};
        const tg::operation hears{{.name = "group_test_hears", .weight = tg::weight::heavy}, [&] {
                                      ++begun;
                                      wait_until([] { return tg::this_token::stop_requested(); });
                                  }};
        const tg::operation never{{.name = "group_test_never", .weight = tg::weight::heavy},
                                  [&] { started_after = true; }};
        const tg::operation sleeps{{.name = "group_test_sleeps", .weight = tg::weight::heavy},
                                   []() -> tg::task<> { co_await tg::sleep_for(1h); }};
        const tg::operation parent{
            {.name = "group_test_stopped", .weight = tg::weight::heavy},
            tg::lead{"group_test_hears"},
            [&]() -> tg::task<> { co_await tg::when_all(sleeps(), hears(), never()); }};
        bool stopped = false;
        runtime.run([&]() -> tg::task<> {
            tg::token<> token = parent();
            token.admit();
            co_await until([] { return begun == 1; });
            token.request_stop();
            try {
                co_await token;
            } catch (const tg::token_stopped&) {
                stopped = true;
            }
        });
        CHECK(stopped);
        CHECK(!started_after);
        check_settled(runtime);
    }

    TEST_CASE(
        "killed or stopped while the rest of a group waits for its turn: what has not begun does "
        "not begin") {
        tg::runtime runtime{{.cores = 1, .on_failure = [](const tg::failure&) {}}};
        begun = 0;
        flag = false;
        const tg::operation child{{.name = "group_test_child"}, [] {
                                      if (++begun == 1) {
                                          flag = true;
                                          wait_until([] { return !flag; });
                                      }
                                  }};
        const tg::operation parent{{.name = "group_test_many", .weight = tg::weight::heavy},
                                   tg::lead{"group_test_child"},
                                   [&]() -> tg::task<> {
                                       std::vector<tg::token<>> many;
                                       for (int i = 0; i < 10'000; ++i) many.push_back(child());
                                       co_await tg::when_all(std::move(many));
                                   }};
        runtime.start();
        auto ends = runtime.submit(parent());
        wait_until([] { return flag.load(); });
        std::thread let_go;
        SUBCASE("killed") {
            static_cast<void>(runtime.gate().kill("group_test_child", "as asked"));
            flag = false;
            CHECK_THROWS_AS(ends.get(), tg::token_killed);
            CHECK(begun < 10'000);
        }
        SUBCASE("stopped with all others") {
            let_go = std::thread([] { flag = false; });
            static_cast<void>(runtime.stop(10s, 0s));
            try {
                ends.get();
            } catch (const tg::error&) {}
            let_go.join();
        }
        runtime.stop(10s);
        check_settled(runtime);
    }

    TEST_CASE("operations on hold are held, whoever groups them") {
        tg::runtime runtime{{.cores = 1}};
        begun = 0;
        const tg::operation child{{.name = "group_test_held", .weight = tg::weight::heavy},
                                  [] { ++begun; }};
        const tg::operation parent{{.name = "group_test_holds", .weight = tg::weight::heavy},
                                   [&]() -> tg::task<> {
                                       for (int i = 0; i < 100; ++i) co_await child();
                                       begun = 0;
                                       flag = true;
                                       co_await until([] { return !flag; });
                                       co_await tg::when_all(child(), child(), child());
                                   }};
        flag = false;
        runtime.start();
        auto ends = runtime.submit(parent());
        wait_until([] { return flag.load(); });
        runtime.gate().pause("group_test_held");
        flag = false;
        wait_until([&] { return runtime.snapshot().held == 3; });
        CHECK(begun == 0);
        runtime.gate().resume("group_test_held");
        ends.get();
        CHECK(begun == 3);
        runtime.stop(10s);
        check_settled(runtime);
    }

    TEST_CASE(
        "so they are where a sibling in place has just said so, and where they are awaited one by "
        "one") {
        tg::runtime runtime{{.cores = 1}};
        std::atomic<bool> pauses{false};
        begun = 0;
        const tg::operation child{{.name = "group_test_held_now", .weight = tg::weight::heavy},
                                  [] { ++begun; }};
        const tg::operation elder{{.name = "group_test_elder", .weight = tg::weight::heavy}, [&] {
                                      if (!pauses) return;
                                      runtime.gate().pause("group_test_held_now");
                                      flag = true;
                                  }};
        const tg::operation parent{{.name = "group_test_family", .weight = tg::weight::heavy},
                                   [&]() -> tg::task<> {
                                       for (int i = 0; i < 100; ++i)
                                           co_await tg::when_all(elder(), child());
                                       begun = 0;
                                       pauses = true;
                                       co_await tg::when_all(elder(), child(), child());
                                       co_await elder();
                                       co_await child();
                                   }};
        flag = false;
        runtime.start();
        auto ends = runtime.submit(parent());
        for (const std::size_t held : {2, 1}) {
            wait_until([] { return flag.load(); });
            const int before = begun;
            wait_until([&] { return begun != before || runtime.snapshot().held == held; });
            CHECK(begun == before);
            flag = false;
            runtime.gate().resume("group_test_held_now");
        }
        ends.get();
        CHECK(begun == 3);
        runtime.stop(10s);
        check_settled(runtime);
    }

    TEST_CASE(
        "an operation of which nothing is known is measured where its awaiter's core runs it at "
        "once") {
        tg::runtime runtime{{.cores = 1}};
        std::chrono::microseconds runs{0};
        bool suspends = false;
        const tg::operation child{{.name = "group_test_measured", .weight = tg::weight::heavy},
                                  [&]() -> tg::task<int> {
                                      const auto end = std::chrono::steady_clock::now() + runs;
                                      while (std::chrono::steady_clock::now() < end) {}
                                      if (suspends) co_await tg::yield();
                                      co_return 1;
                                  }};
        const tg::operation parent{
            {.name = "group_test_measures", .weight = tg::weight::heavy}, [&]() -> tg::task<> {
                tg::detail::core_context& core = *tg::detail::this_core;
                for (suspends = false;; suspends = true) {
                    tg::token<int> first = child();
                    const auto& record = tg::detail::token_access::record(first);
                    tg::detail::operation_counters& known =
                        core.operations[record.operation.load()->index];
                    known = {};
                    runs = 100us;  // longer than what counts as short
                    const auto in_place = core.counts.in_place.load();
                    const int one = co_await first;
                    CHECK(one == 1);
                    CHECK(core.counts.in_place.load() == in_place + 1);
                    CHECK(known.longest_ns >= 100'000);
                    CHECK_FALSE(known.is_short);
                    known = {};
                    runs = 0us;
                    // A machine may take the CPU away in any one of them.
                    for (int i = 0; i < 1000 && !known.is_short; ++i) {
                        const int each = co_await child();
                        CHECK(each == 1);
                    }
                    CHECK(known.is_short);
                    if (suspends) break;
                }
            }};
        runtime.run([&]() -> tg::task<> { co_await parent(); });
        check_settled(runtime);
    }

    TEST_CASE("a storage permit is given up while its token's group runs") {
        tg::runtime_options options{.cores = 2};
        options.storage.slow = 1;
        tg::runtime runtime{std::move(options)};
        const tg::operation child{{.name = "group_test_stores", .storage = tg::storage::slow},
                                  [] { return 1; }};
        const tg::operation plain{{.name = "group_test_plain"}, [](int n) { return n; }};
        const tg::operation parent{
            {.name = "group_test_store", .storage = tg::storage::slow}, [&]() -> tg::task<int> {
                const auto [a, b, c] = co_await tg::when_all(child(), plain(2), child());
                co_return a + b + c;
            }};
        runtime.run([&]() -> tg::task<> {
            for (int i = 0; i < 50; ++i) {
                const int sum = co_await parent();
                CHECK(sum == 4);
            }
        });
        check_settled(runtime);
    }

    TEST_CASE("leads in place open domains of their own") {
        tg::runtime runtime{{.cores = 1}};
        const tg::operation lead{
            {.name = "group_test_inner", .weight = tg::weight::heavy},
            tg::lead{"x"},
            []() -> tg::task<std::string> { co_return std::string(tg::this_token::seed()); }};
        const tg::operation parent{
            {.name = "group_test_outer", .weight = tg::weight::heavy}, [&]() -> tg::task<> {
                for (int i = 0; i < 100; ++i) {
                    const auto [a, b] = co_await tg::when_all(lead(), lead());
                    const std::string c = co_await lead();
                    CHECK(a.size() == c.size());
                    CHECK(a != b);
                    CHECK(b != c);
                }
            }};
        runtime.run([&]() -> tg::task<> { co_await parent(); });
        check_settled(runtime);
    }

    TEST_CASE("watched or not, every child is counted once") {
        std::vector<std::uint64_t> counted;
        for (const bool watched : {false, true}) {
            tg::runtime_options options{.cores = 1, .metrics = watched};
            if (watched) options.trace_events = 4096;
            tg::runtime runtime{std::move(options)};
            CHECK(runtime.run(result_of(leads(fork, 15))) == 610);
            CHECK(runtime.run(result_of(free_root(fork, 15))) == 610);
            counted.push_back(runtime.snapshot().ended);
            check_settled(runtime);
        }
        CHECK(counted[0] == counted[1]);
        CHECK(counted[0] >= 2 * 1973);
        CHECK(counted[0] <= 2 * 1973 + 2);
    }
}
