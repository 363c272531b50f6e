// SPDX-License-Identifier: MIT

#include "support/log_book.hpp"
#include "support/settled.hpp"
#include "support/waiting.hpp"

#include <tokengate/tokengate.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <cstddef>
#include <future>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace tg = tokengate;
using namespace std::chrono_literals;
using tg::test::check_settled;
using tg::test::log_book;
using tg::test::until;

namespace {

const tg::operation returns{{.name = "watch_test_returns"}, [](int n) { return n; }};
const tg::operation throws{{.name = "watch_test_throws"},
                           []() -> int { throw std::runtime_error("as asked"); }};
const tg::operation sleeps{{.name = "watch_test_sleeps"},
                           []() -> tg::task<> { co_await tg::sleep_for(1h); }};
const tg::operation limited{{.name = "watch_test_limited", .timeout = 1ms},
                            []() -> tg::task<> { co_await tg::sleep_for(1h); }};
const tg::operation child{{.name = "watch_test_child"}, [](int n) { return n; }};
const tg::operation lead{
    {.name = "watch_test_lead"}, tg::lead{"watch_test_child"}, []() -> tg::task<int> {
        int sum = 0;
        for (int i = 0; i < 10; ++i) sum += co_await child(i);
        co_return sum;
    }};
int attempt = 0;
const tg::operation retried{
    {.name = "watch_test_retried", .retry = {.attempts = 3, .backoff = 10us}}, [] {
        if (++attempt < 3) throw std::runtime_error("not yet");
        return attempt;
    }};
const tg::operation stores{{.name = "watch_test_stores", .storage = tg::storage::slow}, [] {}};

const tg::operation guarded{
    {.name = "watch_test_guarded", .breaker = {.failure_rate = 0.5, .min_runs = 2, .open_for = 1h}},
    [] { throw std::runtime_error("as asked"); }};
const tg::operation group_lead{
    {.name = "watch_test_group_lead"}, tg::lead{"watch_test_child"}, []() -> tg::task<int> {
        auto [a, b] = co_await tg::when_all(child(1), child(2));
        co_return a + b;
    }};

template <class Awaited>
tg::task<> dropping_error(Awaited awaited) {
    try {
        co_await std::move(awaited);
    } catch (const std::exception&) {}
}

tg::task<> failing_group() { co_await tg::when_all(returns(1), throws(), returns(2)); }

constexpr const char* whole = "created waiting admitted executing completed";
constexpr const char* threw = "created waiting admitted executing failed";
constexpr const char* refused = "created waiting admitted failed";
constexpr const char* stopped_unrun = "created waiting admitted killed";

}  // namespace

TEST_SUITE("watch: the observer") {
    TEST_CASE("hears every step, and only legal ones") {
        log_book book;
        tg::runtime runtime{{.cores = 2, .storage = {.slow = 1}, .observer = book.observer()}};
        runtime.run([&]() -> tg::task<> {
            std::vector<tg::token<int>> many;
            for (int i = 0; i < 3000; ++i) many.push_back(returns(i));
            co_await tg::when_all(std::move(many));
            const int sum = co_await lead();
            CHECK(sum == 45);
            std::vector<tg::token<void>> stored;
            for (int i = 0; i < 20; ++i) stored.push_back(stores());
            co_await tg::when_all(std::move(stored));
            co_await dropping_error(throws());
            co_await dropping_error(limited());

            tg::token<void> killed = sleeps(), never_ran = sleeps();
            killed.admit();
            co_await tg::test::begun(killed);
            runtime.gate().kill(killed.id(), "test");
            co_await dropping_error(std::move(killed));
            runtime.gate().pause("watch_test_sleeps");
            never_ran.admit();
            runtime.gate().kill(never_ran.id(), "test");
            co_await dropping_error(std::move(never_ran));
            runtime.gate().resume();
        });
        CHECK(book.legal());
        CHECK(book.ways("watch_test_returns") == log_book::counts{{whole, 3000}});
        CHECK(book.ways("watch_test_lead") == log_book::counts{{whole, 1}});
        CHECK(book.ways("watch_test_child") == log_book::counts{{whole, 10}});
        CHECK(book.ways("watch_test_stores") == log_book::counts{{whole, 20}});
        CHECK(book.ways("watch_test_throws") == log_book::counts{{threw, 1}});
        CHECK(book.ways("watch_test_sleeps") ==
              log_book::counts{{"created waiting admitted executing killed", 1},
                               {stopped_unrun, 1}});
        int timed_out = 0;  // the token, perhaps before it had started, and its keeper of time
        for (const auto& [way, times] : book.ways("watch_test_limited")) {
            CHECK(way.ends_with(" timeout"));
            timed_out += times;
        }
        CHECK(timed_out == 2);
        CHECK(book.ways("main") == log_book::counts{{whole, 1}});
        check_settled(runtime);
    }

    TEST_CASE("one that is refused has not run; attempts are tokens of their own") {
        log_book book;
        tg::runtime runtime{{.cores = 2,
                             .backlog = {.limit = 1, .policy = tg::backlog_policy::reject},
                             .observer = book.observer()}};
        runtime.run([&]() -> tg::task<> {
            runtime.gate().pause("watch_test_returns");
            tg::token<int> held = returns(1);
            held.admit();
            co_await until([&] { return runtime.snapshot().held == 1; });
            co_await dropping_error(returns(2));
            runtime.gate().resume();
            co_await held;
            const int third_time = co_await retried();
            CHECK(third_time == 3);
        });
        CHECK(book.legal());
        CHECK(book.ways("watch_test_returns") == log_book::counts{{whole, 1}, {refused, 1}});
        const auto attempts = book.ways("watch_test_retried");
        CHECK(attempts ==
              log_book::counts{{whole, 2},  // the last one, and the keeper of the arguments
                               {threw, 2}});
        check_settled(runtime);
    }

    TEST_CASE("those that a backlog sheds have not run") {
        log_book book;
        tg::runtime runtime{{.cores = 2,
                             .backlog = {.limit = 2, .policy = tg::backlog_policy::shed_oldest},
                             .observer = book.observer()}};
        runtime.run([&]() -> tg::task<> {
            runtime.gate().pause("watch_test_returns");
            std::vector<tg::token<int>> all;
            for (int i = 0; i < 5; ++i) {
                all.push_back(returns(i));
                all.back().admit();
            }
            for (std::size_t i = 0; i < 3; ++i) co_await dropping_error(std::move(all[i]));
            runtime.gate().resume();
            for (std::size_t i = 3; i < 5; ++i) co_await std::move(all[i]);
        });
        CHECK(book.legal());
        CHECK(book.ways("watch_test_returns") == log_book::counts{{whole, 2}, {refused, 3}});
        check_settled(runtime);
    }

    TEST_CASE("those that a breaker refuses have not run") {
        log_book book;
        tg::runtime runtime{{.cores = 2, .observer = book.observer()}};
        runtime.run([]() -> tg::task<> {
            for (int i = 0; i < 5; ++i) co_await dropping_error(guarded());
        });
        CHECK(book.legal());
        CHECK(book.ways("watch_test_guarded") == log_book::counts{{threw, 2}, {refused, 3}});
        check_settled(runtime);
    }

    TEST_CASE("those that are asked to stop before they start have not run") {
        log_book book;
        tg::runtime runtime{{.cores = 2, .observer = book.observer()}};
        runtime.run([&]() -> tg::task<> {
            tg::token<int> before = returns(1);
            before.request_stop();
            co_await dropping_error(std::move(before));
            tg::token<void> in_hand = sleeps(), at_the_gate = sleeps();
            in_hand.request_stop();
            in_hand.admit();
            co_await dropping_error(std::move(in_hand));
            runtime.gate().pause("watch_test_sleeps");
            at_the_gate.admit();
            CHECK(runtime.snapshot().held == 1);
            at_the_gate.request_stop();
            co_await dropping_error(std::move(at_the_gate));
        });
        CHECK(book.legal());
        CHECK(book.ways("watch_test_returns") == log_book::counts{{stopped_unrun, 1}});
        CHECK(book.ways("watch_test_sleeps") == log_book::counts{{stopped_unrun, 2}});
        check_settled(runtime);
    }

    TEST_CASE(
        "those that a plain thread submits go the same way, whether they wait for room or not") {
        for (const std::size_t limit : {std::size_t{0}, std::size_t{1}}) {
            CAPTURE(limit);
            log_book book;
            tg::runtime runtime{
                {.cores = 2, .backlog = {.limit = limit}, .observer = book.observer()}};
            runtime.start();
            std::vector<std::future<int>> ended;
            for (int i = 0; i < 100; ++i) ended.push_back(runtime.submit(returns(i)));
            for (int i = 0; i < 100; ++i) CHECK(ended[static_cast<std::size_t>(i)].get() == i);
            CHECK_THROWS_AS(runtime.submit(throws()).get(), std::runtime_error);
            tg::token<int> unwanted = returns(0);
            unwanted.request_stop();
            CHECK_THROWS_AS(runtime.submit(std::move(unwanted)).get(), tg::token_stopped);
            CHECK(runtime.stop().complete());
            CHECK(book.legal());
            CHECK(book.ways("watch_test_returns") ==
                  log_book::counts{{whole, 100}, {stopped_unrun, 1}});
            CHECK(book.ways("watch_test_throws") == log_book::counts{{threw, 1}});
            check_settled(runtime);
        }
    }

    TEST_CASE("members of a group are tokens like others, conducted ones and tasks too") {
        log_book book;
        tg::runtime runtime{{.cores = 2, .observer = book.observer()}};
        runtime.run([]() -> tg::task<> {
            const auto [a, b, c] =
                co_await tg::when_all(returns(1), group_lead(), dropping_error(throws()));
            CHECK(a + b == 4);
            co_await dropping_error(tg::as_token(failing_group()));
        });
        CHECK(book.legal());
        CHECK(book.ways("watch_test_returns") == log_book::counts{{whole, 3}});
        CHECK(book.ways("watch_test_group_lead") == log_book::counts{{whole, 1}});
        CHECK(book.ways("watch_test_child") == log_book::counts{{whole, 2}});
        CHECK(book.ways("watch_test_throws") == log_book::counts{{threw, 2}});
        CHECK(book.ways("task") == log_book::counts{{whole, 1}, {threw, 1}});
        check_settled(runtime);
    }

    TEST_CASE("one that throws is warned of, and harms nobody") {
        std::atomic<int> warned{0};
        tg::runtime runtime{
            {.cores = 1,
             .observer = [](const tg::token_step&) { throw std::runtime_error("observer"); },
             .on_warning =
                 [&](std::string_view text) { warned += text.find("observer") != text.npos; }}};
        CHECK(runtime.run([]() -> tg::task<int> { co_return co_await returns(3); }) == 3);
        CHECK(warned == 10);  // five steps of two tokens
        check_settled(runtime);
    }

    TEST_CASE("steps of one token are heard on its cores, ids and places included") {
        log_book book;
        tg::runtime runtime{{.cores = 1, .observer = book.observer()}};
        tg::token_id id;
        runtime.run([&]() -> tg::task<> {
            tg::token<int> token = returns(1);
            id = token.id();
            co_await token;
        });
        const std::vector<tg::token_step>& steps = book.steps.at(id.sequence);
        REQUIRE(steps.size() == 5);
        for (const tg::token_step& step : steps) CHECK(step.id == id);
        CHECK(steps[1].core == tg::control_core);
        CHECK(steps[3].core == 0);
        CHECK(steps[4].core == 0);
    }
}
