// SPDX-License-Identifier: MIT

// The timeout in an operation's options: every token of it keeps its own time.

#include "support/leaks.hpp"
#include "support/manual_event.hpp"
#include "support/settled.hpp"
#include "support/waiting.hpp"

#include <tokengate/error.hpp>
#include <tokengate/operation.hpp>
#include <tokengate/runtime.hpp>
#include <tokengate/scope.hpp>
#include <tokengate/stop.hpp>
#include <tokengate/this_token.hpp>
#include <tokengate/time.hpp>
#include <tokengate/when_all.hpp>
#include <tokengate/when_any.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace tg = tokengate;
using namespace std::chrono_literals;
using tg::test::check_settled;
using tg::test::counted;
using tg::test::live_slots;

namespace {

std::atomic<int> started{0};

const tg::operation late{{.name = "operation_timeout_test_late", .timeout = 2ms},
                         [](counted) -> tg::task<int> {
                             ++started;
                             co_await tg::sleep_for(1h);
                             co_return 1;
                         }};
const tg::operation sleeps{{.name = "operation_timeout_test_sleeps", .timeout = 1h},
                           [](counted) -> tg::task<int> {
                               co_await tg::sleep_for(1h);
                               co_return 1;
                           }};
const tg::operation in_time{{.name = "operation_timeout_test_in_time", .timeout = 1h},
                            [](int n) { return std::make_unique<int>(n); }};
const tg::operation refers{{.name = "operation_timeout_test_refers", .timeout = 1h},
                           [](int& n) -> int& { return n; }};
const tg::operation fails{{.name = "operation_timeout_test_fails", .timeout = 1h},
                          []() { throw std::out_of_range("own"); }};
const tg::operation sticky{{.name = "operation_timeout_test_sticky", .timeout = 1h},
                           tg::sticky{"operation_timeout_test", [](int key) { return key; }},
                           [](int) -> tg::task<unsigned> {
                               ++started;
                               co_await tg::test::until([] {
                                   return started == 20;
                               });  // the key is theirs as long as one lives
                               co_return tg::this_token::core();
                           }};
const tg::operation sticky_late{{.name = "operation_timeout_test_sticky_late", .timeout = 2ms},
                                tg::sticky{"operation_timeout_test", [](int key) { return key; }},
                                [](int) -> tg::task<> { co_await tg::sleep_for(1h); }};
const tg::operation slow{
    {.name = "operation_timeout_test_slow", .storage = tg::storage::slow, .timeout = 5ms},
    []() -> tg::task<> { co_await tg::sleep_for(1h); }};
const tg::operation conducted{{.name = "operation_timeout_test_conducted", .timeout = 100ms},
                              [](bool sleeps) -> tg::task<unsigned> {
                                  if (sleeps) co_await tg::sleep_for(1h);
                                  co_return tg::this_token::core();
                              }};
const tg::operation lead{{.name = "operation_timeout_test_lead", .timeout = 1h},
                         tg::lead{"operation_timeout_test_conducted"},
                         []() -> tg::task<std::string> {
                             const unsigned here = tg::this_token::core();
                             const std::string seed(tg::this_token::seed());
                             if (co_await conducted(false) != here) co_return "strayed";
                             if (seed.empty() || seed != tg::this_token::seed())
                                 co_return "seed lost";
                             try {
                                 co_await conducted(true);
                             } catch (const tg::token_timeout& said) {
                                 co_return said.what();
                             }
                             co_return "no timeout";
                         }};

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

struct settled {
    explicit settled(const tg::runtime& of) : runtime(of) {}
    ~settled() { check_settled(runtime); }
    const tg::runtime& runtime;
};

}  // namespace

TEST_SUITE("operation timeout") {
    TEST_CASE(
        "awaited: in time the result of any kind, the operation's own failure; too late: "
        "token_timeout") {
        counted::reset();
        const std::size_t before = live_slots();
        {
            tg::runtime runtime{{.cores = 2}};
            const settled check(runtime);
            runtime.run([]() -> tg::task<> {
                int place = 1;
                const auto owned = co_await in_time(4);
                CHECK(*owned == 4);
                int& referred = co_await refers(std::ref(place));
                CHECK(&referred == &place);
                CHECK_THROWS_AS(co_await fails(), std::out_of_range);
                std::string text;
                try {
                    co_await late(counted(1));
                } catch (const tg::token_timeout& said) {
                    text = said.what();
                }
                CHECK(contains(text, "operation_timeout_test_late"));
                CHECK(contains(text, " 2ms"));
            });
            CHECK(counted::alive() == 0);
        }
        CHECK(live_slots() == before);
    }

    TEST_CASE("conducted: where its domain is") {
        tg::runtime runtime{{.cores = 3}};
        const settled check(runtime);
        const std::string text =
            runtime.run([]() -> tg::task<std::string> { co_return co_await lead(); });
        CHECK(contains(text, "operation_timeout_test_conducted"));
        CHECK(contains(text, " 100ms"));
    }

    TEST_CASE("sticky: where its key is") {
        tg::runtime runtime{{.cores = 4}};
        const settled check(runtime);
        runtime.run([]() -> tg::task<> {
            for (int key = 0; key < 3; ++key) {
                started = 0;
                std::vector<tg::token<unsigned>> all;
                for (int i = 0; i < 20; ++i) all.push_back(sticky(key));
                const auto cores = co_await tg::when_all(std::move(all));
                CHECK(std::set<unsigned>(cores.begin(), cores.end()).size() == 1);
            }
            CHECK_THROWS_AS(co_await sticky_late(1), tg::token_timeout);
        });
    }

    TEST_CASE("submitted from a foreign thread") {
        counted::reset();
        tg::runtime runtime{{.cores = 2}};
        const settled check(runtime);
        runtime.start();
        auto too_late = runtime.submit(late(counted(1)));
        auto good = runtime.submit(in_time(2));
        CHECK(*good.get() == 2);
        CHECK_THROWS_AS(too_late.get(), tg::token_timeout);
        CHECK(runtime.stop().complete());
        CHECK(counted::alive() == 0);
    }

    TEST_CASE("the time counts from the admission: the wait for a permit too") {
        tg::runtime runtime{
            {.cores = 2, .storage = {.slow = 1}, .on_failure = [](const tg::failure&) {}}};
        const settled check(runtime);
        runtime.run([]() -> tg::task<> {
            std::vector<tg::token<void>> all;
            for (int i = 0; i < 10; ++i) all.push_back(slow());
            CHECK_THROWS_AS(co_await tg::when_all(std::move(all)), tg::token_timeout);
        });
    }

    TEST_CASE("one that is made and not admitted has time enough") {
        tg::runtime runtime{{.cores = 1}};
        runtime.run([]() -> tg::task<> {
            started = 0;
            const tg::operation patient{
                {.name = "operation_timeout_test_patient", .timeout = 100ms},
                []() -> tg::task<int> {
                    ++started;
                    co_await tg::sleep_for(1h);
                    co_return 1;
                }};
            tg::token<int> token = patient();
            const auto awaits = [](tg::token<int> it) -> tg::task<int> { co_return co_await it; };
            co_await tg::sleep_for(110ms);
            CHECK_THROWS_AS(co_await awaits(std::move(token)), tg::token_timeout);
            CHECK(started == 1);
        });
    }

    TEST_CASE(
        "dropped: unadmitted, inside and outside of a runtime; detached: the handler hears of it") {
        counted::reset();
        const std::size_t before = live_slots();
        { auto dropped = late(counted(1)); }
        std::atomic<int> timeouts{0};
        {
            tg::runtime runtime{{.cores = 2, .on_failure = [&](const tg::failure& heard) {
                                     try {
                                         std::rethrow_exception(heard.error);
                                     } catch (const tg::token_timeout&) {
                                         ++timeouts;
                                     }
                                 }}};
            const settled check(runtime);
            runtime.run([]() -> tg::task<> {
                { auto dropped = late(counted(1)); }
                late(counted(2)).admit();
                co_return;
            });
        }
        CHECK(timeouts == 1);
        CHECK(counted::alive() == 0);
        CHECK(live_slots() == before);
    }

    TEST_CASE("in groups, in scopes, with a shorter limit around it, and stopped") {
        counted::reset();
        const std::size_t before = live_slots();
        {
            tg::runtime runtime{{.cores = 2}};
            const settled check(runtime);
            runtime.run([]() -> tg::task<> {
                CHECK_THROWS_AS(co_await tg::when_all(in_time(1), late(counted(1)), in_time(2)),
                                tg::token_timeout);
                const auto first = co_await tg::when_any(sleeps(counted(1)), in_time(3));
                CHECK(first.index == 1);
                const auto body = [](tg::scope& jobs) -> tg::task<> {
                    co_await jobs.spawn(late(counted(1)));
                    co_await tg::sleep_for(1h);
                };
                CHECK_THROWS_AS(co_await tg::with_scope(body), tg::token_timeout);
                CHECK_THROWS_AS(co_await tg::with_timeout(late(counted(1)), 1us),
                                tg::token_timeout);
                tg::token<int> token = sleeps(counted(1));
                token.admit();
                token.request_stop();
                CHECK_THROWS_AS(co_await token, tg::token_stopped);
                tg::token<int> unadmitted = late(counted(1));
                unadmitted.request_stop();
                CHECK_THROWS_AS(co_await unadmitted, tg::token_stopped);
            });
        }
        CHECK(counted::alive() == 0);
        CHECK(live_slots() == before);
    }

    TEST_CASE(
        "options: a negative one is refused; two operations of a name must agree; zero is none") {
        CHECK_THROWS_AS((tg::operation{{.name = "operation_timeout_test_negative", .timeout = -1ns},
                                       [] {}}),
                        tg::configuration_error);
        const tg::operation one{{.name = "operation_timeout_test_same", .timeout = 1ms}, [] {}};
        {
            tg::runtime runtime{{.cores = 1}};
            CHECK_THROWS_AS((tg::operation{{.name = "operation_timeout_test_same", .timeout = 2ms},
                                           [] {}}),
                            tg::configuration_error);
            CHECK_NOTHROW((tg::operation{{.name = "operation_timeout_test_same", .timeout = 1ms},
                                         [] {}}));
        }
        tg::runtime runtime{{.cores = 1}};
        const tg::operation none{{.name = "operation_timeout_test_none", .timeout = 0ms},
                                 [] { return 1; }};
        const std::uint64_t before = runtime.snapshot().admitted;
        CHECK(runtime.run([&]() -> tg::task<int> { co_return co_await none(); }) == 1);
        CHECK(runtime.snapshot().admitted - before ==
              2);  // the main token, and it: nobody keeps its time
    }
}
