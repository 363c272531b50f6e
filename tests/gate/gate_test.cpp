// SPDX-License-Identifier: MIT
#include "gate/gate.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <deque>
#include <random>
#include <thread>
#include <utility>
#include <vector>

using namespace tokengate;
using namespace tokengate::detail;

namespace {

struct numbered : hook {
    int number = 0;
};

/// Hooks with numbers, and the chains that tests put at the gate.
struct supply {
    std::deque<numbered> all;

    hook_queue chain(std::size_t count) {
        hook_queue made;
        for (std::size_t i = 0; i < count; ++i) {
            numbered& fresh = all.emplace_back();
            fresh.number = static_cast<int>(all.size());
            made.push(&fresh);
        }
        return made;
    }
    hook* one() { return chain(1).pop(); }
};

void put(gate& at, weight w, supply& from, std::size_t count) {
    hook_queue chain = from.chain(count);
    at.wait(w, chain, count);
    CHECK(chain.empty());
}

std::vector<int> take(gate& at, weight w, std::size_t most) {
    hook_queue taken;
    const std::size_t count = at.take(w, [&](std::size_t) { return most; }, taken);
    std::vector<int> numbers;
    while (!taken.empty()) numbers.push_back(static_cast<numbered*>(taken.pop())->number);
    CHECK(numbers.size() == count);
    return numbers;
}

using numbers = std::vector<int>;

}  // namespace

TEST_SUITE("gate") {
    TEST_CASE("what waits for a core leaves first in, first out, whole chains and parts of them") {
        gate at(4, {});
        supply from;
        put(at, weight::light, from, 3);
        put(at, weight::light, from, 1);
        put(at, weight::light, from, 4);
        CHECK(at.waiting(weight::light) == 8);
        CHECK(take(at, weight::light, 2) == numbers{1, 2});  // a part
        CHECK(take(at, weight::light, 3) ==
              numbers{3, 4});  // the rest, a whole; what does not fit behind them stays
        CHECK(take(at, weight::light, 0) == numbers{});
        CHECK(at.waiting(weight::light) == 4);
        put(at, weight::light, from, 2);
        CHECK(take(at, weight::light, 100) == numbers{5, 6, 7, 8, 9, 10});
        CHECK(at.waiting(weight::light) == 0);
        CHECK(take(at, weight::light, 100) == numbers{});
    }

    TEST_CASE("the classes do not see each other") {
        gate at(4, {});
        supply from;
        put(at, weight::heavy, from, 1);
        put(at, weight::medium, from, 1);
        put(at, weight::light, from, 1);
        CHECK(take(at, weight::medium, 10) == numbers{2});
        CHECK(take(at, weight::light, 10) == numbers{3});
        CHECK(take(at, weight::heavy, 10) == numbers{1});
    }

    TEST_CASE(
        "who takes decides under the mutex, from how many there are; nobody is asked when nothing "
        "waits") {
        gate at(4, {});
        supply from;
        hook_queue taken;
        std::size_t asked = 0;
        const auto half = [&](std::size_t there) {
            ++asked;
            return there / 2;
        };
        CHECK(at.take(weight::heavy, half, taken) == 0);
        CHECK(asked == 0);
        put(at, weight::heavy, from, 10);
        CHECK(at.take(weight::heavy, half, taken) == 5);
        CHECK(at.take(weight::heavy, half, taken) == 2);
        CHECK(asked == 2);
    }

    TEST_CASE(
        "more chains than there are descriptors: the ring of them grows, also while it is turned") {
        gate at(4, {});
        supply from;
        int next = 1;
        for (int i = 0; i < 50; ++i) put(at, weight::medium, from, 2);
        for (int i = 0; i < 35; ++i, next += 2)
            CHECK(take(at, weight::medium, 2) == numbers{next, next + 1});
        for (int i = 0; i < 1000; ++i)
            put(at, weight::medium, from, 1 + static_cast<std::size_t>(i) % 3);
        for (const int number : take(at, weight::medium, 1'000'000)) CHECK(number == next++);
        CHECK(next == static_cast<int>(from.all.size()) + 1);
    }

    TEST_CASE("permits: as many as the limit, then first come, first served") {
        gate at(4, {.slow = 2, .moderate = 1, .fast = 1, .insane = 1});
        supply from;
        CHECK(at.acquire(storage::slow, from.one()));
        CHECK(at.acquire(storage::slow, from.one()));
        hook* third = from.one();
        hook* fourth = from.one();
        CHECK_FALSE(at.acquire(storage::slow, third));
        CHECK_FALSE(at.acquire(storage::slow, fourth));
        CHECK(at.acquire(storage::moderate, from.one()));  // another tier
        CHECK(at.release(storage::slow) == third);
        CHECK(at.in_use(storage::slow) == 2);
        CHECK(at.release(storage::slow) == fourth);
        CHECK(at.release(storage::slow) == nullptr);
        CHECK(at.release(storage::slow) == nullptr);
        CHECK(at.in_use(storage::slow) == 0);
        CHECK(at.in_use(storage::moderate) == 1);
    }

    TEST_CASE("every tier has its own limit") {
        gate at(1, {});
        supply from;
        const std::array<std::pair<storage, int>, 4> limits{{{storage::slow, 10},
                                                             {storage::moderate, 25},
                                                             {storage::fast, 50},
                                                             {storage::insane, 70}}};
        for (const auto& [tier, limit] : limits) {
            for (int i = 0; i < limit; ++i) CHECK(at.acquire(tier, from.one()));
            CHECK_FALSE(at.acquire(tier, from.one()));
        }
    }

    TEST_CASE(
        "a permit taken by force may exceed the limit, and nothing more is admitted until it "
        "fits") {
        gate at(4, {.slow = 2, .moderate = 1, .fast = 1, .insane = 1});
        supply from;
        CHECK(at.acquire(storage::slow, from.one()));
        CHECK(at.acquire(storage::slow, from.one()));
        at.force(storage::slow);
        at.force(storage::slow);
        CHECK(at.in_use(storage::slow) == 4);
        hook* waiting = from.one();
        CHECK_FALSE(at.acquire(storage::slow, waiting));
        CHECK(at.release(storage::slow) == nullptr);
        CHECK(at.release(storage::slow) == nullptr);
        CHECK(at.in_use(storage::slow) == 2);
        CHECK(at.release(storage::slow) == waiting);
    }

    TEST_CASE("nobody passes who waits for a permit") {
        gate at(4, {.slow = 1, .moderate = 1, .fast = 1, .insane = 1});
        supply from;
        CHECK(at.acquire(storage::fast, from.one()));
        at.force(storage::fast);
        hook* first = from.one();
        CHECK_FALSE(at.acquire(storage::fast, first));
        CHECK(at.release(storage::fast) == nullptr);
        CHECK_FALSE(at.acquire(storage::fast, from.one()));
        CHECK(at.release(storage::fast) == first);
    }

    TEST_CASE("parked cores are found from the first of a range on, up to its end") {
        gate at(200, {});
        CHECK(at.find_parked(0, 200) == 200);
        at.set_parked(3, true);
        at.set_parked(64, true);
        at.set_parked(199, true);
        CHECK(at.find_parked(0, 200) == 3);
        CHECK(at.find_parked(3, 200) == 3);
        CHECK(at.find_parked(4, 200) == 64);
        CHECK(at.find_parked(65, 200) == 199);
        CHECK(at.find_parked(0, 3) == 3);
        CHECK(at.find_parked(4, 64) == 64);
        CHECK(at.find_parked(4, 65) == 64);
        at.set_parked(64, false);
        CHECK(at.find_parked(4, 200) == 199);
        at.set_parked(64, false);
        at.set_parked(199, false);
        CHECK(at.find_parked(4, 200) == 200);
        CHECK(at.find_parked(200, 200) == 200);
        CHECK(at.find_parked(0, 0) == 0);
    }

    TEST_CASE(
        "stress: many put chains and many take chunks; each hook comes out once, in its sender's "
        "order") {
        constexpr int senders = 3, takers = 3, chains = 400;
        gate at(8, {});
        std::vector<std::vector<numbered>> hooks(senders);
        std::atomic<int> sending{senders};
        std::vector<std::vector<std::vector<int>>> taken(takers,
                                                         std::vector<std::vector<int>>(senders));
        std::vector<std::thread> threads;
        constexpr unsigned seed = 21;
        MESSAGE("seed " << seed);
        for (int s = 0; s < senders; ++s) {
            hooks[s].resize(chains * 32);
            for (int i = 0; i < chains * 32; ++i) hooks[s][i].number = s << 20 | i;
            threads.emplace_back([&, s] {
                std::mt19937 random(seed + static_cast<unsigned>(s));
                std::size_t next = 0;
                for (int c = 0; c < chains; ++c) {
                    hook_queue chain;
                    const std::size_t count = 1 + random() % 32;
                    for (std::size_t i = 0; i < count; ++i) chain.push(&hooks[s][next++]);
                    at.wait(weight::heavy, chain, count);
                }
                hooks[s].resize(next);  // shrinks: nothing moves
                sending.fetch_sub(1);
            });
        }
        for (int t = 0; t < takers; ++t)
            threads.emplace_back([&, t] {
                std::mt19937 random(seed + 100 + static_cast<unsigned>(t));
                for (;;) {
                    const bool last_look = sending.load() == 0;
                    hook_queue some;
                    const std::size_t most = 1 + random() % 40;
                    if (at.take(
                            weight::heavy, [&](std::size_t) { return most; }, some) == 0 &&
                        last_look)
                        return;
                    while (!some.empty()) {
                        const int number = static_cast<numbered*>(some.pop())->number;
                        taken[t][number >> 20].push_back(number & 0xfffff);
                    }
                }
            });
        for (std::thread& each : threads) each.join();
        CHECK(at.waiting(weight::heavy) == 0);
        for (int s = 0; s < senders; ++s) {
            std::vector<int> all;
            for (int t = 0; t < takers; ++t) {
                CHECK(std::is_sorted(taken[t][s].begin(), taken[t][s].end()));
                all.insert(all.end(), taken[t][s].begin(), taken[t][s].end());
            }
            std::sort(all.begin(), all.end());
            CHECK(all.size() == hooks[s].size());
            CHECK(std::adjacent_find(all.begin(), all.end()) == all.end());
        }
    }

    TEST_CASE("stress: permits are never over the limit, and none is lost") {
        constexpr int threads = 4, rounds = 5000, limit = 3;
        gate at(8, {.slow = limit, .moderate = 1, .fast = 1, .insane = 1});
        std::atomic<int> holding{0}, most{0}, ended{0};
        const auto work =
            [&](auto& self) -> void {  // who holds a permit works, and hands it to who waits
            int now = ++holding;
            for (int seen = most.load(); seen < now && !most.compare_exchange_weak(seen, now);) {}
            --holding;
            ++ended;
            if (at.release(storage::slow)) self(self);
        };
        std::vector<std::vector<numbered>> hooks(threads, std::vector<numbered>(rounds));
        std::vector<std::thread> all;
        for (int t = 0; t < threads; ++t)
            all.emplace_back([&, t] {
                for (numbered& each : hooks[t])
                    if (at.acquire(storage::slow, &each)) work(work);
            });
        for (std::thread& each : all) each.join();
        CHECK(ended == threads * rounds);
        CHECK(most <= limit);
        CHECK(at.in_use(storage::slow) == 0);
    }

    TEST_CASE(
        "withdraw: those of a class, in order; what stays keeps its order, and is taken as "
        "before") {
        gate at(8, {});
        supply hooks;
        for (const std::size_t size : {1U, 5U, 3U, 1U, 40U}) put(at, weight::light, hooks, size);
        put(at, weight::heavy, hooks, 2);
        CHECK(at.waiting(weight::light) == 50);
        hook_queue gone;
        at.withdraw(weight::light, [](const hook*) { return false; }, gone);
        CHECK(gone.empty());
        CHECK(at.waiting(weight::light) == 50);
        at.withdraw(
            weight::light,
            [](const hook* each) { return static_cast<const numbered*>(each)->number <= 9; }, gone);
        numbers withdrawn;
        while (!gone.empty()) withdrawn.push_back(static_cast<numbered*>(gone.pop())->number);
        CHECK(withdrawn == numbers{1, 2, 3, 4, 5, 6, 7, 8, 9});  // whole chains
        CHECK(at.waiting(weight::light) == 41);
        at.withdraw(
            weight::light,
            [](const hook* each) { return static_cast<const numbered*>(each)->number % 2 == 0; },
            gone);
        CHECK(at.waiting(weight::light) == 20);
        CHECK(at.waiting(weight::heavy) == 2);
        CHECK(take(at, weight::light, 3) == numbers{11, 13, 15});
        put(at, weight::light, hooks, 2);  // 53, 54
        numbers rest;
        for (;;) {
            const numbers some = take(at, weight::light, 5);
            if (some.empty()) break;
            rest.insert(rest.end(), some.begin(), some.end());
        }
        numbers expected;
        for (int n = 17; n <= 49; n += 2) expected.push_back(n);
        expected.push_back(53);
        expected.push_back(54);
        CHECK(rest == expected);
        CHECK(at.waiting(weight::light) == 0);
        CHECK(take(at, weight::heavy, 5) == numbers{51, 52});
    }

    TEST_CASE("withdraw everything again and again: chains that are empty take no room") {
        gate at(8, {});
        supply hooks;
        for (int round = 0; round < 5000; ++round) {
            hook_queue chain = hooks.chain(1);
            at.wait(weight::medium, chain, 1);
            hook_queue gone;
            at.withdraw(weight::medium, [](const hook*) { return true; }, gone);
            CHECK_FALSE(gone.empty());
            CHECK(at.waiting(weight::medium) == 0);
        }
        CHECK(take(at, weight::medium, 10).empty());
        put(at, weight::medium, hooks, 3);
        CHECK(take(at, weight::medium, 10) == numbers{5001, 5002, 5003});
    }

    TEST_CASE("withdraw: those who wait for a permit; permits are not touched") {
        gate at(8, {.slow = 1, .moderate = 1, .fast = 1, .insane = 1});
        supply hooks;
        CHECK(at.acquire(storage::slow, hooks.one()));
        for (int i = 0; i < 6; ++i) CHECK_FALSE(at.acquire(storage::slow, hooks.one()));  // 2 … 7
        hook_queue gone;
        at.withdraw(storage::fast, [](const hook*) { return true; }, gone);
        CHECK(gone.empty());
        at.withdraw(
            storage::slow,
            [](const hook* each) { return static_cast<const numbered*>(each)->number % 2 == 0; },
            gone);
        numbers withdrawn;
        while (!gone.empty()) withdrawn.push_back(static_cast<numbered*>(gone.pop())->number);
        CHECK(withdrawn == numbers{2, 4, 6});
        CHECK(at.in_use(storage::slow) == 1);
        numbers served;
        while (hook* next = at.release(storage::slow))
            served.push_back(static_cast<numbered*>(next)->number);
        CHECK(served == numbers{3, 5, 7});
        CHECK(at.in_use(storage::slow) == 0);
    }
}
