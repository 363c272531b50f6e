// SPDX-License-Identifier: MIT

#include "gate/guard.hpp"

#include "support/settled.hpp"
#include "support/waiting.hpp"

#include <tokengate/tokengate.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <exception>
#include <limits>
#include <memory>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace tg = tokengate;
using namespace std::chrono_literals;
using tg::detail::guard_desk;
using tg::detail::run_history;
using tg::detail::run_outcome;
using tg::test::check_settled;
using tg::test::until;

namespace {

bool has(const std::string& text, std::string_view part) {
    return text.find(part) != std::string::npos;
}

// ---- a desk whose clock stands still --------------------------------------------------------------------------------

guard_desk::time_point now_is{1000s};

tg::detail::operation_record record(tg::breaker_options breaker,
                                    tg::quarantine_options quarantine = {}) {
    return {.name = "guard_test_desk",
            .weight_class = tg::weight::medium,
            .tier = tg::storage::none,
            .flags = 0,
            .index = 2,
            .breaker = breaker,
            .quarantine = quarantine};
}

class desk_test {
public:
    explicit desk_test(tg::breaker_options breaker, tg::quarantine_options quarantine = {})
        : of_(record(breaker, quarantine)), desk(of_, [] { return now_is; }) {}

    tg::token_id come() {
        const tg::token_id id{of_.name, 1, ++last_};
        refused = desk.admit(id);
        return id;
    }
    bool comes() {
        come();
        return !refused;
    }
    void end(const tg::token_id& token, run_outcome outcome) {
        desk.ended({.token = token, .outcome = outcome});
    }
    /// One that comes, and ends if it is let in.
    bool run(run_outcome outcome) {
        const tg::token_id token = come();
        if (!refused) end(token, outcome);
        return !refused;
    }
    bool take(std::chrono::nanoseconds time, std::string arguments = {},
              run_outcome outcome = run_outcome::completed) {
        const tg::token_id token = come();
        if (refused) return false;
        desk.ended({.token = token, .outcome = outcome, .took = time, .arguments = &arguments});
        return true;
    }
    tg::operation_blocked why() const {
        try {
            std::rethrow_exception(refused);
        } catch (const tg::operation_blocked& blocked) {
            return blocked;
        }
    }

private:
    const tg::detail::operation_record of_;
    std::uint64_t last_ = 0;

public:
    guard_desk desk;
    std::exception_ptr refused;
};

constexpr auto succeeds = run_outcome::completed;
constexpr auto fails = run_outcome::failed;

/// A desk whose breaker has just opened.
desk_test& opened(desk_test& of) {
    while (of.desk.blocked().empty()) of.run(fails);
    return of;
}

constexpr tg::breaker_options quick{
    .failure_rate = 0.5, .min_runs = 2, .window = 4, .open_for = 10s};

}  // namespace

TEST_SUITE("guard: a breaker") {
    TEST_CASE("opens with the run that makes enough of them, not one earlier") {
        desk_test of({.failure_rate = 0.9});
        for (int i = 0; i < 10; ++i) {
            CHECK(of.desk.blocked().empty());
            CHECK(of.run(fails));
        }
        CHECK_FALSE(of.desk.blocked().empty());
        CHECK_FALSE(of.comes());
    }

    TEST_CASE("opens over its rate, not at it; the last runs count") {
        desk_test of({.failure_rate = 0.5, .min_runs = 4, .window = 4});
        for (const auto outcome : {fails, fails, succeeds, succeeds, fails, fails})
            CHECK(of.run(outcome));
        CHECK(of.comes());  // 2 of 4
        of.run(fails);
        CHECK_FALSE(of.comes());  // 3 of 4
        CHECK(of.why().failure_rate() == 0.75);
    }

    TEST_CASE("9 failures of 10 are not over 90 %, 91 of 100 are") {
        desk_test of({.failure_rate = 0.9});
        of.run(succeeds);
        for (int i = 0; i < 9; ++i) CHECK(of.run(fails));
        CHECK(of.desk.blocked().empty());
        of.run(fails);  // 10 of 11
        CHECK(has(of.desk.blocked(), "90.9 % of its last 11 runs failed"));

        desk_test wide({.failure_rate = 0.9, .min_runs = 100});
        for (int i = 0; i < 9; ++i) CHECK(wide.run(succeeds));
        for (int i = 0; i < 90; ++i) CHECK(wide.run(fails));
        CHECK(wide.desk.blocked().empty());  // 90 of 99 is more than 90 %, but there are too few
        CHECK(wide.run(fails));
        CHECK_FALSE(wide.comes());
        CHECK(wide.why().failure_rate() == 0.91);
    }

    TEST_CASE("opens with a run that succeeds, if it is the one that was missing") {
        desk_test of({.failure_rate = 0.5, .min_runs = 3});
        CHECK(of.run(fails));
        CHECK(of.run(fails));
        CHECK(of.run(succeeds));
        CHECK_FALSE(of.comes());
    }

    TEST_CASE("counts those whose time was over, and not those that were killed or refused") {
        desk_test of(quick);
        for (int i = 0; i < 10; ++i) {
            CHECK(of.run(run_outcome::killed));
            CHECK(of.run(run_outcome::refused));
        }
        CHECK(of.run(run_outcome::timed_out));
        CHECK(of.run(fails));
        CHECK_FALSE(of.comes());
        tg::operation_health health;
        of.desk.add_to(health);
        CHECK(health.admitted == 23);
        CHECK(health.killed == 10);
        CHECK(health.refused == 10);
        CHECK(health.failed == 1);
        CHECK(health.timed_out == 1);
        CHECK(health.completed == 0);
    }

    TEST_CASE("says the rate, of how many runs, and when it tries again") {
        desk_test of({.failure_rate = 0.9, .min_runs = 30, .window = 30, .open_for = 30s});
        of.run(succeeds);
        of.run(succeeds);
        for (int i = 0; i < 28; ++i) of.run(fails);
        now_is += 17500ms;
        const tg::token_id token = of.come();
        REQUIRE(of.refused);
        CHECK(of.why().failure_rate() == 28.0 / 30.0);
        CHECK(of.why().retry_at() == now_is + 12500ms);
        const std::string text = of.why().what();
        CHECK(text.starts_with("operation_blocked: " + token.text() + " was not let in"));
        CHECK(has(text, "93.3 % of its last 30 runs failed; it is tried again in 12.5 s"));
        CHECK(has(text, "gate().release(\"guard_test_desk\")"));
    }

    TEST_CASE("half open lets one in at a time; if it succeeds, everything begins anew") {
        desk_test of(quick);
        opened(of);
        now_is += 10s - 1ns;
        CHECK_FALSE(of.comes());
        CHECK(of.why().retry_at() == now_is + 1ns);
        now_is += 1ns;
        CHECK(has(of.desk.blocked(), "the next token tries it again"));
        const tg::token_id probe = of.come();
        REQUIRE_FALSE(of.refused);
        CHECK_FALSE(of.comes());
        CHECK(has(of.why().what(), "it is being tried again now"));
        CHECK(of.why().retry_at() == now_is);
        of.end(probe, succeeds);
        CHECK(of.desk.blocked().empty());
        CHECK(of.run(fails));  // of a window that has been emptied: one is not enough
        CHECK(of.run(fails));
        CHECK_FALSE(of.comes());
    }

    TEST_CASE("half open, a failure opens it again, from then on") {
        desk_test of(quick);
        opened(of);
        for (const auto outcome : {fails, run_outcome::timed_out}) {
            now_is += 20s;
            CHECK(of.run(outcome));
            CHECK_FALSE(of.comes());
            CHECK(of.why().retry_at() == now_is + 10s);
            CHECK(of.why().failure_rate() == 1);
        }
    }

    TEST_CASE("half open, one that is killed or refused gives its place to the next") {
        desk_test of(quick);
        opened(of);
        now_is += 10s;
        for (const auto outcome : {run_outcome::killed, run_outcome::refused}) {
            const tg::token_id probe = of.come();
            REQUIRE_FALSE(of.refused);
            CHECK_FALSE(of.comes());
            of.end(probe, outcome);
            CHECK_FALSE(of.desk.blocked().empty());
        }
        CHECK(of.run(succeeds));
        CHECK(of.desk.blocked().empty());
    }

    TEST_CASE("half open, all of several probes must succeed") {
        desk_test of(
            {.failure_rate = 0.5, .min_runs = 2, .window = 4, .open_for = 10s, .probes = 3});
        opened(of);
        now_is += 10s;
        CHECK(of.run(succeeds));
        const tg::token_id second = of.come();
        const tg::token_id third = of.come();
        CHECK_FALSE(of.refused);
        CHECK_FALSE(of.comes());
        of.end(second, succeeds);
        CHECK_FALSE(of.comes());
        of.end(third, fails);
        CHECK_FALSE(of.comes());
        CHECK(of.why().retry_at() == now_is + 10s);
        now_is += 10s;
        for (int i = 0; i < 3; ++i) {
            CHECK_FALSE(of.desk.blocked().empty());
            CHECK(of.run(succeeds));
        }
        CHECK(of.desk.blocked().empty());
    }

    TEST_CASE("one that came before neither opens nor closes it while it is not closed") {
        desk_test of(quick);
        std::vector<tg::token_id> before;
        for (int i = 0; i < 8; ++i) before.push_back(of.come());
        opened(of);
        of.end(before[0], succeeds);
        of.end(before[1], fails);
        CHECK_FALSE(of.comes());
        const auto retry_at = of.why().retry_at();
        now_is += 10s;
        const tg::token_id probe = of.come();
        REQUIRE_FALSE(of.refused);
        of.end(before[2], succeeds);
        CHECK_FALSE(of.comes());
        of.end(before[3], fails);
        CHECK_FALSE(of.comes());
        CHECK(of.why().retry_at() == retry_at);  // half open yet
        of.end(probe, succeeds);
        CHECK(of.comes());
    }

    TEST_CASE("a probe of an earlier time does not count in a later one") {
        desk_test of(
            {.failure_rate = 0.5, .min_runs = 2, .window = 4, .open_for = 10s, .probes = 2});
        opened(of);
        now_is += 10s;
        const tg::token_id late = of.come();
        CHECK(of.run(fails));
        now_is += 10s;
        CHECK(of.run(succeeds));
        of.end(late, succeeds);
        CHECK_FALSE(of.desk.blocked().empty());
    }

    TEST_CASE("is closed by whoever releases it, and not twice") {
        desk_test of(quick);
        CHECK_FALSE(of.desk.release());
        opened(of);
        CHECK(of.desk.release());
        CHECK_FALSE(of.desk.release());
        CHECK(of.run(fails));
        CHECK(of.comes());
    }

    TEST_CASE("with no end of its time stays open until it is released") {
        desk_test of({.failure_rate = 0.5, .min_runs = 1, .open_for = tg::time_span::max()});
        opened(of);
        now_is += 24h * 365;
        CHECK_FALSE(of.comes());
        CHECK(of.why().retry_at() == guard_desk::time_point::max());
        CHECK(of.desk.release());
        CHECK(of.comes());
    }
}

TEST_SUITE("guard: a quarantine") {
    TEST_CASE("judges nobody before there are enough runs") {
        desk_test of({}, {.factor = 2, .quantile = 0.5, .min_runs = 10});
        for (int i = 0; i < 9; ++i) CHECK(of.take(10us));
        CHECK(of.take(1s));
        CHECK(of.desk.blocked().empty());
        CHECK(of.take(1s));  // now it is
        CHECK_FALSE(of.comes());
    }

    TEST_CASE(
        "lets pass what is within its factor; else says which token it was, and what is usual") {
        desk_test of({}, {.factor = 100, .min_runs = 100});
        for (int i = 0; i < 100; ++i) CHECK(of.take(10ms));
        CHECK(of.take(900ms));
        CHECK(of.desk.blocked().empty());
        const tg::token_id offender = of.come();
        std::string arguments = "7, \"x\"";
        of.desk.ended({.token = offender, .took = 3200ms, .arguments = &arguments});
        CHECK_FALSE(of.comes());
        CHECK(of.why().retry_at() == guard_desk::time_point::max());
        CHECK(of.why().failure_rate() == 0);
        const std::string text = of.why().what();
        CHECK(has(text, "is in quarantine since 2"));
        CHECK(has(text,
                  " UTC: " + offender.text() + "(7, \"x\") ran 3.2 s, while 99 % end within "));
        CHECK(has(text, " ms; gate().release(\"guard_test_desk\")"));
    }

    TEST_CASE("keeps the first offender, whose run is not in the history") {
        desk_test of({}, {.factor = 10, .quantile = 1, .min_runs = 2});
        of.take(1ms);
        of.take(1ms);
        const tg::token_id running = of.come();
        of.take(1s, "first");
        of.desk.ended({.token = running, .took = 2s});
        CHECK(has(of.desk.blocked(), "(first) ran 1 s"));
        tg::operation_health health;
        of.desk.add_to(health);
        CHECK(health.run_p99 < 2ms);
    }

    TEST_CASE("judges failures as well, and not what was killed or did not run") {
        desk_test of({}, {.factor = 10, .min_runs = 2});
        of.take(1ms);
        of.take(1ms);
        of.take(1s, {}, run_outcome::killed);
        of.take(1s, {}, run_outcome::refused);
        of.run(fails);
        CHECK(of.desk.blocked().empty());
        of.take(1s, {}, fails);
        CHECK_FALSE(of.desk.blocked().empty());
    }

    TEST_CASE("ends when it is released, and what is usual is learnt anew") {
        desk_test of({}, {.factor = 10, .min_runs = 2});
        for (int i = 0; i < 3; ++i) of.take(1ms);
        of.take(1s);
        CHECK(of.desk.release());
        CHECK_FALSE(of.desk.release());
        CHECK(of.take(1s));
        CHECK(of.take(1s));
        CHECK(of.take(5s));
        CHECK(of.desk.blocked().empty());
    }

    TEST_CASE("comes before an open breaker, and one release ends both") {
        desk_test of(quick, {.factor = 10, .min_runs = 1});
        of.take(1ms, {}, fails);
        of.take(1s, {}, fails);
        CHECK_FALSE(of.comes());
        CHECK(has(of.why().what(), "in quarantine"));
        CHECK(of.why().failure_rate() == 1);
        now_is += 10s;
        CHECK_FALSE(of.comes());
        CHECK(of.desk.release());
        CHECK(of.desk.blocked().empty());
    }

    TEST_CASE("a history knows its quantile at each run, and forgets") {
        std::minstd_rand random(7);
        for (const double q : {0.01, 0.5, 0.99, 1.0}) {
            run_history history(q);
            CHECK(history.quantile() == 0);
            std::vector<std::uint64_t> all;
            for (int i = 0; i < 2000; ++i) {
                const std::uint64_t ns = std::uint64_t{1} << random() % 30 << random() % 3;
                history.record(ns);
                all.insert(std::ranges::upper_bound(all, ns), ns);
                const auto rank =
                    static_cast<std::size_t>(std::ceil(q * static_cast<double>(all.size())));
                const auto exact = static_cast<double>(all[std::max<std::size_t>(rank, 1) - 1]);
                const auto known = static_cast<double>(history.quantile());
                if (known < exact || known > exact * 33 / 32)
                    FAIL(q, ' ', i, ' ', known, ' ', exact);
                if (history.quantile(q) != history.quantile()) FAIL("two answers");
            }
            CHECK(history.runs() == 2000);
        }
        run_history slow(0.5);
        for (int i = 0; i < 100'000; ++i) slow.record(1000);
        int needed = 0;
        for (; slow.quantile() < 2000; ++needed) slow.record(100'000);
        CHECK(needed > 4'000);
        CHECK(needed <= 16'384);
    }

    TEST_CASE("forgetting leaves thin tails as thick as they are") {
        run_history history(0.99);
        std::minstd_rand random(7);
        for (int i = 0; i < 100'000; ++i)
            history.record(i % 50 == 0 ? std::uint64_t{1} << (20 + random() % 12) << random() % 2
                                       : 1000);
        CHECK(history.quantile(0.975) < 1100);  // 2 % are longer
        CHECK(history.quantile(0.985) > 1'000'000);
    }
}

// ---- end to end -----------------------------------------------------------------------------------------------------

namespace {

std::atomic<int> ran{0};
std::atomic<bool> failing{false}, leave{false};

void do_work() {
    ++ran;
    if (failing) throw std::runtime_error("it fails");
}
tg::task<> do_stay() {
    ++ran;
    while (!leave) co_await tg::sleep_for(100us);
    if (failing) throw std::runtime_error("it fails");
}
tg::task<> do_sleep() { co_await tg::sleep_for(1h); }

constexpr tg::breaker_options two{.failure_rate = 0.5, .min_runs = 2, .window = 4, .open_for = 1h};
constexpr tg::breaker_options soon{
    .failure_rate = 0.5, .min_runs = 2, .window = 4, .open_for = 2ms};

const tg::operation works{{.name = "guard_test_works", .breaker = two}, do_work};
const tg::operation recovers{{.name = "guard_test_recovers", .breaker = soon}, do_stay};
const tg::operation sleeps{{.name = "guard_test_sleeps", .timeout = 1ms, .breaker = two}, do_sleep};
const tg::operation retried{
    {.name = "guard_test_retried", .retry = {.attempts = 5, .backoff = 0ms}, .breaker = two},
    do_work};
const tg::operation stored{
    {.name = "guard_test_stored", .storage = tg::storage::slow, .breaker = two}, do_work};
const tg::operation crowd{
    {.name = "guard_test_crowd", .breaker = {.failure_rate = 0.9, .open_for = 1h}}, do_work};
const tg::operation chain{
    {.name = "guard_test_chain"}, tg::lead{"guard_test_works"}, []() -> tg::task<> {
        for (int i = 0; i < 3; ++i) {
            try {
                co_await works();
            } catch (const std::runtime_error& error) {
                if (i == 2 || std::string_view(error.what()) != "it fails") throw;
            }
        }
    }};
const tg::operation unguarded{{.name = "guard_test_unguarded"}, do_work};

struct secret {
    int value = 0;
};
const tg::operation judged{
    {.name = "guard_test_judged", .quarantine = {.factor = 3, .quantile = 0.5, .min_runs = 20}},
    [](std::int64_t ns, std::string, secret, int&) -> void {
        const auto end = std::chrono::steady_clock::now() + std::chrono::nanoseconds(ns);
        while (std::chrono::steady_clock::now() < end) {}
    }};

void reset() {
    ran = 0;
    failing = leave = false;
}

/// What the awaiter got instead of a result.
template <class Awaited>
tg::task<std::string> failure_of(Awaited awaited) {
    try {
        co_await std::move(awaited);
    } catch (const std::exception& error) {
        co_return error.what();
    }
    co_return "none";
}

tg::task<std::optional<tg::operation_blocked>> block_of(tg::token<> token) {
    try {
        co_await std::move(token);
    } catch (const tg::operation_blocked& blocked) {
        co_return blocked;
    }
    co_return std::nullopt;
}

/// Has it fail until it is blocked; says when it will be tried again.
template <class Operation>
tg::task<std::chrono::steady_clock::time_point> fail_until_blocked(const Operation& operation) {
    failing = leave = true;
    std::optional<tg::operation_blocked> blocked;
    while (!blocked) {
        try {
            co_await operation();
        } catch (const tg::operation_blocked& error) {
            blocked = error;
        } catch (const std::runtime_error&) {}
    }
    failing = leave = false;
    co_return blocked->retry_at();
}

tg::task<> when(std::chrono::steady_clock::time_point time) {
    const auto over = [time] { return std::chrono::steady_clock::now() >= time; };
    co_await until(over);
}

}  // namespace

TEST_SUITE("guard: in a runtime") {
    TEST_CASE("an operation whose breaker is open does not run, and its awaiter is told why") {
        reset();
        tg::runtime runtime{{.cores = 2}};
        runtime.run([&]() -> tg::task<> {
            failing = true;
            for (int i = 0; i < 2; ++i) {
                const std::string failure = co_await failure_of(works());
                CHECK(failure == "it fails");
            }
            failing = false;
            const auto before = std::chrono::steady_clock::now();
            const auto blocked = co_await block_of(works());
            REQUIRE(blocked);
            CHECK(blocked->failure_rate() == 1);
            CHECK(blocked->retry_at() > before + 30min);
            CHECK(has(blocked->what(), "100 % of its last 2 runs failed"));
            CHECK(ran == 2);
            const std::string other = co_await failure_of(unguarded());
            CHECK(other == "none");
            CHECK(has(runtime.gate().health("guard_test_works")->blocked,
                      "100 % of its last 2 runs failed"));
            CHECK(runtime.gate().release("guard_test_works"));
            CHECK_FALSE(runtime.gate().release("guard_test_works"));
            CHECK(runtime.gate().health("guard_test_works")->blocked.empty());
            const std::string again = co_await failure_of(works());
            CHECK(again == "none");
        });
        check_settled(runtime);
    }

    TEST_CASE("each runtime judges for itself") {
        reset();
        tg::runtime first{{.cores = 1}};
        first.run([&]() -> tg::task<> { co_await fail_until_blocked(works); });
        tg::runtime second{{.cores = 1}};
        second.run([&]() -> tg::task<> {
            const std::string failure = co_await failure_of(works());
            CHECK(failure == "none");
        });
        CHECK_FALSE(second.gate().release("guard_test_works"));
        CHECK(first.gate().release("guard_test_works"));
    }

    TEST_CASE("half open, one token tries it while others are refused") {
        reset();
        tg::runtime runtime{{.cores = 2}};
        runtime.run([&]() -> tg::task<> {
            const auto retry_at = co_await fail_until_blocked(recovers);
            const int before = ran;
            co_await when(retry_at);
            tg::token<> probe = recovers();
            probe.admit();
            const auto started = [before] { return ran == before + 1; };
            co_await until(started);
            for (int i = 0; i < 3; ++i) {
                const auto blocked = co_await block_of(recovers());
                REQUIRE(blocked);
                CHECK(has(blocked->what(), "it is being tried again now"));
            }
            leave = true;
            co_await std::move(probe);
            const std::string failure = co_await failure_of(recovers());
            CHECK(failure == "none");
        });
        check_settled(runtime);
    }

    TEST_CASE(
        "half open, a probe that fails opens it again; one that is killed makes room for the "
        "next") {
        reset();
        tg::runtime runtime{{.cores = 2}};
        runtime.run([&]() -> tg::task<> {
            auto retry_at = co_await fail_until_blocked(recovers);
            co_await when(retry_at);
            failing = leave = true;
            const std::string failure = co_await failure_of(recovers());
            CHECK(failure == "it fails");
            // Refused, or, where the machine was slower than open_for, a probe that fails as well.
            const std::string next_failure = co_await failure_of(recovers());
            CHECK(next_failure != "none");
            CHECK_FALSE(runtime.gate().health("guard_test_recovers")->blocked.empty());

            retry_at = co_await fail_until_blocked(recovers);
            co_await when(retry_at);
            const int before = ran;
            tg::token<> probe = recovers();
            const tg::token_id id = probe.id();
            probe.admit();
            const auto started = [before] { return ran == before + 1; };
            co_await until(started);
            CHECK(runtime.gate().kill(id, "test") == 1);
            const std::string killed = co_await failure_of(std::move(probe));
            CHECK(has(killed, "token_killed"));
            leave = true;
            const std::string next = co_await failure_of(recovers());
            CHECK(next == "none");
            const std::string more = co_await failure_of(recovers());
            CHECK(more == "none");
        });
        check_settled(runtime);
    }

    TEST_CASE("timeouts count as failures") {
        reset();
        tg::runtime runtime{{.cores = 1}};
        runtime.run([&]() -> tg::task<> {
            std::string failure = co_await failure_of(sleeps());
            // On a busy machine some are late before they have started, and do not count.
            while (has(failure, "token_timeout")) failure = co_await failure_of(sleeps());
            CHECK(has(failure, "operation_blocked"));
        });
        const auto health = runtime.gate().health("guard_test_sleeps");
        REQUIRE(health);
        CHECK(health->timed_out == 2);
        CHECK(health->refused == 1);
        check_settled(runtime);
    }

    TEST_CASE("attempts count one by one, and what is blocked is not retried") {
        reset();
        tg::runtime runtime{{.cores = 1}};
        runtime.run([&]() -> tg::task<> {
            failing = true;
            const auto blocked = co_await block_of(retried());
            CHECK(blocked);
            CHECK(ran == 2);
        });
        check_settled(runtime);
    }

    TEST_CASE("a child of a conducted chain is blocked too") {
        reset();
        tg::runtime runtime{{.cores = 2}};
        runtime.run([&]() -> tg::task<> {
            failing = true;
            const std::string failure = co_await failure_of(chain());
            CHECK(has(failure, "operation_blocked"));
            CHECK(ran == 2);
        });
        check_settled(runtime);
    }

    TEST_CASE("what is blocked keeps no permit of its tier, and no place of a backlog") {
        reset();
        tg::runtime runtime{
            {.cores = 1, .backlog = {.limit = 4, .policy = tg::backlog_policy::reject}}};
        runtime.run([&]() -> tg::task<> {
            co_await fail_until_blocked(stored);
            for (int i = 0; i < 10; ++i) {
                const std::string failure = co_await failure_of(stored());
                CHECK(has(failure, "operation_blocked"));
            }
            CHECK(runtime.gate().storage_in_use(tg::storage::slow) == 0);
        });
        check_settled(runtime);
    }

    TEST_CASE("a crowd on several cores: every token is told something, and the counts add up") {
        reset();
        failing = true;
        constexpr int threads = 4, each = 500;
        tg::runtime runtime{{.cores = 4}};
        runtime.start();
        std::atomic<int> failed{0}, blocked{0}, other{0};
        std::vector<std::thread> submitters;
        for (int i = 0; i < threads; ++i)
            submitters.emplace_back([&] {
                std::vector<std::future<void>> results;
                for (int k = 0; k < each; ++k) results.push_back(runtime.submit(crowd()));
                for (auto& result : results) {
                    try {
                        result.get();
                        ++other;
                    } catch (const tg::operation_blocked&) {
                        ++blocked;
                    } catch (const tg::error&) {
                        ++other;
                    } catch (const std::runtime_error&) {
                        ++failed;
                    }
                }
            });
        for (auto& thread : submitters) thread.join();
        CHECK(other == 0);
        CHECK(failed == ran);
        CHECK(failed >= 10);
        CHECK(failed + blocked == threads * each);
        const auto health = runtime.gate().health("guard_test_crowd");
        REQUIRE(health);
        CHECK(health->admitted == threads * each);
        CHECK(health->failed == static_cast<std::uint64_t>(failed));
        CHECK(health->started == health->failed);
        CHECK(health->refused == static_cast<std::uint64_t>(blocked));
        CHECK_FALSE(health->blocked.empty());
        REQUIRE(runtime.stop(10s).complete());
        check_settled(runtime);
    }

    TEST_CASE(
        "a run that leaves its operation's history brings it into quarantine, with its arguments") {
        reset();
        tg::runtime runtime{{.cores = 1}};
        runtime.run([&]() -> tg::task<> {
            int counter = 0;
            for (int i = 0; i < 20; ++i) co_await judged(0, "usual", secret{}, std::ref(counter));
            const auto usual = runtime.gate().health("guard_test_judged")->run_p50;
            tg::token<> offender =
                judged((usual * 4).count(), "long \"one\"", secret{}, std::ref(counter));
            const std::string id = offender.id().text();
            const std::string arguments =
                std::to_string((usual * 4).count()) + R"(, "long \"one\"", …, …)";
            co_await std::move(offender);
            const std::string failure =
                co_await failure_of(judged(0, "", secret{}, std::ref(counter)));
            CHECK(has(failure, "in quarantine since "));
            CHECK(has(failure, id + '(' + arguments + ") ran "));
            CHECK(has(failure, ", while 50 % end within "));
            CHECK(runtime.gate().release("guard_test_judged"));
            co_await judged(0, "", secret{}, std::ref(counter));
        });
        const auto health = runtime.gate().health("guard_test_judged");
        CHECK(health->completed == 22);
        CHECK(health->refused == 1);
        check_settled(runtime);
    }

    TEST_CASE("a call that is dropped leaves nothing behind") {
        reset();
        const auto drop = [] {
            int counter = 0;
            for (int i = 0; i < 10; ++i)
                (void)judged(0, std::string(100, 'a'), secret{}, std::ref(counter));
        };
        drop();  // what a thread keeps
        std::thread(drop).join();
        const auto before = tg::detail::frame_pool::statistics().live_slots;
        drop();
        std::thread(drop).join();
        CHECK(tg::detail::frame_pool::statistics().live_slots == before);
    }
}

TEST_SUITE("guard: options that cannot be") {
    std::string refusal(tg::operation_options options) {
        try {
            const tg::operation made{options, [] {}};
        } catch (const tg::configuration_error& error) {
            return error.what();
        }
        return "none";
    }

    TEST_CASE("are refused, naming the operation and the option") {
        constexpr double nan = std::numeric_limits<double>::quiet_NaN();
        const auto breaker = [](tg::breaker_options options) {
            return refusal({.name = "guard_test_wrong", .breaker = options});
        };
        const auto quarantine = [](tg::quarantine_options options) {
            return refusal({.name = "guard_test_wrong", .quarantine = options});
        };
        for (const double rate : {-0.1, 1.0, nan}) {
            const std::string text = breaker({.failure_rate = rate});
            CHECK(has(text, "operation \"guard_test_wrong\": breaker.failure_rate"));
        }
        CHECK(has(breaker({.failure_rate = 0.9, .min_runs = 0}), "breaker.min_runs is 0"));
        CHECK(has(breaker({.failure_rate = 0.9, .min_runs = 101}), "breaker.min_runs is 101"));
        CHECK(has(breaker({.failure_rate = 0.9, .window = 0}), "breaker.window is 0"));
        CHECK(has(breaker({.failure_rate = 0.9, .window = 1'000'001}),
                  "breaker.window is 1000001"));
        CHECK(has(breaker({.failure_rate = 0.9, .open_for = 0s}), "breaker.open_for"));
        CHECK(has(breaker({.failure_rate = 0.9, .probes = 0}), "breaker.probes is 0"));
        for (const double factor : {-1.0, 0.5, nan, std::numeric_limits<double>::infinity()})
            CHECK(has(quarantine({.factor = factor}), "quarantine.factor"));
        for (const double q : {0.0, -1.0, 1.1, nan})
            CHECK(has(quarantine({.factor = 2, .quantile = q}), "quarantine.quantile"));
        CHECK(has(quarantine({.factor = 2, .min_runs = 0}), "quarantine.min_runs is 0"));
        CHECK(breaker({.failure_rate = 0.9}) == "none");
        CHECK(quarantine({.factor = 1, .quantile = 1, .min_runs = 1}) == "none");
    }

    TEST_CASE("guards are part of what an operation is") {
        const tg::runtime runtime{{.cores = 1}};
        const tg::operation first{{.name = "guard_test_same", .breaker = two}, [] {}};
        CHECK(refusal({.name = "guard_test_same", .breaker = two}) == "none");
        CHECK(has(refusal({.name = "guard_test_same", .breaker = soon}), "breaker"));
        CHECK(has(refusal({.name = "guard_test_same", .breaker = two, .quarantine = {.factor = 2}}),
                  "quarantine"));
        CHECK(has(refusal({.name = "guard_test_same"}), "breaker"));
    }
}
