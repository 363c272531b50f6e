// SPDX-License-Identifier: MIT

#include "support/settled.hpp"
#include "support/waiting.hpp"

#include <tokengate/tokengate.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <cstdint>
#include <future>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace tg = tokengate;
using namespace std::chrono_literals;
using tg::token_state;
using tg::test::check_settled;
using tg::test::until;

namespace {

/// What an observer has heard, by token.
struct log_book {
    std::mutex mutex;
    std::map<std::uint64_t, std::vector<tg::token_step>> steps;

    auto observer() {
        return [this](const tg::token_step& step) {
            const std::scoped_lock lock(mutex);
            steps[step.id.sequence].push_back(step);
        };
    }
    /// The states that the tokens of an operation have gone through, each as one text.
    std::map<std::string, int> ways(std::string_view operation) {
        const std::scoped_lock lock(mutex);
        std::map<std::string, int> found;
        for (const auto& [sequence, taken] : steps) {
            if (taken.front().id.operation != operation) continue;
            std::string way;
            for (const tg::token_step& step : taken)
                way += std::string(way.empty() ? "" : " ") + std::string(name_of(step.state));
            ++found[way];
        }
        return found;
    }
    /// Whether only legal steps were taken, in time, and each token ended once.
    bool legal() {
        const std::scoped_lock lock(mutex);
        for (const auto& [sequence, taken] : steps) {
            token_state before = token_state::none;
            std::chrono::nanoseconds at{0};
            for (const tg::token_step& step : taken) {
                const bool in_turn = step.state <= token_state::executing &&
                                     static_cast<int>(step.state) == static_cast<int>(before) + 1;
                const bool ends = step.state == token_state::completed ? before == token_state::executing
                                  : step.state > token_state::completed
                                      ? before >= token_state::waiting && before <= token_state::executing
                                      : false;
                if (!(in_turn || ends) || step.at < at) return false;
                before = step.state;
                at = step.at;
            }
            if (before < token_state::completed) return false;
        }
        return true;
    }
};

const tg::operation returns{{.name = "watch_test_returns"}, [](int n) { return n; }};
const tg::operation throws{{.name = "watch_test_throws"}, []() -> int { throw std::runtime_error("as asked"); }};
const tg::operation sleeps{{.name = "watch_test_sleeps"}, []() -> tg::task<> { co_await tg::sleep_for(1h); }};
const tg::operation limited{{.name = "watch_test_limited", .timeout = 1ms},
                            []() -> tg::task<> { co_await tg::sleep_for(1h); }};
const tg::operation child{{.name = "watch_test_child"}, [](int n) { return n; }};
const tg::operation lead{{.name = "watch_test_lead"}, tg::lead{"watch_test_child"}, []() -> tg::task<int> {
                             int sum = 0;
                             for (int i = 0; i < 10; ++i) sum += co_await child(i);
                             co_return sum;
                         }};
const tg::operation stores{{.name = "watch_test_stores", .storage = tg::storage::slow}, [] {}};

template <class Awaited>
tg::task<> dropping_error(Awaited awaited) {
    try {
        co_await std::move(awaited);
    } catch (const std::exception&) {}
}

constexpr const char* whole = "created waiting admitted executing completed";

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
        CHECK(book.ways("watch_test_returns") == std::map<std::string, int>{{whole, 3000}});
        CHECK(book.ways("watch_test_lead") == std::map<std::string, int>{{whole, 1}});
        CHECK(book.ways("watch_test_child") == std::map<std::string, int>{{whole, 10}});
        CHECK(book.ways("watch_test_stores") == std::map<std::string, int>{{whole, 20}});
        CHECK(book.ways("watch_test_throws") ==
              std::map<std::string, int>{{"created waiting admitted executing failed", 1}});
        CHECK(book.ways("watch_test_sleeps") ==
              std::map<std::string, int>{{"created waiting admitted executing killed", 1},
                                         {"created waiting admitted killed", 1}});
        int timed_out = 0;  // the token, perhaps before it had started, and its keeper of time
        for (const auto& [way, times] : book.ways("watch_test_limited")) {
            CHECK(way.ends_with(" timeout"));
            timed_out += times;
        }
        CHECK(timed_out == 2);
        CHECK(book.ways("main") == std::map<std::string, int>{{whole, 1}});
        check_settled(runtime);
    }

    TEST_CASE("one that throws is warned of, and harms nobody") {
        std::atomic<int> warned{0};
        tg::runtime runtime{
            {.cores = 1,
             .observer = [](const tg::token_step&) { throw std::runtime_error("observer"); },
             .on_warning = [&](std::string_view text) { warned += text.find("observer") != text.npos; }}};
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

TEST_SUITE("watch: the backlog's limit") {
    struct fixture {
        std::atomic<bool> go{false};
        std::atomic<int> started{0}, refused{0}, done{0};
    };
    fixture* at = nullptr;

    const tg::operation holds{{.name = "watch_test_holds", .storage = tg::storage::slow}, []() -> tg::task<int> {
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
        tg::runtime runtime{
            {.cores = 2, .storage = {.slow = 1}, .backlog = {.limit = 5, .policy = tg::backlog_policy::reject}}};
        runtime.run([&]() -> tg::task<> {
            std::vector<tg::token<std::string>> all = outcomes(20);
            co_await until([&] { return here.refused == 14 && here.started == 1; });  // one runs, five wait
            CHECK(runtime.snapshot().waiting_for_permit == 5);
            here.go = true;
            for (const std::string& text : co_await tg::when_all(std::move(all))) {
                if (text == "done") continue;
                CHECK(text.find("admission_rejected: watch_test_holds_") == 0);
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
        tg::runtime runtime{
            {.cores = 2, .storage = {.slow = 1}, .backlog = {.limit = 5, .policy = tg::backlog_policy::shed_oldest}}};
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
        const tg::operation blocks{{.name = "watch_test_blocks", .weight = tg::weight::heavy},
                                   [](tg::test::blockade* in) { in->wait(); }};
        tg::runtime runtime{{.cores = 1, .backlog = {.limit = 3, .policy = tg::backlog_policy::reject}}};
        runtime.run([&]() -> tg::task<> {
            runtime.gate().pause("watch_test_returns");
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
            runtime.gate().pause("watch_test_child");
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
        tg::test::wait_until([&] { return submitted == 5; });  // one runs, four wait; the sixth is waited for
        tg::test::wait_until([&] { return here.started == 1 && runtime.snapshot().waiting_for_permit == 4; });
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
        static const tg::operation spawns{{.name = "watch_test_spawns"}, []() -> tg::task<> {
                                              const auto body = [](tg::scope& jobs) -> tg::task<> {
                                                  for (int i = 0; i < 20; ++i) {
                                                      co_await jobs.spawn(holds());
                                                      ++*count;
                                                  }
                                              };
                                              co_await tg::with_scope(body);
                                          }};
        std::future<void> all = runtime.submit(spawns());
        tg::test::wait_until([&] { return here.started == 1 && runtime.snapshot().waiting_for_permit == 4; });
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
        static const tg::operation timed{{.name = "watch_test_timed", .timeout = 1h}, [] { ++limited_ran; }};
        for (const tg::backlog_policy policy :
             {tg::backlog_policy::wait, tg::backlog_policy::reject, tg::backlog_policy::shed_oldest}) {
            tg::runtime runtime{{.cores = 1, .backlog = {.limit = 2, .policy = policy}}};
            runtime.start();
            for (int i = 0; i < 20; ++i) runtime.submit(timed()).get();
            CHECK(runtime.stop(10s).complete());
            check_settled(runtime);
        }
        CHECK(limited_ran == 60);
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
