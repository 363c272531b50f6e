// SPDX-License-Identifier: MIT

#include <tokengate/scope.hpp>

#include "support/leaks.hpp"
#include "support/manual_event.hpp"
#include "support/settled.hpp"

#include <tokengate/error.hpp>
#include <tokengate/operation.hpp>
#include <tokengate/runtime.hpp>
#include <tokengate/stop.hpp>
#include <tokengate/task_token.hpp>
#include <tokengate/this_token.hpp>
#include <tokengate/time.hpp>
#include <tokengate/when_all.hpp>

#include <doctest/doctest.h>

#include <malloc.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace tg = tokengate;
using namespace std::chrono_literals;
using tg::test::check_settled;
using tg::test::counted;
using tg::test::live_slots;
using tg::test::manual_event;

namespace {

std::atomic<int> started{0}, ended{0}, stopped{0};

const tg::operation notes{{.name = "scope_test_notes"}, [](int) { ++ended; }};
const tg::operation fails{{.name = "scope_test_fails"},
                          [](counted) { throw std::out_of_range("child"); }};
tg::task<> wait_for_stop() {
    ++started;
    try {
        co_await tg::sleep_for(1h);
    } catch (const tg::token_stopped&) {
        ++stopped;
        throw;
    }
}
const tg::operation waits{{.name = "scope_test_waits"}, wait_for_stop};
const tg::operation sleeps{{.name = "scope_test_sleeps"},
                           [](std::chrono::nanoseconds how_long) -> tg::task<> {
                               ++started;
                               co_await tg::sleep_for(how_long);
                               ++ended;
                           }};
const tg::operation keeps{{.name = "scope_test_keeps"}, [](counted kept) { return kept; }};
const tg::operation lead{
    {.name = "scope_test_lead"}, tg::lead{"scope_test_notes"}, []() -> tg::task<int> {
        const auto body = [](tg::scope& jobs) -> tg::task<int> {
            for (int i = 0; i < 10; ++i) co_await jobs.spawn(notes(i));
            co_return 10;
        };
        co_return co_await tg::with_scope(body);
    }};

void reset() { started = ended = stopped = 0; }

struct no_leak {
    std::size_t before = live_slots();
    ~no_leak() { CHECK(live_slots() == before); }
};

}  // namespace

TEST_SUITE("scope") {
    TEST_CASE("waits for all that it spawned, and gives the body's result") {
        const no_leak check;
        tg::runtime runtime{{.cores = 3}};
        runtime.run([]() -> tg::task<> {
            reset();
            const auto body = [](tg::scope& jobs) -> tg::task<std::unique_ptr<int>> {
                for (int i = 0; i < 1000; ++i) co_await jobs.spawn(notes(i));
                co_await jobs.spawn(sleeps(5ms));
                CHECK(jobs.size() >= 1);
                co_return std::make_unique<int>(7);
            };
            const auto result = co_await tg::with_scope(body);
            CHECK(*result == 7);
            CHECK(ended == 1001);
            int place = 0;
            const auto refers = [&place](tg::scope&) -> tg::task<int&> { co_return place; };
            CHECK(&co_await tg::with_scope(refers) == &place);
            const auto empty = [](tg::scope&) -> tg::task<> { co_return; };
            co_await tg::with_scope(empty);
            CHECK(co_await lead() == 10);
        });
        check_settled(runtime);
    }

    TEST_CASE("the body is a token of its own, on this loop, which goes on while children wait") {
        tg::runtime runtime{{.cores = 2}};
        runtime.run([]() -> tg::task<> {
            const auto outside = tg::this_token::id();
            const unsigned here = tg::this_token::executor();
            const auto body = [&](tg::scope& jobs) -> tg::task<> {
                CHECK(tg::this_token::id().sequence != outside.sequence);
                CHECK(tg::this_token::executor() == here);
                const auto child = [&]() -> tg::task<> {
                    CHECK(tg::this_token::executor() == here);
                    co_await tg::yield();
                };
                co_await jobs.spawn(child());
                CHECK(jobs.size() == 1);
            };
            co_await tg::with_scope(body);
        });
    }

    TEST_CASE(
        "results of children are dropped and destroyed; references of a child's arguments hold") {
        counted::reset();
        const no_leak check;
        {
            tg::runtime runtime{{.cores = 2}};
            runtime.run([]() -> tg::task<> {
                const auto body = [](tg::scope& jobs) -> tg::task<> {
                    for (int i = 0; i < 100; ++i) co_await jobs.spawn(keeps(counted(i)));
                };
                co_await tg::with_scope(body);
                CHECK(counted::alive() == 0);
            });
        }
        CHECK(counted::wrongly_destroyed() == 0);
    }

    TEST_CASE(
        "the first failure stops the others and the body, and is rethrown when all have ended") {
        const no_leak check;
        std::atomic<int> failures{0};
        tg::runtime runtime{{.cores = 3, .on_failure = [&](const tg::failure&) { ++failures; }}};
        runtime.run([]() -> tg::task<> {
            for (int round = 0; round < 20; ++round) {
                reset();
                bool body_stopped = false;
                const auto body = [&](tg::scope& jobs) -> tg::task<> {
                    for (int i = 0; i < 20; ++i) co_await jobs.spawn(waits());
                    while (started < round) co_await tg::yield();
                    co_await jobs.spawn(fails(counted(1)));
                    try {
                        co_await tg::sleep_for(1h);
                    } catch (const tg::token_stopped&) {
                        body_stopped = true;
                    }
                    CHECK_THROWS_AS(co_await jobs.spawn(notes(1)), tg::token_stopped);
                };
                CHECK_THROWS_AS(co_await tg::with_scope(body), std::out_of_range);
                CHECK(body_stopped);
                CHECK(started == stopped);
                CHECK(ended == 0);
            }
        });
        CHECK(failures == 0);
        check_settled(runtime);
    }

    TEST_CASE("a body that fails stops its children; what fails later is reported") {
        const no_leak check;
        std::atomic<int> failures{0};
        tg::runtime runtime{{.cores = 2, .on_failure = [&](const tg::failure&) { ++failures; }}};
        runtime.run([]() -> tg::task<> {
            reset();
            const auto body = [](tg::scope& jobs) -> tg::task<int> {
                const auto late = []() -> tg::task<> {
                    ++started;
                    try {
                        co_await tg::sleep_for(1h);
                    } catch (const tg::token_stopped&) {
                        ++stopped;
                    }
                    throw std::runtime_error("late");
                };
                co_await jobs.spawn(waits());
                co_await jobs.spawn(late());
                while (started < 2) co_await tg::yield();
                throw std::domain_error("body");
            };
            CHECK_THROWS_AS(co_await tg::with_scope(body), std::domain_error);
            CHECK(stopped == 2);
            const auto throws_at_once = [](tg::scope&) -> tg::task<> {
                throw std::domain_error("no coroutine");
            };
            CHECK_THROWS_AS(co_await tg::with_scope(throws_at_once), std::domain_error);
        });
        CHECK(failures == 1);
        check_settled(runtime);
    }

    TEST_CASE(
        "on_failure::report: the others go on, and the handler hears; the body's failure is the "
        "scope's") {
        const no_leak check;
        std::atomic<int> failures{0};
        tg::runtime runtime{{.cores = 2, .on_failure = [&](const tg::failure&) { ++failures; }}};
        runtime.run([]() -> tg::task<> {
            reset();
            const auto body = [](tg::scope& jobs) -> tg::task<int> {
                for (int i = 0; i < 10; ++i) co_await jobs.spawn(fails(counted(i)));
                for (int i = 0; i < 10; ++i) co_await jobs.spawn(sleeps(2ms));
                co_return 1;
            };
            CHECK(co_await tg::with_scope({.on_failure = tg::on_failure::report}, body) == 1);
            CHECK(ended == 10);
            const auto failing = [](tg::scope& jobs) -> tg::task<> {
                co_await jobs.spawn(waits());
                throw std::domain_error("body");
            };
            CHECK_THROWS_AS(co_await tg::with_scope({.on_failure = tg::on_failure::report},
                                                    failing),
                            std::domain_error);
        });
        CHECK(failures == 10);
        check_settled(runtime);
    }

    TEST_CASE("the limit holds back who spawns, in turn") {
        const no_leak check;
        tg::runtime runtime{{.cores = 3}};
        for (const std::size_t limit : {std::size_t{0}, std::size_t{1}, std::size_t{3}}) {
            std::atomic<int> alive{0}, most{0};
            const auto work = [&]() -> tg::task<> {
                const int now = ++alive;
                for (int seen = most; seen < now && !most.compare_exchange_weak(seen, now);) {}
                co_await tg::sleep_for(50us);
                --alive;
            };
            const tg::operation child{{.name = "scope_test_limited"}, work};
            runtime.run([&]() -> tg::task<> {
                reset();
                std::vector<int> order;
                const auto body = [&](tg::scope& jobs) -> tg::task<> {
                    const auto spawner = [&](int who) -> tg::task<> {
                        for (int i = 0; i < 20; ++i) {
                            co_await jobs.spawn(child());
                            order.push_back(who);
                        }
                    };
                    co_await tg::when_all(tg::as_token(spawner(1)), tg::as_token(spawner(2)),
                                          tg::as_token(spawner(3)));
                    CHECK(jobs.size() <= std::max<std::size_t>(limit, 1));
                };
                co_await tg::with_scope({.limit = limit}, body);
                CHECK(order.size() == 60);
                // Fair: nobody is ever more than two rounds behind.
                int done[4] = {};
                for (const int who : order) {
                    ++done[who];
                    CHECK(*std::max_element(done + 1, done + 4) -
                              *std::min_element(done + 1, done + 4) <=
                          4);
                }
            });
            CHECK(most <= static_cast<int>(std::max<std::size_t>(limit, 1)));
            CHECK(alive == 0);
        }
        check_settled(runtime);
    }

    TEST_CASE("who waits for room holds no storage permit: those that it waits for may need one") {
        tg::runtime runtime{{.cores = 1, .storage = {.slow = 1}}};
        tg::scope* jobs = nullptr;
        const tg::operation small{{.name = "scope_test_small", .storage = tg::storage::slow},
                                  [] { ++ended; }};
        const auto spawn_two = [&]() -> tg::task<> {
            co_await jobs->spawn(small());  // needs the permit that we have
            co_await jobs->spawn(small());  // waits for room, until the first has ended
            CHECK(runtime.gate().storage_in_use(tg::storage::slow) == 1);
        };
        const tg::operation big{{.name = "scope_test_big", .storage = tg::storage::slow},
                                spawn_two};
        reset();
        runtime.run([&]() -> tg::task<> {
            const auto body = [&](tg::scope& opened) -> tg::task<> {
                jobs = &opened;
                co_await opened.spawn(big());
            };
            const auto scope = [&]() -> tg::task<> { co_await tg::with_scope({.limit = 2}, body); };
            co_await tg::as_token(scope(), 0);
        });
        CHECK(ended == 2);
        CHECK(runtime.gate().storage_in_use(tg::storage::slow) == 0);
        check_settled(runtime);
    }

    TEST_CASE("a stop ends a spawner's wait for room; the room is not lost") {
        const no_leak check;
        tg::runtime runtime{{.cores = 2}};
        runtime.run([]() -> tg::task<> {
            reset();
            const auto body = [](tg::scope& jobs) -> tg::task<> {
                co_await jobs.spawn(waits());
                const auto spawner = [&jobs]() -> tg::task<> { co_await jobs.spawn(notes(1)); };
                std::vector<tg::token<void>> waiting;
                for (int i = 0; i < 5; ++i) {
                    waiting.push_back(tg::as_token(spawner()));
                    waiting.back().admit();
                }
                co_await tg::sleep_for(1ms);
                for (const int which : {4, 0, 2}) {  // last, first, and one between
                    waiting[static_cast<std::size_t>(which)].request_stop();
                    CHECK_THROWS_AS(co_await waiting[static_cast<std::size_t>(which)],
                                    tg::token_stopped);
                }
                CHECK(ended == 0);
                jobs.request_stop();
                for (const std::size_t which : {1U, 3U}) {
                    const auto shielded = [&]() -> tg::task<> { co_await waiting[which]; };
                    CHECK_THROWS_AS(co_await tg::shield(shielded()), tg::token_stopped);
                }
            };
            co_await tg::with_scope({.limit = 1}, body);
            CHECK(started == stopped);
            CHECK(ended == 0);
        });
        check_settled(runtime);
    }

    TEST_CASE("room that is handed over and not taken goes on to the next") {
        const no_leak check;
        tg::runtime runtime{{.cores = 1}};
        runtime.run([]() -> tg::task<> {
            for (int round = 0; round < 50; ++round) {
                reset();
                const auto body = [](tg::scope& jobs) -> tg::task<> {
                    tg::token<void> second;
                    const auto first_child = [&second]() -> tg::task<> {
                        co_await tg::sleep_for(100us);
                        second.request_stop();  // its room comes with our end
                    };
                    const auto spawner = [&jobs](int n) -> tg::task<> {
                        co_await jobs.spawn(notes(n));
                    };
                    co_await jobs.spawn(first_child());
                    second = tg::as_token(spawner(2));
                    tg::token<void> third = tg::as_token(spawner(3));
                    second.admit();
                    third.admit();
                    co_await third;
                    try {
                        co_await second;
                    } catch (const tg::token_stopped&) {}
                };
                co_await tg::with_scope({.limit = 1}, body);
                CHECK(ended >= 1);
            }
        });
        check_settled(runtime);
    }

    TEST_CASE("a child may spawn; from another core it may not") {
        const no_leak check;
        counted::reset();
        tg::runtime runtime{{.cores = 2}};
        runtime.run([]() -> tg::task<> {
            reset();
            std::string text;
            const auto body = [&](tg::scope& jobs) -> tg::task<> {
                const auto child = [&jobs](auto& self, int depth) -> tg::task<> {
                    if (depth == 0) co_return;
                    co_await jobs.spawn(self(self, depth - 1));
                    co_await jobs.spawn(self(self, depth - 1));
                    co_await jobs.spawn(notes(depth));
                };
                co_await jobs.spawn(child(child, 6));
                const auto elsewhere = [&]() -> tg::task<> {
                    try {
                        co_await jobs.spawn(keeps(counted(1)));
                    } catch (const tg::wrong_thread& wrong) {
                        text = wrong.what();
                    }
                };
                const tg::operation foreign{{.name = "scope_test_foreign"}, elsewhere};
                co_await foreign();
            };
            co_await tg::with_scope(body);
            CHECK(ended == 63);
            CHECK(text.find("scope_test_keeps") != std::string::npos);
        });
        CHECK(counted::alive() == 0);
        check_settled(runtime);
    }

    TEST_CASE("a stop from outside reaches the body and every child") {
        const no_leak check;
        tg::runtime runtime{{.cores = 3}};
        runtime.run([]() -> tg::task<> {
            for (const bool body_waits : {true, false}) {
                reset();
                const auto body = [body_waits](tg::scope& jobs) -> tg::task<> {
                    for (int i = 0; i < 30; ++i) co_await jobs.spawn(waits());
                    for (int i = 0; i < 30; ++i) co_await jobs.spawn(wait_for_stop());
                    if (body_waits) co_await tg::sleep_for(1h);
                };
                const auto opens = [&]() -> tg::task<> { co_await tg::with_scope(body); };
                tg::token<void> token = tg::as_token(opens());
                token.admit();
                while (started < 60) co_await tg::yield();
                token.request_stop();
                bool thrown = false;
                try {
                    co_await token;
                } catch (const tg::token_stopped&) {
                    thrown = true;
                }
                CHECK(stopped == 60);
                CHECK(thrown);  // its children were cut short: that is no success
            }
            const auto body = [](tg::scope& jobs) -> tg::task<> { co_await jobs.spawn(waits()); };
            CHECK_THROWS_AS(co_await tg::with_timeout(tg::with_scope(body), 1ms),
                            tg::token_timeout);
        });
        check_settled(runtime);
    }

    TEST_CASE("request_stop by the body: it may still return a result") {
        tg::runtime runtime{{.cores = 2}};
        runtime.run([]() -> tg::task<> {
            reset();
            const auto body = [](tg::scope& jobs) -> tg::task<int> {
                for (int i = 0; i < 10; ++i) co_await jobs.spawn(waits());
                jobs.request_stop();
                jobs.request_stop();
                co_return 3;
            };
            CHECK(co_await tg::with_scope(body) == 3);
            CHECK(started == stopped);
        });
        check_settled(runtime);
    }

    TEST_CASE("a scope in a scope") {
        const no_leak check;
        tg::runtime runtime{{.cores = 2}};
        runtime.run([]() -> tg::task<> {
            reset();
            const auto nested = [](auto& self, int depth) -> tg::task<int> {
                const auto body = [&self, depth](tg::scope& jobs) -> tg::task<int> {
                    co_await jobs.spawn(notes(depth));
                    if (depth == 0) {
                        co_await jobs.spawn(fails(counted(1)));
                        co_await tg::sleep_for(1h);
                    }
                    co_await jobs.spawn(waits());
                    co_return 1 + co_await self(self, depth - 1);
                };
                co_return co_await tg::with_scope(body);
            };
            CHECK_THROWS_AS(co_await nested(nested, 5), std::out_of_range);
            CHECK(started == stopped);
        });
        check_settled(runtime);
    }

    TEST_CASE("a hundred thousand children in turn take no more memory than a few") {
        const no_leak check;
        tg::runtime runtime{{.cores = 2}};
        runtime.run([]() -> tg::task<> {
            reset();
            std::size_t slabs_early = 0, heap_early = 0, slabs_late = 0, heap_late = 0;
            const auto body = [&](tg::scope& jobs) -> tg::task<> {
                for (int i = 0; i < 100'000; ++i) {
                    co_await jobs.spawn(notes(i));
                    if (i == 20'000) {
                        slabs_early = tg::detail::frame_pool::statistics().mapped_bytes;
                        heap_early = ::mallinfo2().uordblks;
                    }
                }
                slabs_late = tg::detail::frame_pool::statistics().mapped_bytes;
                heap_late = ::mallinfo2().uordblks;
            };
            co_await tg::with_scope({.limit = 16}, body);
            CHECK(ended == 100'000);
            CHECK(slabs_late <= slabs_early);
            CHECK(heap_late <= heap_early + 16 * 1024);
        });
        check_settled(runtime);
    }

    TEST_CASE("handles: admitted before, empty; the scope is none the worse for it") {
        tg::runtime runtime{{.cores = 2}};
        runtime.run([]() -> tg::task<> {
            reset();
            const auto body = [](tg::scope& jobs) -> tg::task<> {
                tg::token<void> admitted = notes(1);
                admitted.admit();
                CHECK_THROWS_AS(co_await jobs.spawn(std::move(admitted)), tg::already_awaited);
                CHECK_THROWS_AS(co_await jobs.spawn(tg::token<void>()), tg::already_awaited);
                CHECK(jobs.size() == 0);
                co_await jobs.spawn(notes(2));
            };
            co_await tg::with_scope({.limit = 1}, body);
        });
        check_settled(runtime);
        CHECK(ended == 2);
    }

    TEST_CASE("who spawns from outside of it, and had to wait for room, is waited for") {
        const no_leak check;
        tg::runtime runtime{{.cores = 1}};
        runtime.run([]() -> tg::task<> {
            reset();
            tg::token<void> outsider;
            const auto body = [&](tg::scope& jobs) -> tg::task<> {
                const auto child = []() -> tg::task<> { co_await tg::sleep_for(2ms); };
                const auto spawner = [&jobs]() -> tg::task<> { co_await jobs.spawn(sleeps(2ms)); };
                co_await jobs.spawn(child());
                outsider = tg::as_token(spawner());
                outsider.admit();
                co_await tg::sleep_for(1ms);  // it waits for room by now
            };
            co_await tg::with_scope({.limit = 1}, body);
            CHECK(ended == 1);
            co_await outsider;
        });
        check_settled(runtime);
    }
}
