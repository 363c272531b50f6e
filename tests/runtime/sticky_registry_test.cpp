// SPDX-License-Identifier: MIT
#include "sticky_registry.hpp"

#include <cds/gc/dhp.h>
#include <cds/init.h>
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <barrier>
#include <memory>
#include <random>
#include <stdexcept>
#include <thread>
#include <vector>

using tokengate::detail::cds_thread;
using tokengate::detail::pin;
using tokengate::detail::sticky_registry;

namespace {

auto at(unsigned position) {
    return [position] { return position; };
}

/// What every acquirer of a key must agree on: the position, for as long as anybody says that he holds it. Entered
/// after acquiring and left before releasing, so who finds somebody in there has an overlap that the registry must have
/// known.
class witness {
public:
    bool enter(unsigned position) {
        std::uint64_t seen = word_.load();
        for (;;) {
            if (holders(seen) != 0 && seen >> 32 != position) return false;
            if (word_.compare_exchange_weak(seen, std::uint64_t{position} << 32 | (holders(seen) + 1))) return true;
        }
    }
    void leave() { word_.fetch_sub(1); }

private:
    static std::uint32_t holders(std::uint64_t word) { return static_cast<std::uint32_t>(word); }

    std::atomic<std::uint64_t> word_{0};
};

struct outcome {
    std::uint64_t fresh = 0, redirected = 0, broken = 0;
};

/// `threads` take and give back pins of `keys` keys at random, each holding at most `held` at a time.
outcome storm(unsigned threads, std::uint64_t keys, std::size_t held, int steps, std::uint64_t seed,
              bool reattach = false) {
    struct holding {
        std::uint64_t key;
        pin* of;
    };

    MESSAGE("seed ", seed);
    sticky_registry registry;
    std::vector<witness> witnesses(keys);
    std::atomic<unsigned> next_position{0};
    std::atomic<std::uint64_t> fresh{0}, redirected{0}, broken{0};
    std::barrier start(static_cast<std::ptrdiff_t>(threads));

    auto run = [&](unsigned thread) {
        std::mt19937_64 random(seed + thread);
        std::vector<holding> mine;
        auto give_back = [&](std::size_t which) {
            std::swap(mine[which], mine.back());
            witnesses[mine.back().key].leave();
            registry.release(mine.back().of);
            mine.pop_back();
        };

        start.arrive_and_wait();
        for (int round = 0; round < (reattach ? steps / 50 : 1); ++round) {
            cds_thread attached;
            for (int step = 0; step < (reattach ? 50 : steps); ++step) {
                if (mine.size() == held || (!mine.empty() && random() % 2 == 0)) {
                    give_back(random() % mine.size());
                    continue;
                }
                std::uint64_t key = random() % keys;
                auto [of, was_there] = registry.acquire(key, [&] { return next_position.fetch_add(1); });
                (was_there ? redirected : fresh).fetch_add(1, std::memory_order_relaxed);
                if (!witnesses[key].enter(of->position())) broken.fetch_add(1);
                mine.push_back({key, of});
                if (random() % 8 == 0) std::this_thread::yield();  // others come and go meanwhile
            }
            while (!mine.empty()) give_back(mine.size() - 1);
        }
    };

    std::vector<std::thread> team;
    for (unsigned thread = 0; thread < threads; ++thread) team.emplace_back(run, thread);
    for (std::thread& member : team) member.join();

    CHECK(registry.size() == 0);
    CHECK(fresh <= next_position);  // a place that came too late was asked for, and dropped
    return {fresh, redirected, broken};
}

}  // namespace

TEST_CASE("sticky_registry: tokens of one key meet at one position") {
    cds_thread attached;
    sticky_registry registry;

    auto [first, first_redirected] = registry.acquire(7, at(3));
    CHECK(first->position() == 3);
    CHECK_FALSE(first_redirected);

    auto [second, second_redirected] = registry.acquire(7, []() -> unsigned { throw std::logic_error("not needed"); });
    CHECK(second == first);
    CHECK(second_redirected);

    auto [other, other_redirected] = registry.acquire(8, at(1));
    CHECK(other->position() == 1);
    CHECK_FALSE(other_redirected);
    CHECK(registry.size() == 2);

    for (pin* held : {first, second, other}) registry.release(held);
    CHECK(registry.size() == 0);
}

TEST_CASE("sticky_registry: a pin lasts until the last token in flight, and the next one may go elsewhere") {
    cds_thread attached;
    sticky_registry registry;

    pin* first = registry.acquire(7, at(3)).held;
    pin* second = registry.acquire(7, at(4)).held;
    registry.release(first);
    CHECK(registry.size() == 1);
    pin* third = registry.acquire(7, at(5)).held;
    CHECK(third->position() == 3);
    registry.release(second);
    registry.release(third);
    CHECK(registry.size() == 0);

    auto [next, redirected] = registry.acquire(7, at(6));
    CHECK(next->position() == 6);
    CHECK_FALSE(redirected);
    registry.release(next);
}

TEST_CASE("sticky_registry: a place that throws leaves nothing behind") {
    cds_thread attached;
    sticky_registry registry;
    auto fails = []() -> unsigned { throw std::runtime_error("no core"); };

    CHECK_THROWS_AS(static_cast<void>(registry.acquire(7, fails)), std::runtime_error);
    CHECK(registry.size() == 0);
    auto [held, redirected] = registry.acquire(7, at(2));
    CHECK_FALSE(redirected);
    registry.release(held);
}

TEST_CASE("sticky_registry: keys that differ in one bit, and more keys than the table expects") {
    cds_thread attached;
    sticky_registry registry(16);
    std::vector<pin*> held;

    for (unsigned bit = 0; bit < 64; ++bit) held.push_back(registry.acquire(std::uint64_t{1} << bit, at(bit)).held);
    for (unsigned key = 5000; key < 7000; ++key) held.push_back(registry.acquire(key, at(key)).held);
    CHECK(registry.size() == 2064);
    for (unsigned bit = 0; bit < 64; ++bit) CHECK(held[bit]->position() == bit);
    for (unsigned key = 5000; key < 7000; ++key) CHECK(held[64 + key - 5000]->position() == key);
    for (pin* each : held) registry.release(each);
    CHECK(registry.size() == 0);
}

TEST_CASE("sticky_registry: the smallest table") {
    cds_thread attached;
    sticky_registry registry(0);
    pin* zero = registry.acquire(0, at(1)).held;
    pin* all = registry.acquire(~std::uint64_t{0}, at(2)).held;
    CHECK(zero->position() == 1);
    CHECK(all->position() == 2);
    registry.release(zero);
    registry.release(all);
    CHECK(registry.size() == 0);
}

TEST_CASE("sticky_registry: pins are used again") {
    cds_thread attached;
    sticky_registry registry;
    std::vector<pin*> seen;
    for (unsigned turn = 0; turn < 10'000; ++turn) {
        pin* held = registry.acquire(turn, at(turn)).held;
        CHECK(held->position() == turn);
        if (std::find(seen.begin(), seen.end(), held) == seen.end()) seen.push_back(held);
        registry.release(held);
    }
    CHECK(seen.size() < 2'000);  // what libcds lets wait for its next scan, here and in registries before
}

TEST_CASE("sticky_registry: destroyed with pins still held") {
    cds_thread attached;
    for (int turn = 0; turn < 50; ++turn) {
        sticky_registry registry;
        for (unsigned key = 0; key < 20; ++key) static_cast<void>(registry.acquire(key, at(key)));
        CHECK(registry.size() == 20);
    }
}

TEST_CASE("sticky_registry: destroyed on a thread that is not attached") {
    auto registry = std::make_unique<sticky_registry>();
    std::thread([&] {
        cds_thread attached;
        static_cast<void>(registry->acquire(1, at(1)));
    }).join();
    registry.reset();
}

TEST_CASE("cds_thread: nests, within an attachment of the application's and around one") {
    sticky_registry registry;
    auto works = [&] {
        auto [held, redirected] = registry.acquire(5, at(1));
        registry.release(held);
        return !redirected;
    };

    std::thread([&] {
        cds_thread outer;
        { cds_thread inner; }
        CHECK(works());
        cds::threading::Manager::attachThread();
        cds::threading::Manager::detachThread();
        CHECK(works());
    }).join();

    std::thread([&] {
        cds::threading::Manager::attachThread();
        { cds_thread attached; }
        CHECK(cds::threading::Manager::isThreadAttached());
        CHECK(works());
        cds::threading::Manager::detachThread();
        CHECK_FALSE(cds::threading::Manager::isThreadAttached());
    }).join();
}

TEST_CASE("cds_thread: threads and registries come and go") {
    for (int turn = 0; turn < 100; ++turn) {
        sticky_registry registry;
        std::vector<std::thread> team;
        for (unsigned thread = 0; thread < 4; ++thread)
            team.emplace_back([&, thread] {
                cds_thread attached;
                for (unsigned key = 0; key < 20; ++key) registry.release(registry.acquire(key, at(thread)).held);
            });
        for (std::thread& member : team) member.join();
        CHECK(registry.size() == 0);
    }
}

TEST_CASE("sticky_registry: stress: one key, always at the edge of zero") {
    outcome all = storm(2, 1, 1, 100'000, 20'260'101);
    CHECK(all.broken == 0);
    CHECK(all.fresh > 0);
}

TEST_CASE("sticky_registry: stress: few keys, eight threads") {
    outcome all = storm(8, 3, 2, 30'000, 20'260'102);
    CHECK(all.broken == 0);
    CHECK(all.fresh > 0);
    CHECK(all.redirected > 0);
}

TEST_CASE("sticky_registry: stress: many keys, eight threads, many held") {
    outcome all = storm(8, 5'000, 300, 30'000, 20'260'103);
    CHECK(all.broken == 0);
    CHECK(all.fresh > 0);
    CHECK(all.redirected > 0);
}

TEST_CASE("sticky_registry: stress: threads attach and detach in between") {
    outcome all = storm(8, 20, 4, 10'000, 20'260'104, true);
    CHECK(all.broken == 0);
    CHECK(all.fresh > 0);
}
