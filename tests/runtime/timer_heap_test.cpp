// SPDX-License-Identifier: MIT
#include "timer_heap.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <random>
#include <set>
#include <utility>
#include <vector>

using namespace tokengate::detail;

namespace {

std::vector<std::unique_ptr<timer>> make_timers(const std::vector<std::uint64_t>& deadlines) {
    std::vector<std::unique_ptr<timer>> made;
    for (const std::uint64_t deadline : deadlines) {
        made.push_back(std::make_unique<timer>());
        made.back()->deadline_ns = deadline;
    }
    return made;
}

std::vector<std::uint64_t> pop_all(timer_heap& heap) {
    std::vector<std::uint64_t> popped;
    while (timer* due = heap.pop_due(~std::uint64_t{0})) popped.push_back(due->deadline_ns);
    return popped;
}

}  // namespace

TEST_SUITE("timer heap") {
    TEST_CASE("timers come out in the order of their deadlines, and not before them") {
        timer_heap heap;
        const auto timers = make_timers({50, 10, 40, 20, 30});
        for (const auto& each : timers) heap.arm(*each);
        CHECK(heap.earliest_ns() == 10);
        CHECK(heap.pop_due(9) == nullptr);
        CHECK(heap.pop_due(20) == timers[1].get());
        CHECK(heap.pop_due(20) == timers[3].get());
        CHECK(heap.pop_due(20) == nullptr);
        CHECK(heap.earliest_ns() == 30);
        CHECK(pop_all(heap) == std::vector<std::uint64_t>{30, 40, 50});
        CHECK(heap.empty());
        for (const auto& each : timers) CHECK(each->place == timer::idle);
    }

    TEST_CASE("an empty heap has nothing due") {
        timer_heap heap;
        CHECK(heap.empty());
        CHECK(heap.pop_due(~std::uint64_t{0}) == nullptr);
    }

    TEST_CASE("equal deadlines all come out") {
        timer_heap heap;
        const auto timers = make_timers(std::vector<std::uint64_t>(100, 7));
        for (const auto& each : timers) heap.arm(*each);
        std::set<timer*> popped;
        while (timer* due = heap.pop_due(7)) popped.insert(due);
        CHECK(popped.size() == 100);
    }

    TEST_CASE("any timer can be withdrawn: the first, the last, one within, the only one, one that is not armed") {
        for (std::size_t withdrawn = 0; withdrawn < 9; ++withdrawn) {
            CAPTURE(withdrawn);
            timer_heap heap;
            const auto timers = make_timers({1, 9, 2, 8, 3, 7, 4, 6, 5});
            for (const auto& each : timers) heap.arm(*each);
            heap.withdraw(*timers[withdrawn]);
            CHECK(timers[withdrawn]->place == timer::idle);
            heap.withdraw(*timers[withdrawn]);
            std::vector<std::uint64_t> left;
            for (std::uint64_t deadline = 1; deadline <= 9; ++deadline)
                if (deadline != timers[withdrawn]->deadline_ns) left.push_back(deadline);
            CHECK(pop_all(heap) == left);
        }
        timer_heap heap;
        timer only;
        heap.withdraw(only);
        heap.arm(only);
        heap.withdraw(only);
        CHECK(heap.empty());
    }

    TEST_CASE("a timer that fired or was withdrawn can be armed again") {
        timer_heap heap;
        timer again;
        for (std::uint64_t deadline = 1; deadline <= 10; ++deadline) {
            again.deadline_ns = deadline;
            heap.arm(again);
            if (deadline % 2 == 0) heap.withdraw(again);
            CHECK((heap.pop_due(deadline) == &again) == (deadline % 2 == 1));
        }
    }

    TEST_CASE("stress: random arming, withdrawing and popping agrees with a sorted set") {
        constexpr unsigned seed = 20;
        MESSAGE("seed " << seed);
        std::mt19937 random(seed);
        timer_heap heap;
        std::vector<timer> timers(500);
        std::multiset<std::uint64_t> armed;
        for (int step = 0; step < 100'000; ++step) {
            timer& any = timers[random() % timers.size()];
            if (any.place != timer::idle && random() % 2 == 0) {
                armed.erase(armed.find(any.deadline_ns));
                heap.withdraw(any);
            } else if (any.place == timer::idle) {
                any.deadline_ns = random() % 1000;
                armed.insert(any.deadline_ns);
                heap.arm(any);
            } else {
                const std::uint64_t now = random() % 1000;
                timer* due = heap.pop_due(now);
                REQUIRE((due != nullptr) == (*armed.begin() <= now));
                if (!due) continue;
                REQUIRE(due->deadline_ns == *armed.begin());
                armed.erase(armed.begin());
            }
            REQUIRE(heap.empty() == armed.empty());
            if (!armed.empty()) REQUIRE(heap.earliest_ns() == *armed.begin());
        }
        CHECK(pop_all(heap) == std::vector<std::uint64_t>(armed.begin(), armed.end()));
    }
}
