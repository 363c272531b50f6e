// SPDX-License-Identifier: MIT
#include "routing/router.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <barrier>
#include <cstdint>
#include <deque>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <set>
#include <stdexcept>
#include <thread>
#include <vector>

using namespace tokengate;
using namespace tokengate::detail;

namespace {

constexpr std::array every_weight{weight::heavy, weight::medium, weight::light};

std::vector<unsigned> route_many(router& routes, weight w, unsigned count) {
    std::vector<unsigned> to;
    for (unsigned i = 0; i < count; ++i) to.push_back(routes.route(w));
    return to;
}

std::vector<unsigned> place_many(router& routes, weight w, unsigned count) {
    std::vector<unsigned> to;
    for (unsigned i = 0; i < count; ++i) to.push_back(routes.place(w));
    return to;
}

void publish_all(router& routes, unsigned positions) {
    for (unsigned p = 0; p < positions; ++p) routes.publish(p);
}

/// Fills a position up to `occupied` as if another loop had routed there.
void occupy(load_table& loads, unsigned position, unsigned occupied) {
    loads.take(position, occupied);
}

using positions = std::vector<unsigned>;

}  // namespace

TEST_SUITE("router") {
    TEST_CASE("the window is 200 µs of work, between 8 and 2048 tokens") {
        static_assert(window_for(0) == 32);
        static_assert(window_for(1) == 2048);
        static_assert(window_for(97) == 2048);
        static_assert(window_for(100) == 2000);
        static_assert(window_for(10'000) == 20);
        static_assert(window_for(25'000) == 8);
        static_assert(window_for(std::numeric_limits<std::uint64_t>::max()) == 8);
        CHECK(window_for(1'000) == 200);
    }

    TEST_CASE("home ranges, and how they fold on few cores") {
        static_assert(first_home_core(weight::light, 1) == 0);
        static_assert(first_home_core(weight::medium, 1) == 0);
        static_assert(first_home_core(weight::light, 2) == 1);
        static_assert(first_home_core(weight::medium, 2) == 1);
        static_assert(first_home_core(weight::light, 3) == 2);
        for (unsigned cores : {1u, 2u, 3u, 4u, 5u, 6u, 7u, 8u, 256u})
            for (unsigned workers : {1u, 2u, 3u}) {
                CAPTURE(cores);
                CAPTURE(workers);
                core_layout layout{cores, workers};
                load_table loads(layout);
                router routes(loads, 0, spill::never);
                for (weight w : every_weight) {
                    unsigned first = first_home_core(w, cores);
                    for (unsigned p = 0; p < layout.positions(); ++p)
                        REQUIRE(routes.may_serve(p, w) == (p / workers >= first));
                    positions got = route_many(routes, w, (cores - first) * workers);
                    std::set<unsigned> different(got.begin(), got.end());
                    REQUIRE(different.size() == got.size());  // each position of the range once …
                    REQUIRE(*different.begin() == first * workers);
                    REQUIRE(*different.rbegin() == layout.positions() - 1);  // … and no other
                }
            }
    }

    TEST_CASE("a table has 1 … 1024 positions") {
        CHECK_THROWS_AS(load_table({0, 1}), std::length_error);
        CHECK_THROWS_AS(load_table({1, 0}), std::length_error);
        CHECK_THROWS_AS(load_table({1025, 1}), std::length_error);
        load_table loads({512, 2});
        router routes(loads, 512);
        CHECK(routes.route(weight::heavy) == 0);
        CHECK(routes.route(weight::light) == 1018);
    }

    TEST_CASE("heavy and medium go forward from their front, light backward from the back") {
        load_table loads({5, 1});
        router routes(loads, 0);
        CHECK(route_many(routes, weight::heavy, 6) == positions{0, 1, 2, 3, 4, 0});
        CHECK(route_many(routes, weight::medium, 5) == positions{1, 2, 3, 4, 1});
        CHECK(route_many(routes, weight::light, 4) == positions{4, 3, 2, 4});
        CHECK(routes.pending(4) == 4);
        CHECK(place_many(routes, weight::light, 2) == positions{3, 2});  // the same turn
        CHECK(routes.pending(3) == 3);                                   // but not counted
    }

    TEST_CASE("a second worker's turn comes after every core has had one") {
        load_table loads({3, 2});
        router routes(loads, 0);
        CHECK(route_many(routes, weight::heavy, 7) == positions{0, 2, 4, 1, 3, 5, 0});
        CHECK(route_many(routes, weight::medium, 5) == positions{2, 4, 3, 5, 2});
        CHECK(route_many(routes, weight::light, 3) == positions{4, 5, 4});
    }

    TEST_CASE("each loop begins somewhere else") {
        for (unsigned cores : {4u, 70u}) {
            load_table loads({cores, 1});
            std::array<std::vector<unsigned>, 3> begun;
            for (auto& b : begun) b.resize(cores);
            for (unsigned loop = 0; loop <= cores; ++loop) {
                router routes(loads, loop);
                for (weight w : every_weight) ++begun[static_cast<std::size_t>(w)][routes.place(w)];
            }
            for (weight w : every_weight)
                for (unsigned p = first_home_core(w, cores); p < cores; ++p) {
                    unsigned n = begun[static_cast<std::size_t>(w)][p];
                    CHECK(n >= 1);
                    CHECK(n <= (w == weight::heavy ? 2 : 3));
                }
        }
    }

    TEST_CASE("a full position loses its turn, and gets it back when half its window is free") {
        load_table loads({4, 1});
        router routes(loads, 0, spill::never);
        occupy(loads, 1, 32);
        CHECK(route_many(routes, weight::heavy, 4) == positions{0, 2, 3, 0});
        CHECK_FALSE(loads.has_room(1));
        loads.started(1, 15);
        loads.publish_room(1);
        CHECK_FALSE(loads.has_room(1));  // 17 of 32
        CHECK(route_many(routes, weight::heavy, 2) == positions{2, 3});
        loads.started(1, 1);
        loads.publish_room(1);
        CHECK(loads.has_room(1));
        CHECK(route_many(routes, weight::heavy, 3) == positions{0, 1, 2});
    }

    TEST_CASE("a window is filled to the last place, and the rest stays at the gate") {
        load_table loads({2, 1});
        router routes(loads, 0, spill::never);
        for (unsigned i = 0; i < 32; ++i) REQUIRE(routes.route(weight::light) == 1);
        CHECK(routes.route(weight::light) == router::no_room);
        CHECK(routes.pending(1) == 32);
        CHECK(loads.has_room(1));  // full for this router only: nothing was published
        CHECK(loads.occupancy(1) == 0);
        routes.publish(1);
        CHECK(routes.pending(1) == 0);
        CHECK(loads.occupancy(1) == 32);
        CHECK(routes.route(weight::light) == router::no_room);
        CHECK_FALSE(loads.has_room(1));
        CHECK(routes.place(weight::light) == 1);  // anchored tokens do not ask for room
        CHECK(loads.occupancy(1) == 32);
        loads.set_window(1, 80);
        loads.publish_room(1);
        CHECK(routes.route(weight::light) == 1);
        CHECK(loads.free(1) == 48);
    }

    TEST_CASE("what is pending in a loop counts for its own decisions, then for everybody's") {
        load_table loads({1, 1});
        router one(loads, 0), other(loads, 1);
        loads.set_window(0, 8);
        CHECK(route_many(one, weight::heavy, 9) ==
              positions{0, 0, 0, 0, 0, 0, 0, 0, router::no_room});
        CHECK(other.route(weight::heavy) == 0);  // overbooks
        one.publish(0);
        other.publish(0);
        CHECK(loads.occupancy(0) == 9);
        CHECK(loads.free(0) == -1);
        CHECK(other.route(weight::heavy) == router::no_room);
        loads.started(0, 9);
        loads.publish_room(0);
        CHECK(one.route(weight::heavy) == 0);
    }

    TEST_CASE("a loop may start what it routed to itself before it publishes") {
        load_table loads({1, 1});
        router routes(loads, 0);
        CHECK(routes.route(weight::heavy) == 0);
        loads.started(0, 1);
        loads.publish_room(0);
        CHECK(loads.occupancy(0) == -1);
        CHECK(routes.route(weight::heavy) == 0);
        routes.publish(0);
        CHECK(loads.occupancy(0) == 1);
    }

    TEST_CASE("counts wrap") {
        load_table loads({1, 1});
        loads.take(0, 0xffff'fff0u);
        loads.started(0, 0xffff'fff0u);
        loads.take(0, 32);
        CHECK(loads.occupancy(0) == 32);
        loads.started(0, 30);
        CHECK(loads.occupancy(0) == 2);
        CHECK(loads.half_free(0) == 15);
    }

    TEST_CASE(
        "spill: only while every position of the range is full, only to one with half its window "
        "free") {
        load_table loads({4, 1});
        for (unsigned p = 0; p < 4; ++p) loads.set_window(p, 8);
        router routes(loads, 0);
        occupy(loads, 2, 8);
        occupy(loads, 3, 7);
        CHECK(routes.route(weight::light) == 3);  // the last place at home
        CHECK(routes.may_help(0, weight::light));
        CHECK(routes.may_help(1, weight::light));
        CHECK_FALSE(routes.may_help(2, weight::light));  // home
        CHECK_FALSE(routes.may_help(0, weight::heavy));  // everything is home
        // While at least half is free before each: five go to either.
        CHECK(route_many(routes, weight::light, 11) ==
              positions{0, 1, 0, 1, 0, 1, 0, 1, 0, 1, router::no_room});
        CHECK_FALSE(routes.may_help(0, weight::light));
        CHECK(routes.place(weight::light) == 2);  // anchored tokens stay home
        publish_all(routes, 4);
        CHECK(loads.occupancy(0) == 5);
        CHECK(loads.half_free(0) == 0);
        CHECK(routes.route(weight::light) == router::no_room);
        CHECK(routes.route(weight::medium) == 1);  // at home the rest of the window may be used
        loads.started(0, 1);
        CHECK(routes.may_help(0, weight::light));
        CHECK(routes.route(weight::light) == 0);
        CHECK(routes.route(weight::light) == router::no_room);
        loads.started(3, 4);
        loads.publish_room(3);
        CHECK(routes.route(weight::light) == 3);
    }

    TEST_CASE("spill::never: a class waits for its range") {
        load_table loads({3, 1});
        router routes(loads, 0, spill::never);
        occupy(loads, 2, 32);
        CHECK(routes.route(weight::light) == router::no_room);
        CHECK_FALSE(routes.may_help(0, weight::light));
        CHECK_FALSE(routes.may_help(1, weight::light));
        CHECK(routes.place(weight::light) == 2);
    }

    TEST_CASE("a position that was full takes no spilled tokens before its owner says so") {
        load_table loads({2, 1});
        router routes(loads, 0);
        occupy(loads, 0, 32);
        occupy(loads, 1, 32);
        CHECK(routes.route(weight::heavy) == router::no_room);
        loads.started(0, 16);
        CHECK(routes.route(weight::light) == router::no_room);
        loads.publish_room(0);
        CHECK(routes.route(weight::light) == 0);
    }

    TEST_CASE("on one core everything is home, on two light and medium spill to the first") {
        load_table one({1, 1}), two({2, 1});
        router on_one(one, 0), on_two(two, 1);
        for (weight w : every_weight) CHECK(on_one.route(w) == 0);
        occupy(two, 1, 32);
        CHECK(on_two.route(weight::light) == 0);
        CHECK(on_two.route(weight::medium) == 0);
    }

    TEST_CASE("anchored tokens keep their turn when nothing has room") {
        load_table loads({4, 1});
        for (unsigned p = 0; p < 4; ++p) occupy(loads, p, 40);
        router routes(loads, 0);
        CHECK(place_many(routes, weight::medium, 4) == positions{1, 2, 3, 1});
        CHECK(place_many(routes, weight::light, 3) == positions{3, 2, 3});
        loads.started(2, 30);
        loads.publish_room(2);
        CHECK(place_many(routes, weight::medium, 2) == positions{2, 2});
    }

    TEST_CASE("who has nothing to run goes before the others, once until that is published") {
        load_table loads({4, 1});
        router routes(loads, 0);
        loads.starves(2, false);
        CHECK(route_many(routes, weight::heavy, 3) == positions{2, 3, 0});
        routes.publish(2);
        CHECK(routes.route(weight::heavy) == 2);
        routes.forget_fed(2);  // it was not handed over after all
        CHECK(routes.route(weight::heavy) == 2);
        routes.forget_fed();
        CHECK(routes.route(weight::heavy) == 2);
        CHECK(loads.fed(2));
        CHECK_FALSE(loads.fed(2));  // one of them is told
        routes.publish(2);
        CHECK(route_many(routes, weight::heavy, 3) == positions{3, 0, 1});
    }

    TEST_CASE(
        "those that have nothing to run are counted in each class that they are at home in, once") {
        load_table loads(
            {4,
             2});  // positions 0, 1 are core 0's; heavy is at home everywhere, light from core 2 on
        const auto counts = [&] {
            return std::array{loads.hungry_in(weight::heavy).load(),
                              loads.hungry_in(weight::medium).load(),
                              loads.hungry_in(weight::light).load()};
        };
        using three = std::array<std::uint32_t, 3>;
        CHECK(counts() == three{0, 0, 0});
        loads.starves(1, false);
        CHECK(counts() == three{1, 0, 0});
        loads.starves(1, true);  // no longer awake
        loads.starves(2, true);
        loads.starves(7, false);
        CHECK(counts() == three{3, 2, 1});
        loads.starves(8, true);  // the control loop runs no tokens
        CHECK(counts() == three{3, 2, 1});
        for (const unsigned at : {8U, 2U, 2U, 0U}) loads.fed(at);
        CHECK(counts() == three{2, 1, 1});
        loads.fed(7);
        loads.fed(1);
        CHECK(counts() == three{0, 0, 0});
    }

    TEST_CASE("one that is awake before one that sleeps; and none outside the home range") {
        load_table loads({4, 1});
        router routes(loads, 0);
        loads.starves(1, true);
        loads.starves(3, false);
        CHECK(route_many(routes, weight::heavy, 3) == positions{3, 1, 2});
        publish_all(routes, 4);
        loads.fed(1);
        loads.fed(3);
        loads.starves(0, false);
        CHECK(route_many(routes, weight::light, 2) == positions{3, 2});
        CHECK_FALSE(routes.hungry_but(weight::light, 3));
        CHECK(routes.hungry_but(weight::heavy, 3));
        CHECK_FALSE(routes.hungry_but(weight::heavy, 0));
    }

    TEST_CASE(
        "who sleeps is told from the back, until one has heard; the watchful only by those of "
        "their range") {
        load_table loads({4, 1});
        router routes(loads, 0);
        const auto told = [&](weight w, unsigned but) {
            positions all;
            CHECK_FALSE(routes.tell_sleepers(w, but, [&](unsigned at) {
                all.push_back(at);
                return false;
            }));
            return all;
        };
        const auto told_anywhere = [&](unsigned but) {
            positions all;
            CHECK_FALSE(routes.tell_sleepers_anywhere(but, [&](unsigned at) {
                all.push_back(at);
                return false;
            }));
            return all;
        };
        CHECK(told_anywhere(0).empty());
        for (const unsigned at : {0U, 2U, 3U, 4U})
            loads.starves(at, true);  // 4 is the control loop: it runs no tokens
        loads.starves(1, false);
        CHECK(loads.starving(4));
        CHECK(told(weight::heavy, 3) == positions{2, 0});
        CHECK(told(weight::light, 0) == positions{3, 2});
        CHECK(told_anywhere(2) == positions{3, 0});
        unsigned heard = 0;
        CHECK(routes.tell_sleepers(weight::heavy, 1, [&](unsigned at) {
            heard = at;
            return at == 2;
        }));
        CHECK(heard == 2);
        loads.looks_again(3);
        CHECK(told_anywhere(2) == positions{0});
        CHECK(told(weight::light, 0) == positions{3, 2});
        loads.starves(3, true);  // it has looked, and sleeps on
        CHECK(told_anywhere(2) == positions{3, 0});
        loads.fed(3);
        CHECK(told(weight::light, 0) == positions{2});
    }

    TEST_CASE("chunks shrink with what waits, and never exceed the room") {
        load_table loads({4, 1});
        router routes(loads, 0);
        CHECK(routes.chunk(0, weight::heavy, 0) == 0);
        CHECK(routes.chunk(1, weight::heavy, 0) == 1);
        CHECK(routes.chunk(15, weight::heavy, 0) == 1);
        CHECK(routes.chunk(16, weight::heavy, 0) == 2);
        CHECK(routes.chunk(16, weight::light, 3) == 4);  // ÷ (2 × 2 positions)
        CHECK(routes.chunk(16, weight::medium, 3) == 2);
        CHECK(routes.chunk(1'000'000, weight::heavy, 0) == 32);
        loads.set_window(0, 2048);
        CHECK(routes.chunk(1'000'000, weight::heavy, 0) == 32);
        loads.set_window(0, 8);
        CHECK(routes.chunk(1'000'000, weight::heavy, 0) == 8);
        CHECK(routes.chunk(1'000'000, weight::light, 0) == 5);  // spilled: while half is free
        occupy(loads, 0, 3);
        CHECK(routes.route(weight::heavy) == 0);
        CHECK(routes.chunk(1'000'000, weight::heavy, 0) == 4);
        CHECK(routes.chunk(1'000'000, weight::light, 0) == 1);
        occupy(loads, 0, 30);
        CHECK(routes.chunk(1'000'000, weight::heavy, 0) == 1);
    }

    TEST_CASE("every decision of a random history agrees with a plain model") {
        constexpr std::uint32_t seed = 20250817;
        MESSAGE("seed " << seed);
        std::mt19937 random(seed);
        for (core_layout layout : {core_layout{1, 1}, {2, 1}, {3, 2}, {8, 1}, {70, 1}, {40, 3}}) {
            CAPTURE(layout.cores);
            unsigned n = layout.positions();
            load_table loads(layout);
            router routes(loads, 0, spill::never);
            std::vector<unsigned> queued(n), window(n, 32);
            std::vector<char> shut(n);  // found full, and not yet run down by half
            std::array<unsigned, 3> cursor{layout.cores - 1,
                                           first_home_core(weight::medium, layout.cores), 0};
            for (unsigned step = 0; step < 30'000; ++step) {
                unsigned p = static_cast<unsigned>(random() % n);
                if (random() % 16 == 0) {
                    window[p] = window_for(random() % 30'000);
                    loads.set_window(p, window[p]);
                }
                if (random() % 32 == 0) {
                    unsigned some = std::min(queued[p], static_cast<unsigned>(random() % 64));
                    queued[p] -= some;
                    loads.started(p, some);
                    loads.publish_room(p);
                    if (queued[p] <= window[p] / 2) shut[p] = false;
                }
                weight w = every_weight[random() % 3];
                unsigned& at = cursor[static_cast<std::size_t>(w)];
                unsigned expected = router::no_room;
                for (unsigned i = 0; i < n && expected == router::no_room; ++i) {
                    unsigned turn = (w == weight::light ? at + n - i : at + i) % n;
                    unsigned to =
                        turn % layout.cores * layout.workers_per_core + turn / layout.cores;
                    if (turn % layout.cores < first_home_core(w, layout.cores)) continue;
                    if (queued[to] >= window[to]) shut[to] = true;
                    if (shut[to]) continue;
                    expected = to;
                    at = (w == weight::light ? turn + n - 1 : turn + 1) % n;
                }
                REQUIRE(routes.route(w) == expected);
                if (expected == router::no_room) continue;
                ++queued[expected];
                routes.publish(expected);
            }
            for (unsigned p = 0; p < n; ++p)
                REQUIRE(loads.occupancy(p) == static_cast<int>(queued[p]));
        }
    }

    TEST_CASE("balance: mixed weights, N + 1 routers at once, cores equally drained") {
        constexpr std::uint32_t seed = 4711;
        MESSAGE("seed " << seed);
        constexpr unsigned drained = 8;  // a core and round
        for (core_layout layout :
             {core_layout{2, 1}, {3, 1}, {4, 1}, {8, 1}, {16, 2}, {64, 1}, {256, 1}}) {
            CAPTURE(layout.cores);
            unsigned n = layout.positions();
            load_table loads(layout);
            std::deque<router> routes;
            for (unsigned loop = 0; loop <= n; ++loop) routes.emplace_back(loads, loop);
            std::mt19937 random(seed);
            std::array<std::size_t, 3> waiting{};
            std::vector<std::uint64_t> queued(n), load(n);

            std::uint64_t offered = 0, ended = 0;
            for (unsigned round = 0; round < 400 || ended < offered; ++round) {
                if (round < 400)
                    for (router& r : routes) {
                        for (unsigned i = 0; i < drained; ++i, ++offered) {
                            weight w = every_weight[random() % 3];
                            std::size_t& line = waiting[static_cast<std::size_t>(w)];
                            unsigned to = line != 0 ? router::no_room : r.route(w);
                            if (to == router::no_room)
                                ++line;
                            else
                                ++queued[to];
                        }
                        publish_all(r, n);
                    }
                for (unsigned p = 0; p < n; ++p) {
                    router& own = routes[p + 1];
                    auto pull = [&](weight w) {
                        std::size_t& line = waiting[static_cast<std::size_t>(w)];
                        if (line == 0 || loads.half_free(p) <= 0) return false;
                        if (!own.may_serve(p, w) && !own.may_help(p, w)) return false;
                        unsigned some = own.chunk(line, w, p);
                        loads.take(p, some);
                        line -= some;
                        queued[p] += some;
                        return true;
                    };
                    unsigned begun =
                        static_cast<unsigned>(std::min<std::uint64_t>(queued[p], drained));
                    queued[p] -= begun;
                    load[p] += begun;
                    ended += begun;
                    loads.started(p, begun);
                    for (bool more = true; more;) {
                        more = false;
                        for (weight w : every_weight) more |= pull(w);
                    }
                    loads.publish_room(p);
                }
            }
            CHECK(ended == offered);
            CHECK(std::accumulate(load.begin(), load.end(), std::uint64_t{}) == offered);
            double mean = static_cast<double>(offered) / n;
            CHECK(static_cast<double>(*std::max_element(load.begin(), load.end())) / mean <= 1.05);
            for (unsigned p = 0; p < n; ++p) {
                REQUIRE(loads.occupancy(p) == 0);
                REQUIRE(loads.has_room(p));
            }
        }
    }

    TEST_CASE("balance: a burst of heavy tokens is spread over the full range by turns") {
        load_table loads({8, 1});
        std::vector<unsigned> load(8);
        for (unsigned loop = 0; loop <= 8; ++loop) {
            router routes(loads, loop);
            for (unsigned i = 0; i < 20; ++i) ++load[routes.route(weight::heavy)];
        }
        CHECK(*std::max_element(load.begin(), load.end()) <= 23);  // 22.5 each
    }

    // The owner makes room and publishes it once, in the very moment in which a router finds the position full.
    TEST_CASE("stress: making room against finding no room") {
        constexpr std::uint32_t seed = 1234567;
        MESSAGE("seed " << seed);
        constexpr std::uint32_t rounds = 60'000, window = 8;
        load_table loads({1, 1});
        loads.set_window(0, window);
        std::atomic<std::uint32_t> full = 0, drained = 0;  // the last round that is
        std::uint32_t lost = 0;
        auto await = [](std::atomic<std::uint32_t>& word, std::uint32_t round) {
            for (unsigned spins = 0; word.load(std::memory_order_acquire) != round;)
                if (++spins % 1024 == 0) std::this_thread::yield();
        };
        auto dawdle = [](std::mt19937& random, std::uint32_t most) {
            for (std::uint32_t n = random() % most; n > 0; --n)
                std::atomic_signal_fence(std::memory_order_seq_cst);
        };
        std::thread owner([&] {
            std::mt19937 random(seed);
            for (std::uint32_t round = 1; round <= rounds; ++round) {
                await(full, round);
                dawdle(random, 64);
                loads.started(0, window);
                loads.publish_room(0);
                drained.store(round, std::memory_order_release);
            }
        });
        std::mt19937 random(seed + 1);
        for (std::uint32_t round = 1; round <= rounds; ++round) {
            loads.take(0, window);
            router routes(loads, 0);
            full.store(round, std::memory_order_release);
            dawdle(random, 1024);  // the owner hears of it some 100 ns later
            (void)routes.route(
                weight::heavy);  // if there is room already, nothing of it is published
            await(drained, round);
            if (!loads.has_room(0)) ++lost;
            loads.publish_room(0);  // for the next round; the owner does not look before `full`
        }
        owner.join();
        CHECK(lost == 0);
        CHECK(loads.occupancy(0) == 0);
    }

    // Owners that drain and N + 1 loops that route, as threads. An owner publishes only after it has started something,
    // so a bit that is lost stays lost: at the end of each round, all must be set.
    TEST_CASE("stress: nothing uncounted, no room bit lost") {
        constexpr std::uint32_t seed = 987654321;
        MESSAGE("seed " << seed);
        constexpr unsigned cores = 3, routers = cores + 1, rounds = 300, tokens = 200;
        load_table loads({cores, 1});
        std::array<std::atomic<std::uint32_t>, cores> delivered{};
        std::atomic<unsigned> routing = 0, lost_bits = 0, outside = 0;
        std::atomic<std::uint64_t> routed = 0, refused = 0, ran = 0;
        for (unsigned p = 0; p < cores; ++p) {
            loads.set_window(p, 8);
            loads.publish_room(p);
        }
        auto begin_round = [&]() noexcept { routing = routers; };
        std::barrier start(cores + routers, begin_round);
        std::barrier end(cores + routers);

        auto route = [&](unsigned loop) {
            router routes(loads, loop, loop % 2 == 0 ? spill::when_saturated : spill::never);
            std::mt19937 random(seed + loop);
            std::array<std::uint32_t, cores> outbox{};
            auto flush = [&](unsigned p) {
                routes.publish(p);
                delivered[p].fetch_add(outbox[p], std::memory_order_release);
                outbox[p] = 0;
            };
            for (unsigned round = 0; round < rounds; ++round) {
                start.arrive_and_wait();
                for (unsigned i = 0; i < tokens; ++i) {
                    weight w = every_weight[random() % 3];
                    unsigned to = routes.route(w);
                    if (to == router::no_room) {
                        ++refused;
                        std::this_thread::yield();
                    } else {
                        if (loop % 2 != 0 && !routes.may_serve(to, w)) ++outside;
                        ++routed;
                        if (++outbox[to] == router::batch) flush(to);
                    }
                    if (random() % 4 == 0)
                        for (unsigned p = 0; p < cores; ++p) flush(p);
                }
                for (unsigned p = 0; p < cores; ++p) flush(p);
                --routing;
                end.arrive_and_wait();
            }
        };
        auto own = [&](unsigned p) {
            std::uint32_t begun = 0;
            for (unsigned round = 0; round < rounds; ++round) {
                start.arrive_and_wait();
                for (bool last = false;;) {
                    last = routing == 0;
                    std::uint32_t now = delivered[p].load(std::memory_order_acquire);
                    if (now != begun) {
                        loads.started(p, now - begun);
                        ran += now - begun;
                        begun = now;
                        loads.publish_room(p);
                    } else if (last) {
                        break;
                    } else {
                        std::this_thread::yield();
                    }
                }
                end.arrive_and_wait();
                if (!loads.has_room(p) || loads.occupancy(p) != 0) ++lost_bits;
            }
        };

        std::vector<std::thread> threads;
        for (unsigned loop = 0; loop < routers; ++loop) threads.emplace_back(route, loop);
        for (unsigned p = 0; p < cores; ++p) threads.emplace_back(own, p);
        for (std::thread& t : threads) t.join();
        CHECK(lost_bits == 0);
        CHECK(outside == 0);
        CHECK(ran == routed);
        CHECK(routed + refused == std::uint64_t{routers} * rounds * tokens);
    }
}
