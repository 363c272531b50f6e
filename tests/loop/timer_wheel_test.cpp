// SPDX-License-Identifier: MIT
#include "loop/timer_wheel.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <vector>

using namespace tokengate::detail;

namespace {

constexpr std::uint64_t tick = std::uint64_t{1} << timer_wheel::tick_bits;
constexpr std::uint64_t end_of_time = ~std::uint64_t{0};
constexpr std::uint64_t last_tick = end_of_time / tick;

std::uint64_t tick_of(std::uint64_t deadline_ns) {
    return deadline_ns / tick + (deadline_ns % tick != 0);
}

std::vector<std::unique_ptr<timer>> make_timers(const std::vector<std::uint64_t>& deadlines) {
    std::vector<std::unique_ptr<timer>> made;
    for (const std::uint64_t deadline : deadlines) {
        made.push_back(std::make_unique<timer>());
        made.back()->deadline_ns = deadline;
    }
    return made;
}

std::vector<std::uint64_t> pop_all(timer_wheel& wheel, std::uint64_t now_ns = end_of_time) {
    std::vector<std::uint64_t> popped;
    while (timer* due = wheel.pop_due(now_ns)) popped.push_back(due->deadline_ns);
    return popped;
}

/// What the wheel promises, said with a sorted map: ticks in order, and within a tick the order of arming.
class model {
public:
    void arm(timer& any) { armed_.emplace(std::max(now_, tick_of(any.deadline_ns)), &any); }
    void withdraw(timer& any) {
        armed_.erase(std::find_if(armed_.begin(), armed_.end(),
                                  [&](const auto& each) { return each.second == &any; }));
    }
    timer* pop_due(std::uint64_t now_ns) {
        if (armed_.empty() || armed_.begin()->first > now_ns / tick) {
            now_ = std::max(now_, now_ns / tick);
            return nullptr;
        }
        now_ = armed_.begin()->first;
        return armed_.extract(armed_.begin()).mapped();
    }
    [[nodiscard]] bool empty() const { return armed_.empty(); }
    /// Exact when only the last digit is left to go; before that any time in between is right.
    [[nodiscard]] bool allows_earliest(std::uint64_t reported_ns) const {
        const std::uint64_t first = armed_.begin()->first;
        const std::uint64_t latest_ns = std::min(first, last_tick / 2) * tick;
        if (first / 64 == now_ / 64) return reported_ns == latest_ns;
        return reported_ns <= latest_ns && reported_ns > std::min(now_, last_tick / 2 - 1) * tick;
    }

private:
    std::uint64_t now_ = 0;
    std::multimap<std::uint64_t, timer*> armed_;
};

/// Small and large equally likely: every level has its share.
std::uint64_t any_size(std::mt19937_64& random, unsigned bits) {
    return random() >> (64 - bits + random() % bits);
}

}  // namespace

TEST_SUITE("timer wheel") {
    TEST_CASE("timers come out in the order of their deadlines, and not before them") {
        timer_wheel wheel;
        const auto timers = make_timers({50 * tick, 10 * tick, 40 * tick, 20 * tick, 30 * tick});
        for (const auto& each : timers) wheel.arm(*each);
        CHECK(wheel.earliest_ns() == 10 * tick);
        CHECK(wheel.pop_due(10 * tick - 1) == nullptr);
        CHECK(wheel.pop_due(20 * tick) == timers[1].get());
        CHECK(wheel.pop_due(20 * tick) == timers[3].get());
        CHECK(wheel.pop_due(20 * tick) == nullptr);
        CHECK(wheel.earliest_ns() == 30 * tick);
        CHECK(pop_all(wheel) == std::vector<std::uint64_t>{30 * tick, 40 * tick, 50 * tick});
        CHECK(wheel.empty());
        for (const auto& each : timers) CHECK_FALSE(each->armed());
    }

    TEST_CASE("an empty wheel has nothing due") {
        timer_wheel wheel;
        CHECK(wheel.empty());
        CHECK(wheel.pop_due(0) == nullptr);
        CHECK(wheel.pop_due(end_of_time) == nullptr);
    }

    TEST_CASE("a deadline within a tick waits for its end") {
        for (const std::uint64_t within : {std::uint64_t{1}, tick / 2, tick - 1, tick}) {
            CAPTURE(within);
            timer_wheel wheel;
            timer one;
            one.deadline_ns = 7 * tick + within;
            wheel.arm(one);
            CHECK(wheel.earliest_ns() == 8 * tick);
            CHECK(wheel.pop_due(8 * tick - 1) == nullptr);
            CHECK(wheel.pop_due(8 * tick) == &one);
        }
    }

    TEST_CASE("timers of one tick come out in the order they were armed, from however far away") {
        constexpr std::uint64_t deadline = 5'000'000 * tick;
        timer_wheel wheel;
        const auto timers = make_timers(std::vector<std::uint64_t>(100, deadline));
        for (std::size_t i = 0; i < timers.size(); ++i) {
            wheel.arm(*timers[i]);
            CHECK(wheel.pop_due(deadline - deadline / (i * i + 1)) ==
                  nullptr);  // nearer each time, and in lower levels
        }
        for (const auto& each : timers) CHECK(wheel.pop_due(deadline) == each.get());
        CHECK(wheel.empty());
    }

    TEST_CASE("what was due when it was armed comes out next, also where the clock has not moved") {
        constexpr std::uint64_t now = 1'000'000 * tick + 5;
        timer_wheel wheel;
        CHECK(wheel.pop_due(now) == nullptr);
        const auto timers = make_timers({0, now - 2 * tick, 1'000'000 * tick, 1});
        for (const auto& each : timers) wheel.arm(*each);
        CHECK(wheel.earliest_ns() <= now);
        for (const auto& each : timers) CHECK(wheel.pop_due(now) == each.get());
        CHECK(wheel.empty());

        timer_wheel unused;
        unused.arm(*timers[0]);
        CHECK(unused.earliest_ns() == 0);
        CHECK(unused.pop_due(0) == timers[0].get());
    }

    TEST_CASE(
        "never: armed, reported with a time that fits a signed count, and withdrawn at last") {
        timer_wheel wheel;
        const auto timers = make_timers({end_of_time, last_tick * tick + 1, last_tick * tick});
        for (const auto& each : timers) wheel.arm(*each);
        CHECK(wheel.earliest_ns() > end_of_time / 16);
        CHECK(wheel.earliest_ns() <= end_of_time / 2);
        CHECK(wheel.pop_due(end_of_time / 2) == nullptr);
        CHECK(wheel.pop_due(last_tick * tick - 1) == nullptr);
        CHECK(wheel.earliest_ns() <= end_of_time / 2);
        CHECK(wheel.pop_due(end_of_time) == timers[2].get());
        CHECK(wheel.pop_due(end_of_time) == nullptr);
        wheel.withdraw(*timers[0]);
        CHECK_FALSE(wheel.empty());
        wheel.withdraw(*timers[1]);
        CHECK(wheel.empty());
    }

    TEST_CASE(
        "any timer can be withdrawn: the first, the last, one within, the only one, one that is "
        "not armed") {
        for (const std::uint64_t apart :
             {std::uint64_t{0}, tick, 64 * tick, 4096 * tick})  // in one slot, in several
            for (std::size_t withdrawn = 0; withdrawn < 9; ++withdrawn) {
                CAPTURE(apart);
                CAPTURE(withdrawn);
                timer_wheel wheel;
                std::vector<std::uint64_t> deadlines(9);
                for (std::uint64_t i = 0; i < 9; ++i) deadlines[i] = 10'000 * tick + i * apart;
                const auto timers = make_timers(deadlines);
                for (const auto& each : timers) wheel.arm(*each);
                wheel.withdraw(*timers[withdrawn]);
                CHECK_FALSE(timers[withdrawn]->armed());
                wheel.withdraw(*timers[withdrawn]);
                for (std::size_t i = 0; i < 9; ++i)
                    if (i != withdrawn) CHECK(wheel.pop_due(deadlines[i]) == timers[i].get());
                CHECK(wheel.empty());
            }
        timer_wheel wheel;
        timer only;
        wheel.withdraw(only);
        wheel.arm(only);
        wheel.withdraw(only);
        CHECK(wheel.empty());
        CHECK(wheel.pop_due(end_of_time) == nullptr);
    }

    TEST_CASE(
        "a timer can be withdrawn after the wheel has moved it to a lower level, and when it is "
        "due") {
        timer_wheel wheel;
        const auto timers = make_timers({5000 * tick, 5001 * tick, 5001 * tick});
        for (const auto& each : timers) wheel.arm(*each);
        CHECK(wheel.pop_due(4999 * tick) == nullptr);
        wheel.withdraw(*timers[0]);
        CHECK(wheel.earliest_ns() == 5001 * tick);
        CHECK(wheel.pop_due(6000 * tick) == timers[1].get());
        wheel.withdraw(*timers[2]);
        CHECK(wheel.empty());
        CHECK(wheel.pop_due(6000 * tick) == nullptr);
    }

    TEST_CASE("a timer that fired or was withdrawn can be armed again") {
        timer_wheel wheel;
        timer again;
        for (std::uint64_t round = 1; round <= 100; ++round) {
            again.deadline_ns = round * round * tick;
            wheel.arm(again);
            if (round % 2 == 0) wheel.withdraw(again);
            CHECK((wheel.pop_due(again.deadline_ns) == &again) == (round % 2 == 1));
        }
    }

    TEST_CASE("while a timer fires, others may be armed and withdrawn, and it itself armed again") {
        timer_wheel wheel;
        const auto timers = make_timers({100 * tick, 100 * tick, 200 * tick, 300 * tick});
        timer& again = *timers[0];
        wheel.arm(again);
        wheel.arm(*timers[1]);
        wheel.arm(*timers[2]);
        constexpr std::uint64_t now = 250 * tick;
        CHECK(wheel.pop_due(now) == &again);
        wheel.withdraw(*timers[1]);
        again.deadline_ns = 150 * tick;
        wheel.arm(again);
        wheel.arm(*timers[3]);
        CHECK(wheel.pop_due(now) == &again);
        CHECK(wheel.pop_due(now) == timers[2].get());
        CHECK(wheel.pop_due(now) == nullptr);
        CHECK(wheel.pop_due(300 * tick) == timers[3].get());
    }

    TEST_CASE("the borders of the levels, seen from either side") {
        std::vector<std::uint64_t> borders;
        for (std::uint64_t power = 1; power <= last_tick / 64; power *= 64)
            borders.push_back(power * 64);
        for (const std::uint64_t border : borders)
            for (const std::uint64_t start :
                 {std::uint64_t{0}, std::uint64_t{1}, border / 2, border - 2, border - 1}) {
                CAPTURE(border);
                CAPTURE(start);
                timer_wheel wheel;
                CHECK(wheel.pop_due(start * tick) == nullptr);
                const auto timers =
                    make_timers({(border + 1) * tick, border * tick + 1, border * tick,
                                 border * tick - 1, (border - 1) * tick});
                for (const auto& each : timers) wheel.arm(*each);
                CHECK(wheel.pop_due((border - 1) * tick) == timers[4].get());
                CHECK(wheel.pop_due(border * tick - 1) == nullptr);
                CHECK(wheel.earliest_ns() ==
                      std::min(border * tick, end_of_time / 2 / tick * tick));
                CHECK(wheel.pop_due(border * tick) == timers[2].get());
                CHECK(wheel.pop_due(border * tick) == timers[3].get());
                CHECK(wheel.pop_due(border * tick) == nullptr);
                CHECK(wheel.pop_due((border + 1) * tick) == timers[0].get());
                CHECK(wheel.pop_due((border + 1) * tick) == timers[1].get());
                CHECK(wheel.empty());
            }
    }

    TEST_CASE("after hours of nothing the wheel is at once where the clock is") {
        constexpr std::uint64_t hour = 3'600'000'000'000;
        timer_wheel wheel;
        timer_wheel late;  // had something armed, in the far future, all the while
        timer far;
        far.deadline_ns = 1000 * hour;
        late.arm(far);
        for (timer_wheel* each : {&wheel, &late}) {
            for (const std::uint64_t now : {hour, 2 * hour, 500 * hour}) {
                CHECK(each->pop_due(now) == nullptr);
                timer soon;
                soon.deadline_ns = now + 3 * tick;
                each->arm(soon);
                CHECK(each->earliest_ns() > now);
                CHECK(each->earliest_ns() <= now + 4 * tick);
                CHECK(each->pop_due(now + 2 * tick) == nullptr);
                CHECK(each->pop_due(now + 4 * tick) == &soon);
            }
        }
        CHECK(late.pop_due(2000 * hour) == &far);
    }

    TEST_CASE("who calls only at the earliest time is called a few times a level, and never late") {
        timer_wheel wheel;
        timer one;
        one.deadline_ns = 3'600'000'000'000;
        wheel.arm(one);
        int calls = 0;
        std::uint64_t now = 0;
        do {
            REQUIRE(++calls <= 10);
            now = wheel.earliest_ns();
        } while (!wheel.pop_due(now));
        CHECK(now == tick_of(one.deadline_ns) * tick);
    }

    TEST_CASE("a clock that goes back disturbs nothing") {
        timer_wheel wheel;
        const auto timers = make_timers({10 * tick, 100 * tick, 10'000 * tick});
        CHECK(wheel.pop_due(90 * tick) == nullptr);
        for (const auto& each : timers) wheel.arm(*each);
        CHECK(wheel.pop_due(50 * tick) == nullptr);
        for (const auto& each : timers) CHECK(wheel.pop_due(10'000 * tick) == each.get());
    }

    TEST_CASE("stress: random arming, withdrawing and popping agrees with a sorted map") {
        constexpr unsigned seed = 20;
        MESSAGE("seed " << seed);
        std::mt19937_64 random(seed);
        constexpr std::uint64_t starts[] = {0, 4096 * tick - 1, 1'000'000'000'000'000,
                                            end_of_time / 2 - (tick << 20),
                                            end_of_time - (tick << 30)};
        for (const std::uint64_t start : starts) {
            CAPTURE(start);
            timer_wheel wheel;
            model expected;
            std::vector<timer> timers(60);
            std::uint64_t now = start;
            wheel.pop_due(now);
            expected.pop_due(now);
            for (int step = 0; step < 200'000; ++step) {
                timer& any = timers[random() % timers.size()];
                if (any.armed() && random() % 4 == 0) {
                    expected.withdraw(any);
                    wheel.withdraw(any);
                } else if (!any.armed()) {
                    const std::uint64_t distance = any_size(random, random() % 64 == 0 ? 64 : 36);
                    switch (random() % 16) {
                        case 0: any.deadline_ns = now - std::min(now, distance); break;
                        case 1: any.deadline_ns = timers[0].deadline_ns; break;
                        default:
                            any.deadline_ns = now + std::min(end_of_time - now, distance);
                            break;
                    }
                    expected.arm(any);
                    wheel.arm(any);
                } else {
                    if (random() % 2 == 0) {
                        const std::uint64_t passed =
                            any_size(random, random() % 1024 == 0 ? 42 : 28);
                        now += std::min(end_of_time - now, passed);
                    }
                    timer* due = wheel.pop_due(now);
                    if (due != expected.pop_due(now))
                        FAIL("step " << step << ": another timer fired");
                    if (due && (due->deadline_ns > now || due->armed()))
                        FAIL("step " << step << ": fired early");
                }
                if (wheel.empty() != expected.empty()) FAIL("step " << step << ": empty or not");
                if (!expected.empty() && !expected.allows_earliest(wheel.earliest_ns()))
                    FAIL("step " << step << ": earliest " << wheel.earliest_ns());
            }
            while (timer* due = wheel.pop_due(end_of_time))
                CHECK(due == expected.pop_due(end_of_time));
            for (timer& each : timers) wheel.withdraw(each);
            CHECK(wheel.empty());
        }
    }
}
