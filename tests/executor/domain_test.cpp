// SPDX-License-Identifier: MIT

#include "executor/domain.hpp"

#include "lifecycle/runtime_core.hpp"
#include "support/leaks.hpp"
#include "support/manual_event.hpp"
#include "support/settled.hpp"
#include "token/seed.hpp"

#include <tokengate/operation.hpp>
#include <tokengate/runtime.hpp>
#include <tokengate/this_token.hpp>
#include <tokengate/when_all.hpp>

#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace tg = tokengate;
using tg::test::check_settled;
using tg::test::countdown;
using tg::test::counted;
using tg::test::manual_event;

namespace {

/// Where the tokens of one chain were seen: one seed and one executor, if all is well.
class chain_log {
public:
    void note() {
        const std::scoped_lock lock(mutex_);
        seeds_.emplace(tg::this_token::seed());
        executors_.insert(tg::this_token::executor());
        ++tokens_;
    }
    // Once they have ended:
    [[nodiscard]] int tokens() const { return tokens_; }
    [[nodiscard]] const std::set<std::string>& seeds() const { return seeds_; }
    [[nodiscard]] bool kept_together() const {
        return seeds_.size() == 1 && executors_.size() == 1;
    }

private:
    std::mutex mutex_;
    std::set<std::string> seeds_;
    std::set<unsigned> executors_;
    int tokens_ = 0;
};

/// A child that spawns grandchildren in every way there is, down to `levels`.
tg::task<tg::token<>> spawn(chain_log* log, int levels);
const tg::operation child{{.name = "conductor_test_child", .weight = tg::weight::light}, spawn};

const tg::operation leaf{{.name = "conductor_test_leaf", .weight = tg::weight::heavy},
                         [](chain_log* log) { log->note(); }};

tg::task<tg::token<>> spawn(chain_log* log, int levels) {
    log->note();
    if (levels > 0) {
        tg::token<> from_below = co_await child(log, levels - 1);
        co_await from_below;  // made below, returned, awaited here
        std::vector<tg::token<tg::token<>>> group;
        group.push_back(child(log, levels - 1));
        group.push_back(child(log, levels - 1));
        std::vector<tg::token<>> all_from_below = co_await tg::when_all(std::move(group));
        co_await tg::when_all(std::move(all_from_below));
        tg::token<tg::token<>> early = child(log, levels - 1);
        early.admit();
        tg::token<> detached = leaf(log);
        detached.admit();
        { const tg::token<> dropped = leaf(log); }
        tg::token<> from_early = co_await early;
        from_early.admit();  // … and dropped: it runs detached
    }
    co_return leaf(log);
}
/// How many tokens note themselves in a spawn of so many levels, whose result is admitted.
constexpr int tokens_in(int levels) { return levels == 0 ? 2 : 3 + 4 * tokens_in(levels - 1); }

const tg::operation lead{{.name = "conductor_test_lead"},
                         tg::lead{"conductor_test_child", "conductor_test_leaf"},
                         [](chain_log* log, int levels) { return spawn(log, levels); }};

struct identity {
    tg::token_id id;
    std::string seed;
    unsigned executor;
};
identity who() {
    return {tg::this_token::id(), std::string(tg::this_token::seed()), tg::this_token::executor()};
}

const tg::operation who_am_i{{.name = "conductor_test_who"}, who};
const tg::operation inner_lead{{.name = "conductor_test_inner_lead"},
                               tg::lead{"conductor_test_who"},
                               []() -> tg::task<std::array<identity, 2>> {
                                   identity child = co_await who_am_i();
                                   co_return std::array{who(), std::move(child)};
                               }};
/// Itself, a child before the inner lead, the inner lead, its child, and a child after it.
const tg::operation outer_lead{{.name = "conductor_test_outer_lead"},
                               tg::lead{"conductor_test_who", "conductor_test_inner_lead"},
                               []() -> tg::task<std::array<identity, 5>> {
                                   identity before = co_await who_am_i();
                                   std::array<identity, 2> inner = co_await inner_lead();
                                   identity after = co_await who_am_i();
                                   co_return std::array{who(), std::move(before),
                                                        std::move(inner[0]), std::move(inner[1]),
                                                        std::move(after)};
                               }};

const tg::operation holds{{.name = "conductor_test_holds"},
                          [](counted kept) { return kept.number(); }};
const tg::operation fails{{.name = "conductor_test_fails"},
                          [](counted) -> int { throw std::runtime_error("as it must"); }};
const tg::operation holds_token{
    {.name = "conductor_test_holds_token"},
    [](tg::token<int> held) -> tg::task<int> { co_return co_await held; }};
const tg::operation drops_token{{.name = "conductor_test_drops_token"}, [](tg::token<int>) {}};
const tg::operation waits{{.name = "conductor_test_waits"},
                          [](manual_event* event, counted kept) -> tg::task<int> {
                              co_await *event;
                              co_return kept.number();
                          }};
const tg::operation nothing{{.name = "conductor_test_nothing"}, [] {}};

const tg::operation hands_out{
    {.name = "conductor_test_hands_out"},
    tg::lead{"conductor_test_holds"},
    [](int n) -> tg::task<tg::token<int>> { co_return holds(counted(n)); }};
/// A token that holds, as an argument, a token of the same domain.
const tg::operation hands_out_pair{
    {.name = "conductor_test_hands_out_pair"},
    tg::lead{"conductor_test_holds_token"},
    [](int n) -> tg::task<tg::token<int>> { co_return holds_token(holds(counted(n))); }};
/// A child of an inner domain, whose outer one has ended but for it.
const tg::operation hands_out_inner{
    {.name = "conductor_test_hands_out_inner"},
    tg::lead{"conductor_test_hands_out"},
    [](int n) -> tg::task<tg::token<int>> { co_return co_await hands_out(n); }};
/// A lead that was never admitted, of a domain that otherwise has ended.
const tg::operation hands_out_lead{
    {.name = "conductor_test_hands_out_lead"},
    tg::lead{"conductor_test_hands_out"},
    [](int n) -> tg::task<tg::token<tg::token<int>>> { co_return hands_out(n); }};

const tg::operation ends_with{{.name = "conductor_test_ends_with"},
                              tg::lead{"conductor_test_holds", "conductor_test_fails"},
                              [](bool failing_child, bool failing_lead) -> tg::task<int> {
                                  int n = 0;
                                  try {
                                      n = failing_child ? co_await fails(counted(1))
                                                        : co_await holds(counted(1));
                                  } catch (const std::runtime_error&) {
                                      n = 2;
                                  }
                                  if (failing_lead) throw std::runtime_error("the lead");
                                  co_return n;
                              }};
const tg::operation leaves_behind{{.name = "conductor_test_leaves_behind"},
                                  tg::lead{"conductor_test_waits"},
                                  [](manual_event* event) -> tg::task<> {
                                      tg::token<int> detached = waits(event, counted(1));
                                      detached.admit();
                                      co_return;
                                  }};

}  // namespace

TEST_SUITE("conductor") {
    TEST_CASE(
        "a chain keeps its lead's seed and executor at any depth, however its tokens are spawned") {
        tg::runtime runtime{{.cores = 4}};
        constexpr int leads = 20, levels = 3;
        std::vector<std::unique_ptr<chain_log>> logs;
        for (int i = 0; i < leads; ++i) logs.push_back(std::make_unique<chain_log>());
        runtime.run([&]() -> tg::task<> {
            std::vector<tg::token<tg::token<>>> all;
            for (auto& log : logs) all.push_back(lead(log.get(), levels));
            // What a lead returns is a child of its domain: it runs there whoever awaits it.
            std::vector<tg::token<>> children = co_await tg::when_all(std::move(all));
            CHECK(runtime.snapshot().domains >= 1);
            co_await tg::when_all(std::move(children));
        });
        std::set<std::string> seeds;
        for (auto& log : logs) {
            CHECK(log->kept_together());
            CHECK(log->tokens() == tokens_in(levels));
            seeds.insert(log->seeds().begin(), log->seeds().end());
        }
        CHECK(seeds.size() == leads);  // siblings never share one
        check_settled(runtime);
    }

    TEST_CASE("… also with several workers a core") {
        tg::runtime runtime{{.cores = 2, .workers_per_core = 2}};
        std::vector<std::unique_ptr<chain_log>> logs;
        for (int i = 0; i < 10; ++i) logs.push_back(std::make_unique<chain_log>());
        runtime.run([&]() -> tg::task<> {
            std::vector<tg::token<tg::token<>>> all;
            for (auto& log : logs) all.push_back(lead(log.get(), 2));
            co_await tg::when_all(std::move(all));
        });
        for (auto& log : logs) CHECK(log->kept_together());
        for (auto& log : logs)
            CHECK(log->tokens() == tokens_in(2) - 1);  // what the lead returned was dropped
        check_settled(runtime);
    }

    TEST_CASE("the seed is the digest of the lead's id and its frozen call list") {
        const auto seeds_under = [](tg::digest_policy policy) {
            tg::runtime runtime{{.cores = 2, .digest = policy}};
            return runtime.run([]() -> tg::task<std::array<identity, 5>> {
                co_return co_await outer_lead();
            });
        };
        const std::vector<const char*> outer_calls{"conductor_test_who",
                                                   "conductor_test_inner_lead"};
        const std::vector<const char*> inner_calls{"conductor_test_who"};
        for (const tg::digest_policy policy :
             {tg::digest_policy::full, tg::digest_policy::short_, tg::digest_policy::minimal}) {
            const std::array<identity, 5> all = seeds_under(policy);
            const tg::detail::digest_text outer =
                tg::detail::seed_digest(all[0].id.text(), outer_calls);
            const tg::detail::digest_text inner =
                tg::detail::seed_digest(all[2].id.text(), inner_calls);
            CHECK(all[0].seed == tg::detail::shown(outer, policy));
            CHECK(all[2].seed == tg::detail::shown(inner, policy));
        }
        CHECK(seeds_under(tg::digest_policy::full)[0].seed.size() == 64);
        CHECK(seeds_under(tg::digest_policy::short_)[0].seed.size() == 16);
        CHECK(seeds_under(tg::digest_policy::minimal)[0].seed.size() == 8);
    }

    TEST_CASE(
        "a lead inside a lead opens its own domain on the same executor, and the outer one goes on "
        "after it") {
        tg::runtime runtime{{.cores = 4}};
        runtime.run([]() -> tg::task<> {
            for (int i = 0; i < 20; ++i) {
                const std::array<identity, 5> all = co_await outer_lead();
                const std::string &outer = all[0].seed, &inner = all[2].seed;
                CHECK(outer != inner);
                CHECK(all[1].seed == outer);
                CHECK(all[3].seed == inner);
                CHECK(all[4].seed == outer);
                for (const identity& each : all) CHECK(each.executor == all[0].executor);
            }
        });
        check_settled(runtime);
    }

    TEST_CASE("a domain is released by the end of its last token: returned, or thrown") {
        counted::reset();
        tg::runtime runtime{{.cores = 2}};
        runtime.run([]() -> tg::task<> {
            for (int i = 0; i < 10; ++i)
                for (const bool failing_child : {false, true}) {
                    const int n = co_await ends_with(failing_child, false);
                    CHECK(n == (failing_child ? 2 : 1));
                    bool failed = false;
                    try {
                        co_await ends_with(failing_child, true);
                    } catch (const std::runtime_error&) {
                        failed = true;
                    }
                    CHECK(failed);
                }
        });
        check_settled(runtime);
        CHECK(counted::alive() == 0);
    }

    TEST_CASE("a detached child outlives its lead, and keeps the domain until it ends") {
        tg::runtime runtime{{.cores = 2}};
        manual_event go;
        runtime.run([&]() -> tg::task<> {
            co_await leaves_behind(&go);
            CHECK(runtime.snapshot().domains == 1);
            go.set();
        });
        check_settled(runtime);
    }

    TEST_CASE(
        "an unadmitted child keeps the domain until it is dropped: by the lead, on the control "
        "loop, on another core") {
        counted::reset();
        tg::runtime runtime{{.cores = 4}};
        const tg::operation drops_its_own{{.name = "conductor_test_drops_its_own"},
                                          tg::lead{"conductor_test_holds"},
                                          []() -> tg::task<> {
                                              { const tg::token<int> dropped = holds(counted(1)); }
                                              co_return;
                                          }};
        runtime.run([&]() -> tg::task<> {
            co_await drops_its_own();
            CHECK(counted::alive() == 0);
            for (int i = 0; i < 20; ++i) {
                {
                    const tg::token<int> dropped_here = co_await hands_out(1);
                    CHECK(runtime.snapshot().domains >= 1);
                }
                tg::token<int> dropped_there = co_await hands_out(2);
                co_await drops_token(std::move(dropped_there));
                tg::token<int> of_inner = co_await hands_out_inner(3);
                co_await drops_token(std::move(of_inner));
                const tg::token<int> of_inner_here = co_await hands_out_inner(4);
                const tg::token<int> pair_here = co_await hands_out_pair(5);
                tg::token<int> pair_there = co_await hands_out_pair(6);
                co_await drops_token(std::move(pair_there));
                const tg::token<tg::token<int>> unstarted_lead = co_await hands_out_lead(7);
            }
        });
        check_settled(runtime);
        CHECK(counted::alive() == 0);
        CHECK(counted::wrongly_destroyed() == 0);
    }

    TEST_CASE("… and run by whoever awaits it") {
        counted::reset();
        tg::runtime runtime{{.cores = 4}};
        runtime.run([&]() -> tg::task<> {
            for (int i = 0; i < 20; ++i) {
                tg::token<int> one = co_await hands_out(1);
                tg::token<int> two = co_await hands_out_inner(2);
                tg::token<int> three = co_await hands_out_pair(3);
                tg::token<tg::token<int>> late_lead = co_await hands_out_lead(4);
                tg::token<int> four = co_await late_lead;
                const auto [a, b, c, d] = co_await tg::when_all(std::move(one), std::move(two),
                                                                std::move(three), std::move(four));
                CHECK(a + b + c + d == 10);
                // Awaited on a core that is neither its home nor the control loop, maybe.
                tg::token<int> five = co_await hands_out(5);
                const int carried = co_await holds_token(std::move(five));
                CHECK(carried == 5);
            }
        });
        check_settled(runtime);
        CHECK(counted::alive() == 0);
    }

    TEST_CASE("… or dropped by a foreign thread, while the runtime runs and after it has stopped") {
        counted::reset();
        tg::runtime runtime{{.cores = 2}};
        runtime.start();
        {
            const tg::token<int> dropped = runtime.submit(hands_out(1)).get();
            const tg::token<int> of_inner = runtime.submit(hands_out_inner(2)).get();
            const tg::token<int> pair = runtime.submit(hands_out_pair(3)).get();
            const tg::token<tg::token<int>> unstarted_lead =
                runtime.submit(hands_out_lead(4)).get();
            CHECK(runtime.snapshot().domains == 4);
        }
        std::thread([&runtime] {
            const tg::token<int> dropped = runtime.submit(hands_out(5)).get();
        }).join();
        {
            const tg::token<int> kept = runtime.submit(hands_out(6)).get();
            runtime.stop();
            CHECK(runtime.snapshot().domains == 1);
            CHECK(counted::alive() == 1);
        }
        check_settled(runtime);
        CHECK(counted::alive() == 0);
    }

    TEST_CASE("… or dropped after the runtime has been destroyed") {
        counted::reset();
        const std::size_t slots_before = tg::test::live_slots();
        {
            tg::token<int> simple, of_inner;
            tg::token<tg::token<int>> unstarted_lead;
            {
                tg::runtime runtime{{.cores = 2}};
                runtime.start();
                simple = runtime.submit(hands_out(1)).get();
                of_inner = runtime.submit(hands_out_inner(2)).get();
                unstarted_lead = runtime.submit(hands_out_lead(3)).get();
            }
            CHECK(counted::alive() == 2);
            std::thread([&] { const tg::token<int> dropped_there = std::move(of_inner); }).join();
            CHECK(counted::alive() == 1);
            {
                tg::runtime another{
                    {.cores = 2}};  // must not take over what the old one's domains name
                another.run([&]() -> tg::task<> {
                    co_await nothing();
                    const tg::token<int> dropped_there = std::move(simple);
                });
            }
            CHECK(counted::alive() == 0);
        }
        CHECK(counted::wrongly_destroyed() == 0);
        CHECK(tg::test::live_slots() == slots_before);
    }

    TEST_CASE("a token that holds a token may be dropped after the runtime has been destroyed") {
        counted::reset();
        const std::size_t slots_before = tg::test::live_slots();
        {
            tg::token<int> pair;
            {
                tg::runtime runtime{{.cores = 1}};
                runtime.start();
                pair = runtime.submit(hands_out_pair(1)).get();
            }
            CHECK(counted::alive() == 1);
        }
        CHECK(counted::alive() == 0);
        CHECK(tg::test::live_slots() == slots_before);
    }

    TEST_CASE(
        "storage permits: a lead that awaits children of its own tier gives its permit up "
        "meanwhile") {
        tg::runtime runtime{{.cores = 2, .storage = {.slow = 1, .moderate = 2}}};
        std::atomic<int> inside{0}, most{0};
        const tg::operation reads{
            {.name = "conductor_test_reads", .storage = tg::storage::slow}, [&](bool failing) {
                const int now = ++inside;
                for (int seen = most; seen < now && !most.compare_exchange_weak(seen, now);) {}
                --inside;
                if (failing) throw std::runtime_error("unreadable");
            }};
        const tg::operation slow_lead{
            {.name = "conductor_test_slow_lead", .storage = tg::storage::slow},
            tg::lead{"conductor_test_reads"},
            [&]() -> tg::task<> {
                co_await reads(false);
                auto two = tg::when_all(reads(false), reads(false));
                co_await two;
                try {
                    co_await reads(true);
                } catch (const std::runtime_error&) {}
                tg::token<> early = reads(false);
                early.admit();
                { const tg::token<> dropped = reads(false); }
                co_await early;
            }};
        runtime.run([&]() -> tg::task<> {
            std::vector<tg::token<>> leads;
            for (int i = 0; i < 50; ++i) leads.push_back(slow_lead());
            co_await tg::when_all(std::move(leads));
            tg::detail::gate& gate = tg::detail::context().host->runtime.at_gate;
            CHECK(gate.in_use(tg::storage::slow) == 0);
        });
        CHECK(most == 1);  // each body is one run, and the leads hold theirs over no await
        check_settled(runtime);
    }

    TEST_CASE("stress: children handed out, then run, dropped or carried about by whoever") {
        constexpr unsigned seed = 20250616;
        INFO("seed " << seed);
        counted::reset();
        const std::size_t slots_before = tg::test::live_slots();
        int wrong = 0;
        {
            tg::runtime runtime{{.cores = 3}};
            runtime.start();
            std::atomic<int> all_wrong{0};
            std::vector<std::thread> threads;
            for (unsigned t = 0; t < 4; ++t)
                threads.emplace_back([&runtime, &all_wrong, t] {
                    std::mt19937 random(seed + t);
                    std::vector<tg::token<int>> kept;
                    for (int i = 0; i < 400; ++i) {
                        const int n = static_cast<int>(random() % 1000);
                        switch (random() % 4) {
                            case 0: kept.push_back(runtime.submit(hands_out(n)).get()); break;
                            case 1: kept.push_back(runtime.submit(hands_out_inner(n)).get()); break;
                            case 2: kept.push_back(runtime.submit(hands_out_pair(n)).get()); break;
                            default: {
                                tg::token<int> carried = runtime.submit(hands_out(n)).get();
                                all_wrong +=
                                    runtime.submit(holds_token(std::move(carried))).get() != n;
                            }
                        }
                        if (kept.empty()) continue;
                        std::swap(kept[random() % kept.size()], kept.back());
                        if (random() % 3 == 0) {
                            kept.pop_back();  // dropped here
                        } else if (random() % 3 == 0) {
                            runtime.submit(drops_token(std::move(kept.back()))).get();
                            kept.pop_back();
                        } else if (random() % 2 == 0) {
                            runtime.submit(std::move(kept.back())).get();
                            kept.pop_back();
                        }
                    }
                });
            for (std::thread& each : threads) each.join();
            wrong = all_wrong;
            runtime.stop();
            check_settled(runtime);
        }
        CHECK(wrong == 0);
        CHECK(counted::alive() == 0);
        CHECK(counted::wrongly_destroyed() == 0);
        CHECK(tg::test::live_slots() == slots_before);
    }

    TEST_CASE("stress: children dropped by foreign threads while the runtime stops under them") {
        counted::reset();
        const std::size_t slots_before = tg::test::live_slots();
        for (int round = 0; round < 100; ++round) {
            std::atomic<int> ready{0};
            std::vector<std::thread> threads;
            {
                tg::runtime runtime{{.cores = 2}};
                runtime.start();
                for (int t = 0; t < 3; ++t) {
                    std::vector<tg::token<int>> kept;
                    for (int i = 0; i < 10; ++i) kept.push_back(runtime.submit(hands_out(i)).get());
                    threads.emplace_back([&ready, tokens = std::move(kept)]() mutable {
                        ++ready;
                        while (ready < 4) {}
                        while (!tokens.empty()) tokens.pop_back();
                    });
                }
                while (ready < 3) std::this_thread::yield();
                ++ready;
                // A thread without a context of its own ends the runtime.
                std::thread([&runtime] { runtime.stop(); }).join();
            }
            for (std::thread& each : threads) each.join();
        }
        CHECK(counted::alive() == 0);
        CHECK(counted::wrongly_destroyed() == 0);
        CHECK(tg::test::live_slots() == slots_before);
    }
}
