// SPDX-License-Identifier: MIT

#include "report/health.hpp"

#include "support/thrown.hpp"
#include "support/waiting.hpp"

#include <tokengate/tokengate.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace tg = tokengate;
using namespace std::chrono_literals;
using tg::detail::grade_of;
using tg::test::until;
using tg::test::what_of;

namespace {

void may_fail(bool fails) {
    if (fails) throw std::runtime_error("it fails");
}
tg::task<> stay() { co_await tg::sleep_for(1h); }

// Never opens: more than 99.9 % of 1000 runs would have to fail.
constexpr tg::breaker_options patient{.failure_rate = 0.999, .min_runs = 1000, .window = 1000};
const tg::operation plain{{.name = "health_test_plain"}, may_fail};
const tg::operation guarded{{.name = "health_test_guarded", .breaker = patient}, may_fail};
const tg::operation stays{{.name = "health_test_stays", .timeout = 1ms, .breaker = patient}, stay};
const tg::operation brief{{.name = "health_test_brief",
                           .timeout = 1ms,
                           .breaker = {.failure_rate = 0.5, .min_runs = 2, .window = 2}},
                          stay};
const tg::operation killed{{.name = "health_test_killed", .breaker = patient}, stay};
const tg::operation idle{{.name = "health_test_idle"}, [] {}};

template <class Operation>
tg::task<> run(const Operation& operation, int times, bool fails) {
    for (int i = 0; i < times; ++i) {
        try {
            co_await operation(fails);
        } catch (const std::runtime_error&) {}
    }
}

const tg::operation_health* find(const tg::snapshot& in, std::string_view name) {
    const auto found = std::ranges::find(in.operations, name, &tg::operation_health::operation);
    return found == in.operations.end() ? nullptr : &*found;
}

}  // namespace

TEST_SUITE("health") {
    TEST_CASE("each grade begins at its threshold") {
        using tg::health;
        CHECK(grade_of(0, 0) == health::unknown);
        CHECK(grade_of(4, 0) == health::unknown);
        CHECK(grade_of(0, 4) == health::unknown);
        CHECK(grade_of(5, 0) == health::excellent);
        CHECK(grade_of(0, 5) == health::problematic);
        CHECK(grade_of(95, 5) == health::excellent);
        CHECK(grade_of(19, 1) == health::excellent);
        CHECK(grade_of(949, 51) == health::healthy);
        CHECK(grade_of(80, 20) == health::healthy);
        CHECK(grade_of(4, 1) == health::healthy);
        CHECK(grade_of(799, 201) == health::at_risk);
        CHECK(grade_of(50, 50) == health::at_risk);
        CHECK(grade_of(3, 3) == health::at_risk);
        CHECK(grade_of(499, 501) == health::problematic);
    }

    TEST_CASE("counts come from the metrics, or else from breakers and quarantines") {
        for (const bool metrics : {false, true}) {
            CAPTURE(metrics);
            tg::runtime runtime{{.cores = 2, .metrics = metrics}};
            runtime.run([&]() -> tg::task<> {
                co_await run(plain, 9, false);
                co_await run(plain, 1, true);
                co_await run(guarded, 19, false);
                co_await run(guarded, 1, true);
            });
            const auto known = runtime.gate().health("health_test_guarded");
            REQUIRE(known);
            CHECK(known->operation == "health_test_guarded");
            CHECK(known->grade == tg::health::excellent);
            CHECK(known->failure_rate == 0.05);
            CHECK(known->admitted == 20);
            CHECK(known->started == 20);
            CHECK(known->completed == 19);
            CHECK(known->failed == 1);
            CHECK(known->blocked.empty());
            const auto counted = runtime.gate().health("health_test_plain");
            REQUIRE(counted.has_value() == metrics);
            if (metrics) {
                CHECK(counted->grade == tg::health::healthy);
                CHECK(counted->failure_rate == 0.1);
            }
            const tg::snapshot now = runtime.snapshot();
            CHECK(std::ranges::is_sorted(now.operations, {}, &tg::operation_health::operation));
            REQUIRE(find(now, "health_test_guarded"));
            CHECK(find(now, "health_test_guarded")->completed == 19);
            CHECK((find(now, "health_test_plain") != nullptr) == metrics);
            CHECK_FALSE(find(now, "main"));
            CHECK_FALSE(find(now, "health_test_idle"));
        }
    }

    TEST_CASE("timeouts are failures, what was killed is no run") {
        for (const bool metrics : {false, true}) {
            CAPTURE(metrics);
            tg::runtime runtime{{.cores = 1, .metrics = metrics}};
            runtime.run([&]() -> tg::task<> {
                // On a busy machine some are late before they have started.
                for (std::uint64_t late = 0; late < 5;
                     late = runtime.gate().health("health_test_stays")->timed_out) {
                    try {
                        co_await stays();
                    } catch (const tg::token_timeout&) {}
                }
                for (int i = 0; i < 5; ++i) {
                    tg::token<> victim = killed();
                    victim.admit();
                    co_await tg::test::begun(victim);
                    runtime.gate().kill("health_test_killed", "test");
                    try {
                        co_await std::move(victim);
                    } catch (const tg::token_killed&) {}
                }
            });
            const auto late = runtime.gate().health("health_test_stays");
            REQUIRE(late);
            CHECK(late->timed_out == 5);
            CHECK(late->failure_rate == 1);
            CHECK(late->grade == tg::health::problematic);
            const auto none = runtime.gate().health("health_test_killed");
            REQUIRE(none);
            CHECK(none->killed == 5);
            CHECK(none->failure_rate == 0);
            CHECK(none->grade == tg::health::unknown);
        }
    }

    TEST_CASE("what was held until its time was over has not run, and says so") {
        for (const bool metrics : {false, true}) {
            CAPTURE(metrics);
            tg::runtime runtime{{.cores = 1, .metrics = metrics}};
            runtime.gate().pause("health_test_brief");
            runtime.start();
            for (int i = 0; i < 5; ++i) {
                const std::string why =
                    what_of<tg::token_timeout>([&] { runtime.submit(brief()).get(); });
                CHECK(why.find(" had not been started within 1ms") != std::string::npos);
            }
            const auto held = runtime.gate().health("health_test_brief");
            REQUIRE(held);
            CHECK(held->started == 0);
            CHECK(held->expired == 5);
            CHECK(held->timed_out == 0);
            CHECK(held->failure_rate == 0);
            CHECK(held->grade == tg::health::unknown);
            CHECK(held->blocked.empty());  // its breaker has seen no failure
        }
    }

    TEST_CASE("times come with the metrics") {
        tg::runtime runtime{{.cores = 1, .timing = tg::timing::full, .metrics = true}};
        runtime.run([&]() -> tg::task<> { co_await run(plain, 5, false); });
        const auto known = runtime.gate().health("health_test_plain");
        REQUIRE(known);
        CHECK(known->run_p50 > 0ns);
        CHECK(known->run_p99 >= known->run_p50);
        CHECK(known->queue_p99 > 0ns);
    }

    TEST_CASE("an operation that is held by its name is there, too") {
        tg::runtime runtime{{.cores = 1}};
        CHECK_FALSE(runtime.gate().health("health_test_idle"));
        runtime.gate().pause("health_test_idle");
        const auto known = runtime.gate().health("health_test_idle");
        REQUIRE(known);
        CHECK(known->paused);
        CHECK(known->grade == tg::health::unknown);
        REQUIRE(find(runtime.snapshot(), "health_test_idle"));
        runtime.gate().resume("health_test_idle");
        CHECK(runtime.snapshot().operations.empty());
    }

    TEST_CASE("a name that nobody has is an error") {
        tg::runtime runtime{{.cores = 1}};
        CHECK_THROWS_AS((void)runtime.gate().health("health_test_nobody"), tg::configuration_error);
        CHECK_THROWS_AS(runtime.gate().release("health_test_nobody"), tg::configuration_error);
    }
}
