// SPDX-License-Identifier: MIT

#include <tokengate/anchor.hpp>

#include "support/manual_event.hpp"

#include <tokengate/operation.hpp>
#include <tokengate/runtime.hpp>
#include <tokengate/this_token.hpp>
#include <tokengate/when_all.hpp>

#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <future>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace tg = tokengate;
using tg::test::countdown;
using tg::test::manual_event;

namespace {

/// What the tokens under test share: they note where they run, then wait, so that all are in flight together.
struct meeting {
    manual_event go;
    countdown arrived;

    explicit meeting(unsigned tokens) : arrived(tokens) {}
};

tg::task<unsigned> meet(meeting* at) {
    const unsigned executor = tg::this_token::executor();
    at->arrived.arrive();
    co_await at->go;
    co_return executor;
}

const tg::operation by_all{{.name = "anchor_test_by_all"},
                           tg::sticky{"anchor_test"},
                           [](std::string, int, meeting* at) { return meet(at); }};
const tg::operation by_projection{
    {.name = "anchor_test_by_projection"},
    tg::sticky{"anchor_test_account", [](int account, int) { return account; }},
    [](int, int) { return tg::this_token::executor(); }};
const tg::operation by_projection_waiting{
    {.name = "anchor_test_by_projection_waiting"},
    tg::sticky{"anchor_test_account", [](int account, meeting*) { return account; }},
    [](int, meeting* at) { return meet(at); }};
const tg::operation by_name{{.name = "anchor_test_by_name"},
                            tg::sticky_by_name{"anchor_test_name"},
                            [](int, meeting* at) { return meet(at); }};
const tg::operation by_same_name{{.name = "anchor_test_by_same_name"},
                                 tg::sticky_by_name{"anchor_test_name"},
                                 [](meeting* at) { return meet(at); }};

/// Sends from whatever core it lands on.
const tg::operation sends{{.name = "anchor_test_sends"},
                          [](int account, meeting* at) -> tg::task<unsigned> {
                              co_return co_await by_projection_waiting(account, at);
                          }};

tg::task<bool> in_lead(int account) {
    const unsigned here = tg::this_token::executor();
    const unsigned there = co_await by_projection(account, 0);
    co_return here == there;
}
const tg::operation lead{
    {.name = "anchor_test_lead"}, tg::lead{"anchor_test_by_projection"}, in_lead};

std::set<unsigned> distinct(const std::vector<unsigned>& all) { return {all.begin(), all.end()}; }

}  // namespace

TEST_SUITE("anchor") {
    TEST_CASE("keys: all arguments, a projection of them, or the name alone") {
        constexpr tg::sticky all{"one"};
        constexpr tg::sticky other{"two"};
        CHECK(all.key(1, 2) == all.key(1, 2));
        CHECK(all.key(1, 2) != all.key(2, 1));
        CHECK(all.key(1, 2) != other.key(1, 2));
        CHECK(all.key(std::string("a")) == all.key(std::string("a")));
        CHECK(all.key() != other.key());

        constexpr tg::sticky projected{"one", [](int a, int) { return a; }};
        CHECK(projected.key(1, 2) == projected.key(1, 3));
        CHECK(projected.key(1, 2) != projected.key(2, 2));

        constexpr tg::sticky_by_name named{"one"};
        CHECK(named.key(1) == named.key(std::string("anything"), 2));
        CHECK(named.key() != tg::sticky_by_name{"two"}.key());
    }

    TEST_CASE(
        "tokens in flight under one key share an executor, whichever core sends them; afterwards "
        "the pin is gone") {
        constexpr int accounts = 8, senders = 16;
        tg::runtime runtime{{.cores = 4}};
        meeting at(accounts * senders);
        const tg::snapshot before = runtime.snapshot();
        runtime.run([&]() -> tg::task<> {
            std::vector<tg::token<unsigned>> all;
            for (int i = 0; i < accounts * senders; ++i) {
                all.push_back(sends(i % accounts, &at));
                all.back().admit();
            }
            co_await at.arrived;
            CHECK(runtime.snapshot().pins == accounts);
            at.go.set();
            std::array<std::set<unsigned>, accounts> used;
            const std::vector<unsigned> where = co_await tg::when_all(std::move(all));
            for (std::size_t i = 0; i < where.size(); ++i) used[i % accounts].insert(where[i]);
            for (const std::set<unsigned>& each : used) CHECK(each.size() == 1);
        });
        const tg::snapshot after = runtime.snapshot();
        CHECK(after.pins == 0);
        CHECK(after.redirections - before.redirections == accounts * (senders - 1));
    }

    TEST_CASE("… and whichever thread submits them") {
        constexpr int threads = 8, each_sends = 16;
        tg::runtime runtime{{.cores = 4}};
        runtime.start();
        meeting at(threads * each_sends);
        std::vector<std::future<unsigned>> results(threads * each_sends);
        std::vector<std::thread> senders;
        for (int t = 0; t < threads; ++t)
            senders.emplace_back([&, t] {
                for (int i = 0; i < each_sends; ++i)
                    results[static_cast<std::size_t>(t * each_sends + i)] =
                        runtime.submit(by_all("same", 1, &at));
            });
        for (std::thread& each : senders) each.join();
        runtime.submit(lead(0)).get();  // unanchored tokens are not held up
        std::thread watcher([&] {
            while (runtime.snapshot().pins != 1 ||
                   runtime.snapshot().redirections != threads * each_sends - 1)
                std::this_thread::yield();
            at.go.set();
        });
        std::set<unsigned> used;
        for (std::future<unsigned>& each : results) used.insert(each.get());
        watcher.join();
        CHECK(used.size() == 1);
        runtime.stop();
        CHECK(runtime.snapshot().pins == 0);
    }

    TEST_CASE("by name, two operations with one anchor meet whatever their arguments") {
        tg::runtime runtime{{.cores = 3}};
        meeting at(12);
        const std::vector<unsigned> where = runtime.run([&]() -> tg::task<std::vector<unsigned>> {
            std::vector<tg::token<unsigned>> all;
            for (int i = 0; i < 6; ++i) {
                all.push_back(by_name(i, &at));
                all.push_back(by_same_name(&at));
            }
            for (tg::token<unsigned>& each : all) each.admit();
            co_await at.arrived;
            CHECK(runtime.snapshot().pins == 1);
            at.go.set();
            co_return co_await tg::when_all(std::move(all));
        });
        CHECK(distinct(where).size() == 1);
        CHECK(runtime.snapshot().redirections == 11);
        CHECK(runtime.snapshot().pins == 0);
    }

    TEST_CASE("different keys use different executors") {
        tg::runtime runtime{{.cores = 4}};
        meeting at(30);
        const std::vector<unsigned> where = runtime.run([&]() -> tg::task<std::vector<unsigned>> {
            std::vector<tg::token<unsigned>> all;
            for (int i = 0; i < 30; ++i) all.push_back(by_all("same", i, &at));
            for (tg::token<unsigned>& each : all) each.admit();
            co_await at.arrived;
            CHECK(runtime.snapshot().pins == 30);
            at.go.set();
            co_return co_await tg::when_all(std::move(all));
        });
        CHECK(distinct(where).size() >= 2);  // medium: three home cores, in turn
    }

    TEST_CASE(
        "a failing sticky token gives up its pin like any other; one that is dropped unadmitted "
        "has none") {
        const tg::operation fails{{.name = "anchor_test_fails"},
                                  tg::sticky_by_name{"anchor_test_fails"},
                                  []() -> int { throw 1; }};
        tg::runtime runtime{{.cores = 2}};
        runtime.run([&]() -> tg::task<> {
            for (int i = 0; i < 10; ++i) {
                try {
                    co_await fails();
                } catch (int) {}
                const tg::token<int> dropped = fails();
            }
        });
        CHECK(runtime.snapshot().pins == 0);
    }

    TEST_CASE(
        "inside a conducted chain the chain is followed, no pin is taken, and it is counted") {
        constexpr int leads = 40;
        tg::runtime runtime{{.cores = 4}};
        runtime.run([&]() -> tg::task<> {
            meeting at(1);
            tg::token<unsigned> holds_the_pin = by_projection_waiting(7, &at);
            holds_the_pin.admit();
            co_await at.arrived;
            std::vector<tg::token<bool>> all;
            for (int i = 0; i < leads; ++i) all.push_back(lead(7));
            int followed = 0;
            for (const bool same : co_await tg::when_all(std::move(all))) followed += same;
            CHECK(followed == leads);
            CHECK(runtime.snapshot().pins == 1);
            at.go.set();
            co_await holds_the_pin;
        });
        const tg::snapshot now = runtime.snapshot();
        CHECK(now.sticky_bypassed == leads);
        CHECK(now.redirections == 0);
        CHECK(now.pins == 0);
    }

    TEST_CASE("stress: every burst of one key meets on one executor while any of it is in flight") {
        constexpr unsigned seed = 20250614;
        INFO("seed " << seed);
        std::mt19937 random(seed);
        tg::runtime runtime{{.cores = 4}};
        int misses = 0;
        runtime.run([&]() -> tg::task<> {
            for (int round = 0; round < 200; ++round) {
                const unsigned tokens = 2 + random() % 30;
                meeting at(tokens);
                std::vector<tg::token<unsigned>> all;
                for (unsigned i = 0; i < tokens; ++i) {
                    all.push_back(random() % 2 == 0 ? sends(round % 3, &at)
                                                    : by_projection_waiting(round % 3, &at));
                    all.back().admit();
                }
                co_await at.arrived;
                at.go.set();
                const std::vector<unsigned> where = co_await tg::when_all(std::move(all));
                misses += distinct(where).size() != 1;
            }
        });
        CHECK(misses == 0);
        CHECK(runtime.snapshot().pins == 0);
    }
}
