// SPDX-License-Identifier: MIT
#include "routing/sticky_registry.hpp"

#include <tokengate/detail/frame_pool.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <barrier>
#include <memory>
#include <random>
#include <stdexcept>
#include <thread>
#include <vector>

using tokengate::detail::frame_pool;
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
            if (word_.compare_exchange_weak(seen,
                                            std::uint64_t{position} << 32 | (holders(seen) + 1)))
                return true;
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
outcome storm(unsigned threads, std::uint64_t keys, std::size_t held, int steps,
              std::uint64_t seed) {
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
        bool filling = true;
        for (int step = 0; step < steps; ++step) {
            // Fills up and empties again, so that tables grow and shrink.
            if (mine.size() == held || mine.empty()) filling = mine.empty();
            if (!mine.empty() && random() % 8 < (filling ? 3 : 5)) {
                give_back(random() % mine.size());
                continue;
            }
            std::uint64_t key = random() % keys;
            auto [of, was_there] =
                registry.acquire(key, [&] { return next_position.fetch_add(1); });
            (was_there ? redirected : fresh).fetch_add(1, std::memory_order_relaxed);
            if (!witnesses[key].enter(of->position())) broken.fetch_add(1);
            mine.push_back({key, of});
            if (random() % 8 == 0) std::this_thread::yield();  // others come and go meanwhile
        }
        while (!mine.empty()) give_back(mine.size() - 1);
    };

    std::vector<std::thread> team;
    for (unsigned thread = 0; thread < threads; ++thread) team.emplace_back(run, thread);
    for (std::thread& member : team) member.join();

    CHECK(registry.size() == 0);
    CHECK(fresh == next_position);  // nobody asks for a place in vain
    return {fresh, redirected, broken};
}

}  // namespace

TEST_CASE("sticky_registry: tokens of one key meet at one position") {
    sticky_registry registry;

    auto [first, first_redirected] = registry.acquire(7, at(3));
    CHECK(first->position() == 3);
    CHECK_FALSE(first_redirected);

    auto [second, second_redirected] =
        registry.acquire(7, []() -> unsigned { throw std::logic_error("not needed"); });
    CHECK(second == first);
    CHECK(second_redirected);

    auto [other, other_redirected] = registry.acquire(8, at(1));
    CHECK(other->position() == 1);
    CHECK_FALSE(other_redirected);
    CHECK(registry.size() == 2);

    for (pin* held : {first, second, other}) registry.release(held);
    CHECK(registry.size() == 0);
}

TEST_CASE(
    "sticky_registry: a pin lasts until the last token in flight, and the next one may go "
    "elsewhere") {
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
    sticky_registry registry;
    auto fails = []() -> unsigned { throw std::runtime_error("no core"); };

    CHECK_THROWS_AS(static_cast<void>(registry.acquire(7, fails)), std::runtime_error);
    CHECK(registry.size() == 0);
    auto [held, redirected] = registry.acquire(7, at(2));
    CHECK_FALSE(redirected);
    registry.release(held);
}

TEST_CASE("sticky_registry: keys that differ in one bit, and more keys than the table expects") {
    sticky_registry registry(16);
    std::vector<pin*> held;

    for (unsigned bit = 0; bit < 64; ++bit)
        held.push_back(registry.acquire(std::uint64_t{1} << bit, at(bit)).held);
    for (unsigned key = 5000; key < 7000; ++key)
        held.push_back(registry.acquire(key, at(key)).held);
    CHECK(registry.size() == 2064);
    for (unsigned bit = 0; bit < 64; ++bit) CHECK(held[bit]->position() == bit);
    for (unsigned key = 5000; key < 7000; ++key) CHECK(held[64 + key - 5000]->position() == key);
    for (pin* each : held) registry.release(each);
    CHECK(registry.size() == 0);
}

TEST_CASE("sticky_registry: the smallest table") {
    sticky_registry registry(0);
    pin* zero = registry.acquire(0, at(1)).held;
    pin* all = registry.acquire(~std::uint64_t{0}, at(2)).held;
    CHECK(zero->position() == 1);
    CHECK(all->position() == 2);
    registry.release(zero);
    registry.release(all);
    CHECK(registry.size() == 0);
}

TEST_CASE("sticky_registry: a place that throws where others are pinned leaves them alone") {
    sticky_registry registry;
    pin* held = registry.acquire(7, at(3)).held;
    auto fails = []() -> unsigned { throw std::runtime_error("no core"); };
    for (std::uint64_t key = 8; key < 5000; ++key)
        CHECK_THROWS_AS(static_cast<void>(registry.acquire(key, fails)), std::runtime_error);
    CHECK(registry.size() == 1);
    CHECK(registry.acquire(7, fails).held == held);
    registry.release(held);
    registry.release(held);
    CHECK(registry.size() == 0);
}

TEST_CASE("sticky_registry: a million keys in flight, and what is left of them") {
    constexpr std::uint64_t million = 1'000'000;
    const std::size_t slots_before = frame_pool::statistics().live_slots;
    sticky_registry registry;
    const std::size_t bytes_before = registry.table_bytes();
    std::vector<pin*> held(million);
    std::size_t bytes_of_a_burst = 0, mapped_by_a_burst = 0;

    for (int burst = 0; burst < 2; ++burst) {
        std::size_t wrong = 0;
        for (std::uint64_t key = 0; key < million; ++key) {
            auto [of, redirected] =
                registry.acquire(key * 0x1'0001, at(static_cast<unsigned>(key)));
            held[key] = of;
            wrong += redirected;
        }
        CHECK(registry.size() == million);
        for (std::uint64_t key = 0; key < million; key += 997) {
            auto [of, redirected] = registry.acquire(key * 0x1'0001, at(0));
            wrong += of != held[key] || !redirected || of->position() != static_cast<unsigned>(key);
            registry.release(of);
        }
        CHECK(wrong == 0);
        CHECK(registry.table_bytes() >= million * 8);  // no chain of many pins
        CHECK(registry.table_bytes() <= 4 * million * 8);
        CHECK(frame_pool::statistics().live_slots - slots_before == million);
        if (burst == 0) {
            bytes_of_a_burst = registry.table_bytes();
            mapped_by_a_burst = frame_pool::statistics().mapped_bytes;
        } else {
            CHECK(registry.table_bytes() == bytes_of_a_burst);
            CHECK(frame_pool::statistics().mapped_bytes <= mapped_by_a_burst);
        }

        for (pin* each : held) registry.release(each);
        CHECK(registry.size() == 0);
        CHECK(registry.table_bytes() == bytes_before);
        CHECK(frame_pool::statistics().live_slots == slots_before);
    }
}

TEST_CASE("sticky_registry: tables made for many keys do not grow, nor shrink below that") {
    sticky_registry registry(100'000);
    const std::size_t bytes = registry.table_bytes();
    CHECK(bytes >= 100'000 * 8);
    std::vector<pin*> held;
    for (unsigned key = 0; key < 50'000; ++key) held.push_back(registry.acquire(key, at(key)).held);
    CHECK(registry.table_bytes() == bytes);
    for (pin* each : held) registry.release(each);
    CHECK(registry.table_bytes() == bytes);
}

TEST_CASE("sticky_registry: with a steady number of keys in flight nothing is asked for") {
    sticky_registry registry;
    std::vector<pin*> held(10'000);
    std::uint64_t next = 0;
    for (pin*& each : held) each = registry.acquire(++next, at(1)).held;
    const std::size_t tables = registry.table_bytes();
    const auto [pools, slabs, mapped, live] = frame_pool::statistics();
    for (int turn = 0; turn < 50; ++turn)
        for (pin*& each : held) {
            registry.release(each);
            each = registry.acquire(++next, at(1)).held;
        }
    CHECK(registry.table_bytes() == tables);
    CHECK(frame_pool::statistics().slabs == slabs);
    CHECK(frame_pool::statistics().mapped_bytes == mapped);
    CHECK(frame_pool::statistics().live_slots == live);
    for (pin* each : held) registry.release(each);
}

TEST_CASE("sticky_registry: destroyed with pins still held") {
    for (int turn = 0; turn < 50; ++turn) {
        sticky_registry registry;
        for (unsigned key = 0; key < 20; ++key) static_cast<void>(registry.acquire(key, at(key)));
        CHECK(registry.size() == 20);
    }
}

TEST_CASE("sticky_registry: made, used and destroyed on different threads") {
    auto registry = std::make_unique<sticky_registry>();
    pin* held = nullptr;
    std::thread([&] {
        held = registry->acquire(1, at(1)).held;
        static_cast<void>(registry->acquire(2, at(1)));
    }).join();
    std::thread([&] { registry->release(held); }).join();
    CHECK(registry->size() == 1);
    registry.reset();
}

TEST_CASE("sticky_registry: threads and registries come and go") {
    for (int turn = 0; turn < 100; ++turn) {
        sticky_registry registry;
        std::vector<std::thread> team;
        for (unsigned thread = 0; thread < 4; ++thread)
            team.emplace_back([&, thread] {
                for (unsigned key = 0; key < 20; ++key)
                    registry.release(registry.acquire(key, at(thread)).held);
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

TEST_CASE("sticky_registry: stress: two keys, four threads, made and given up all the time") {
    outcome all = storm(4, 2, 1, 100'000, 20'260'105);
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

TEST_CASE("sticky_registry: stress: tables grow and shrink under four threads") {
    outcome all = storm(4, 100'000, 12'000, 200'000, 20'260'104);
    CHECK(all.broken == 0);
    CHECK(all.fresh > 0);
    CHECK(all.redirected > 0);
}
