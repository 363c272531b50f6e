// SPDX-License-Identifier: MIT
#include "support/settled.hpp"
#include "support/waiting.hpp"

#include <tokengate/tokengate.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <cstdint>
#include <future>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace tg = tokengate;
using namespace std::chrono_literals;
using tg::test::check_settled;
using tg::test::until;

namespace {

const tg::operation returns{{.name = "backlog_test_returns"}, [](int n) { return n; }};
const tg::operation child{{.name = "backlog_test_child"}, [](int n) { return n; }};
const tg::operation lead{
    {.name = "backlog_test_lead"}, tg::lead{"backlog_test_child"}, []() -> tg::task<int> {
        int sum = 0;
        for (int i = 0; i < 10; ++i) sum += co_await child(i);
        co_return sum;
    }};

const tg::operation slow_child{{.name = "backlog_test_slow_child", .storage = tg::storage::slow},
                               [] { return 7; }};
const tg::operation slow_lead{{.name = "backlog_test_slow_lead"},
                              tg::lead{"backlog_test_slow_child"},
                              []() -> tg::task<int> { co_return co_await slow_child(); }};

}  // namespace

TEST_SUITE("backlog") {
    struct fixture {
        std::atomic<bool> go{false};
        std::atomic<int> started{0}, refused{0}, done{0};
    };
    fixture* at = nullptr;

    const tg::operation holds{{.name = "backlog_test_holds", .storage = tg::storage::slow},
                              []() -> tg::task<int> {
                                  const int number = at->started++;
                                  while (!at->go) co_await tg::sleep_for(100us);
                                  co_return number;
                              }};

    tg::task<std::string> outcome(tg::token<int> token) {
        try {
            co_await std::move(token);
        } catch (const tg::admission_rejected& rejected) {
            ++at->refused;
            co_return rejected.what();
        }
        ++at->done;
        co_return "done";
    }

    tg::task<bool> was_let_in(tg::token<int> token) {
        try {
            co_await std::move(token);
        } catch (const tg::admission_rejected&) {
            co_return false;
        }
        co_return true;
    }

    bool has_ended(const tg::token<int>& token) {
        return tg::detail::token_access::record(token).state.load() >= tg::token_state::completed;
    }

    std::vector<tg::token<std::string>> outcomes(int count) {
        std::vector<tg::token<std::string>> all;
        for (int i = 0; i < count; ++i) {
            all.push_back(tg::as_token(outcome(holds())));
            all.back().admit();
        }
        return all;
    }

    TEST_CASE("reject: what would be one too many is refused, and told why") {
        fixture here;
        at = &here;
        tg::runtime runtime{{.cores = 2,
                             .storage = {.slow = 1},
                             .backlog = {.limit = 5, .policy = tg::backlog_policy::reject}}};
        runtime.run([&]() -> tg::task<> {
            std::vector<tg::token<std::string>> all = outcomes(20);
            co_await until([&] {
                return here.refused == 14 && here.started == 1;
            });  // one runs, five wait
            CHECK(runtime.snapshot().waiting_for_permit == 5);
            here.go = true;
            for (const std::string& text : co_await tg::when_all(std::move(all))) {
                if (text == "done") continue;
                CHECK(text.find("admission_rejected: backlog_test_holds_") == 0);
                CHECK(text.find("5 tokens wait") != text.npos);
            }
        });
        CHECK(here.refused == 14);
        CHECK(here.done == 6);
        check_settled(runtime);
    }

    TEST_CASE("shed_oldest: who has waited longest makes room") {
        fixture here;
        at = &here;
        tg::runtime runtime{{.cores = 2,
                             .storage = {.slow = 1},
                             .backlog = {.limit = 5, .policy = tg::backlog_policy::shed_oldest}}};
        runtime.run([&]() -> tg::task<> {
            std::vector<tg::token<std::string>> all = outcomes(20);
            co_await until([&] { return here.refused == 14; });
            here.go = true;
            int at_number = 0;
            for (const std::string& text : co_await tg::when_all(std::move(all))) {
                // The first runs, the next 14 have been shed, the last five had the places.
                CHECK((text == "done") == (at_number == 0 || at_number >= 15));
                if (text != "done") CHECK(text.find("had waited longest") != text.npos);
                ++at_number;
            }
        });
        CHECK(here.done == 6);
        check_settled(runtime);
    }

    TEST_CASE("what waits for room on a core, or is held, counts too; a chain's children do not") {
        fixture here;
        at = &here;
        here.go = true;
        tg::test::blockade block;
        const tg::operation blocks{{.name = "backlog_test_blocks", .weight = tg::weight::heavy},
                                   [](tg::test::blockade* in) { in->wait(); }};
        tg::runtime runtime{
            {.cores = 1, .backlog = {.limit = 3, .policy = tg::backlog_policy::reject}}};
        runtime.run([&]() -> tg::task<> {
            runtime.gate().pause("backlog_test_returns");
            std::vector<tg::token<int>> held;
            for (int i = 0; i < 4; ++i) {
                held.push_back(returns(i));
                held.back().admit();
            }
            CHECK(runtime.snapshot().held == 3);
            std::string text;
            try {
                co_await std::move(held.back());
            } catch (const tg::admission_rejected& rejected) {
                text = rejected.what();
            }
            CHECK(text.find("admission_rejected") == 0);
            held.pop_back();
            runtime.gate().pause("backlog_test_child");
            const int sum = co_await lead();  // its children pass, past the pause and the limit
            CHECK(sum == 45);
            runtime.gate().resume();
            const std::vector<int> results = co_await tg::when_all(std::move(held));
            CHECK(results.size() == 3);

            tg::token<void> blocked = blocks(&block);
            blocked.admit();
            co_await until([&] { return block.blocking == 1; });
            // More than the core's window: three wait for room, the rest is refused.
            std::vector<tg::token<bool>> many;
            for (int i = 0; i < 5000; ++i) {
                many.push_back(tg::as_token(was_let_in(returns(i))));
                many.back().admit();
            }
            co_await until([&] { return runtime.snapshot().waiting == 3; });
            block.end();
            co_await blocked;
            int let_in = 0;
            for (const bool each : co_await tg::when_all(std::move(many))) let_in += each;
            CHECK(let_in >= 3);
            CHECK(let_in < 5000);
        });
        check_settled(runtime);
    }

    TEST_CASE("reject: a chain's child that has to wait at a full gate is not refused") {
        fixture here;
        at = &here;
        tg::runtime runtime{{.cores = 2,
                             .storage = {.slow = 1},
                             .backlog = {.limit = 2, .policy = tg::backlog_policy::reject}}};
        runtime.run([&]() -> tg::task<> {
            std::vector<tg::token<std::string>> all = outcomes(3);
            co_await until([&] {
                return here.started == 1 && runtime.snapshot().waiting_for_permit == 2;
            });
            tg::token<int> chain = slow_lead();
            chain.admit();
            co_await until([&] {
                return runtime.snapshot().waiting_for_permit == 3 || has_ended(chain);
            });
            CHECK_FALSE(has_ended(chain));
            std::vector<tg::token<std::string>> late = outcomes(1);
            co_await until([&] { return here.refused == 1; });  // the gate is full indeed
            CHECK(runtime.snapshot().waiting_for_permit == 3);
            here.go = true;
            const int result = co_await std::move(chain);
            CHECK(result == 7);
            for (const std::string& text : co_await tg::when_all(std::move(all)))
                CHECK(text == "done");
            const std::string refusal = co_await std::move(late.front());
            CHECK(refusal.starts_with("admission_rejected: backlog_test_holds_"));
        });
        CHECK(here.refused == 1);
        check_settled(runtime);
    }

    TEST_CASE("shed_oldest: a chain's child that has waited longest makes no room for newcomers") {
        fixture here;
        at = &here;
        tg::runtime runtime{{.cores = 2,
                             .storage = {.slow = 1},
                             .backlog = {.limit = 2, .policy = tg::backlog_policy::shed_oldest}}};
        runtime.run([&]() -> tg::task<> {
            std::vector<tg::token<std::string>> first = outcomes(1);
            co_await until([&] { return here.started == 1; });
            tg::token<int> chain = slow_lead();
            chain.admit();
            co_await until([&] {
                return runtime.snapshot().waiting_for_permit == 1;
            });  // before all others
            std::vector<tg::token<std::string>> newer = outcomes(2);
            co_await until([&] {
                return runtime.snapshot().waiting_for_permit == 3 || here.refused != 0;
            });
            CHECK(here.refused == 0);
            std::vector<tg::token<std::string>> newest = outcomes(1);
            co_await until([&] { return here.refused == 1; });
            CHECK(runtime.snapshot().waiting_for_permit == 3);
            here.go = true;
            const int result = co_await std::move(chain);
            CHECK(result == 7);
            const std::string shed = co_await std::move(newer[0]);
            CHECK(shed.starts_with("admission_rejected: backlog_test_holds_"));
            for (tg::token<std::string>* each : {&first[0], &newer[1], &newest[0]}) {
                const std::string text = co_await std::move(*each);
                CHECK(text == "done");
            }
        });
        CHECK(here.refused == 1);
        check_settled(runtime);
    }

    TEST_CASE("wait: a submit blocks, a scope's spawn suspends, until there is room; all run") {
        fixture here;
        at = &here;
        tg::runtime runtime{{.cores = 2, .storage = {.slow = 1}, .backlog = {.limit = 4}}};
        runtime.start();
        std::atomic<int> submitted{0};
        std::vector<std::future<int>> done;
        std::thread submitter([&] {
            for (int i = 0; i < 20; ++i) {
                done.push_back(runtime.submit(holds()));
                ++submitted;
            }
        });
        tg::test::wait_until([&] {
            return submitted == 5;
        });  // one runs, four wait; the sixth is waited for
        tg::test::wait_until([&] {
            return here.started == 1 && runtime.snapshot().waiting_for_permit == 4;
        });
        CHECK(submitted == 5);
        here.go = true;
        submitter.join();
        for (std::future<int>& each : done) each.get();
        CHECK(here.started == 20);

        here.go = false;
        here.started = 0;
        std::atomic<int> spawned{0};
        static std::atomic<int>* count;
        count = &spawned;
        static const tg::operation spawns{{.name = "backlog_test_spawns"}, []() -> tg::task<> {
                                              const auto body = [](tg::scope& jobs) -> tg::task<> {
                                                  for (int i = 0; i < 20; ++i) {
                                                      co_await jobs.spawn(holds());
                                                      ++*count;
                                                  }
                                              };
                                              co_await tg::with_scope(body);
                                          }};
        std::future<void> all = runtime.submit(spawns());
        tg::test::wait_until([&] {
            return here.started == 1 && runtime.snapshot().waiting_for_permit == 4;
        });
        CHECK(spawned == 5);
        here.go = true;
        all.get();
        CHECK(here.started == 20);
        CHECK(runtime.stop(10s).complete());
        check_settled(runtime);
    }

    TEST_CASE("calls with a time limit keep no place, under any policy") {
        static std::atomic<int> limited_ran;
        limited_ran = 0;
        static const tg::operation timed{{.name = "backlog_test_timed", .timeout = 1h},
                                         [] { ++limited_ran; }};
        for (const tg::backlog_policy policy :
             {tg::backlog_policy::wait, tg::backlog_policy::reject,
              tg::backlog_policy::shed_oldest}) {
            tg::runtime runtime{{.cores = 1, .backlog = {.limit = 2, .policy = policy}}};
            runtime.start();
            for (int i = 0; i < 20; ++i) runtime.submit(timed()).get();
            CHECK(runtime.stop(10s).complete());
            check_settled(runtime);
        }
        CHECK(limited_ran == 60);
    }

    TEST_CASE("wait: a spawn that waits for room may have a time limit") {
        tg::runtime runtime{{.cores = 2, .backlog = {.limit = 1}}};
        runtime.run([&]() -> tg::task<> {
            runtime.gate().pause("backlog_test_returns");
            tg::token<int> held = returns(1);
            held.admit();
            co_await until([&] { return runtime.snapshot().held == 1; });
            bool timed_out = false;
            co_await tg::with_scope([&](tg::scope& jobs) -> tg::task<> {
                const std::uint64_t before = runtime.snapshot().admitted;
                try {
                    co_await tg::with_timeout(jobs.spawn(returns(2)), 1ms);
                } catch (const tg::token_timeout&) {
                    timed_out = true;
                }
                CHECK(runtime.snapshot().admitted == before);
                CHECK(jobs.size() == 0);
            });
            CHECK(timed_out);
            runtime.gate().resume();
            co_await held;
        });
        check_settled(runtime);
    }

    TEST_CASE("wait: who had to wait for room in its scope waits for room at the gate, too") {
        tg::runtime runtime{{.cores = 2, .backlog = {.limit = 1}}};
        std::atomic<bool> go{false}, spawned{false};
        runtime.run([&]() -> tg::task<> {
            runtime.gate().pause("backlog_test_returns");
            const auto stay = [&]() -> tg::task<> { co_await until([&] { return go.load(); }); };
            co_await tg::with_scope({.limit = 1}, [&](tg::scope& jobs) -> tg::task<> {
                co_await jobs.spawn(stay());
                tg::token<int> held = returns(1);
                held.admit();
                co_await until([&] { return runtime.snapshot().held == 1; });
                const auto frees = [&]() -> tg::task<> {
                    go = true;
                    co_await until([&] { return jobs.size() == 1; });
                    for (int i = 0; i < 100; ++i) co_await tg::yield();
                    CHECK_FALSE(spawned);  // its scope has had room since `stay` ended
                    runtime.gate().resume();
                };
                tg::token<> freeing = tg::as_token(frees());
                freeing.admit();
                co_await jobs.spawn(returns(2));
                spawned = true;
                co_await held;
                co_await freeing;
            });
        });
        CHECK(spawned);
        check_settled(runtime);
    }

    TEST_CASE("wait: who waits for room hears of a stop") {
        fixture here;
        at = &here;
        tg::runtime runtime{{.cores = 1, .storage = {.slow = 1}, .backlog = {.limit = 1}}};
        runtime.start();
        std::future<int> running = runtime.submit(holds()), waits = runtime.submit(holds());
        std::atomic<bool> refused{false};
        std::thread submitter([&] {
            try {
                static_cast<void>(runtime.submit(holds()));
            } catch (const tg::gate_closed&) {
                refused = true;
            }
        });
        tg::test::wait_until([&] { return here.started == 1; });
        here.go = true;
        CHECK(runtime.stop(10s).complete());
        submitter.join();
        running.get();
        waits.get();
        CHECK((refused || here.started == 3));  // it may have got its place before the stop
        check_settled(runtime);
    }
}
