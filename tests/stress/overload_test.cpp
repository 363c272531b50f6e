// SPDX-License-Identifier: MIT

#include "support/leaks.hpp"
#include "support/sanitizers.hpp"
#include "support/settled.hpp"
#include "support/waiting.hpp"

#include <tokengate/detail/frame_pool.hpp>
#include <tokengate/tokengate.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <future>
#include <memory>
#include <optional>
#include <semaphore>
#include <sstream>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

// Ten times as much is offered as the cores do, by threads that submit, a scope that spawns, and clients that await. How
// much they do is exact: a body holds its core until the clock gives it a credit, and in each round the clock gives a tenth
// of what is offered. Nothing here depends on how fast anything is.

namespace tg = tokengate;
using namespace std::chrono_literals;
using tg::test::counted;
using tg::test::wait_until;

namespace {

constexpr std::uint64_t rounds = tg::test::under_tsan || tg::test::under_asan ? 40 : 200;
constexpr std::uint64_t per_round = 20;  // credits
constexpr std::uint64_t threads = 2, of_a_thread = 70, of_the_scope = 50, clients = 10;
static_assert(threads * of_a_thread + of_the_scope + clients == 10 * per_round);
constexpr std::uint64_t offered_in_all = rounds * 10 * per_round;

constexpr std::size_t limit = 64;
constexpr unsigned cores = 2;
// Tokens of an operation alive, however many rounds: as many as may wait, and as many on their way to the gate; on each core a
// window (32 until it is measured, fewer for bodies of 20 µs) and what is routed there before that is known. Several times as
// many may have ended or been refused and not been heard of: the control loop hears of them in its turns, among other things.
constexpr int at_the_gate = 2 * limit + cores * (32 + 32);
constexpr int tokens_bound = 6 * at_the_gate + threads + 1 + clients;
// For each: its frame, its awaiter's, a scope's note, times. And what threads keep in batches for other threads' pools.
constexpr std::size_t slots_bound = 4 * tokens_bound + 512;
// A frame has 4 KiB of arguments, so that what is offered in all would be seen; a pool has some slabs begun.
constexpr std::size_t frame_bytes = 8 * 1024;
constexpr std::size_t mapped_bound =
    tokens_bound * frame_bytes + (cores + 2 + threads) * 8 * tg::detail::slab::size;
static_assert(tg::test::under_tsan || tg::test::under_asan ||
              offered_in_all * 4096 > 4 * mapped_bound);

struct load {
    std::counting_semaphore<> credits{0};
    std::atomic<std::uint64_t> offered{0}, ran{0}, refused{0}, stopped{0}, lost{0};
    std::atomic<std::uint64_t> arrived{
        0};  // of threads and the scope: who has offered his part of a round
    std::atomic<std::uint64_t> done{0};  // of all
};
load* at = nullptr;

struct payload {
    counted number{0};
    std::array<std::byte, 4096> bytes{};
};

void work_body(const payload&) {
    at->credits.acquire();
    const auto until = std::chrono::steady_clock::now() + 20us;
    while (std::chrono::steady_clock::now() < until) {}
    ++at->ran;
}
const tg::operation work{{.name = "overload_work", .weight = tg::weight::heavy},
                         [](payload in) { work_body(in); }};

/// Has its tier's only permit until it is let go; whoever comes later waits at the gate.
tg::semaphore* probes_may_run = nullptr;
const tg::operation holder{{.name = "overload_holder", .storage = tg::storage::slow},
                           []() -> tg::task<> {
                               // Not acquire(): who waits for others gives up its permit.
                               while (!probes_may_run->try_acquire()) co_await tg::sleep_for(100us);
                           }};
std::atomic<std::uint64_t> probes_ran{0};
const tg::operation probe{{.name = "overload_probe", .storage = tg::storage::slow},
                          [] { ++probes_ran; }};

/// How it ended, as its awaiter hears it.
void note(const std::exception_ptr& error) {
    try {
        std::rethrow_exception(error);
    } catch (const tg::admission_rejected&) {
        ++at->refused;
    } catch (const tg::token_stopped&) {
        ++at->stopped;
    } catch (...) {
        ++at->lost;
    }
}

void note(std::future<void>& of) {
    try {
        of.get();
    } catch (...) {
        note(std::current_exception());
    }
}

struct thread_producer {
    std::counting_semaphore<> go{0};

    void offer(tg::runtime& to) {
        std::vector<std::future<void>> waiting;
        for (std::uint64_t round = 0; round < rounds; ++round) {
            go.acquire();
            for (std::uint64_t i = 0; i < of_a_thread; ++i) {
                ++at->offered;
                try {
                    waiting.push_back(to.submit(work(payload{})));
                } catch (...) {
                    note(std::current_exception());
                }
            }
            ++at->arrived;
            std::erase_if(waiting, [](std::future<void>& each) {
                if (each.wait_for(0s) != std::future_status::ready) return false;
                note(each);
                return true;
            });
        }
        for (std::future<void>& each : waiting) note(each);
        ++at->done;
    }
};

tg::task<> scope_producer(tg::semaphore& go) {
    const auto body = [&go](tg::scope& jobs) -> tg::task<> {
        for (std::uint64_t round = 0; round < rounds; ++round) {
            co_await go.acquire();
            for (std::uint64_t i = 0; i < of_the_scope; ++i) {
                ++at->offered;
                tg::token<void> next = work(payload{});
                co_await jobs.spawn(std::move(next));
            }
            ++at->arrived;
        }
    };
    co_await tg::with_scope({.on_failure = tg::on_failure::report},
                            body);  // the failure handler hears of the refused
    ++at->done;
}

tg::task<> client(tg::semaphore& go) {
    for (std::uint64_t round = 0; round < rounds; ++round) {
        co_await go.acquire();
        ++at->offered;
        std::exception_ptr error;
        tg::token<void> mine = work(payload{});
        try {
            co_await mine;
        } catch (...) {
            error = std::current_exception();
        }
        if (error) note(error);
    }
    ++at->done;
}

// ---- waiting is cancellable ---------------------------------------------------------------------------------------------

enum class outcome { returned, refused, stopped, timeout };

template <class Awaitable>
tg::task<outcome> outcome_of(Awaitable awaited) {
    try {
        co_await std::move(awaited);
    } catch (const tg::admission_rejected&) {
        co_return outcome::refused;
    } catch (const tg::token_stopped&) {
        co_return outcome::stopped;
    } catch (const tg::token_timeout&) {
        co_return outcome::timeout;
    }
    co_return outcome::returned;
}

/// Under `reject` a place has to be found first: one more token runs, until there is one.
tg::task<> make_room() {
    const std::uint64_t before = at->ran;
    at->credits.release();
    co_await tg::test::until([before] { return at->ran > before; });
}

tg::task<> spawn_without_end() {
    const auto body = [](tg::scope& jobs) -> tg::task<> {
        for (;;) {
            tg::token<void> next = probe();
            co_await jobs.spawn(std::move(next));
        }
    };
    co_await tg::with_scope(body);
}

struct cancelled {
    std::atomic<bool> over{false};
    outcome at_gate{}, limited{}, spawner = outcome::stopped;
};

/// While the clock stands, all cores are held and nothing but this moves.
tg::task<> cancel_some(tg::semaphore& go, tg::backlog_policy policy, cancelled& found) {
    co_await go.acquire();
    for (;;) {
        tg::token<void> waiting = probe();
        waiting.admit();
        co_await tg::yield();
        waiting.request_stop();
        found.at_gate = co_await outcome_of(std::move(waiting));
        if (found.at_gate != outcome::refused) break;
        co_await make_room();
    }
    for (;;) {
        tg::token<void> limited = probe();
        found.limited = co_await outcome_of(tg::with_timeout(std::move(limited), 1ms));
        if (found.limited != outcome::refused) break;
        co_await make_room();
    }
    if (policy == tg::backlog_policy::wait) {
        tg::token<void> spawner = tg::as_token(spawn_without_end());
        spawner.admit();
        co_await tg::test::begun(spawner);  // and so it waits for room
        spawner.request_stop();
        found.spawner = co_await outcome_of(std::move(spawner));
    }
    found.over = true;
}

// ---- the clock ----------------------------------------------------------------------------------------------------------

struct high_water {
    int tokens = 0;
    std::size_t slots = 0, mapped = 0;

    void look() {
        const tg::detail::frame_pool_statistics now = tg::detail::frame_pool::statistics();
        tokens = std::max(tokens, counted::alive());
        slots = std::max(slots, now.live_slots);
        mapped = std::max(mapped, now.mapped_bytes);
    }
};

std::uint64_t refused_in(const std::string& metrics) {
    std::uint64_t sum = 0;
    std::istringstream lines(metrics);
    for (std::string line; std::getline(lines, line);)
        if (line.starts_with("tokengate_operation_refused_total{operation=\"overload_work\""))
            sum += std::stoull(line.substr(line.rfind(' ')));
    return sum;
}

std::string_view name_of_policy(tg::backlog_policy policy) {
    return policy == tg::backlog_policy::wait     ? "wait"
           : policy == tg::backlog_policy::reject ? "reject"
                                                  : "shed_oldest";
}

tg::runtime_options options_for(tg::backlog_policy policy) {
    return {.cores = cores,
            .storage = {.slow = 1},
            .backlog = {.limit = limit, .policy = policy},
            .metrics = true,
            .on_failure = [](const tg::failure& heard) { note(heard.error); }};
}

void overload(tg::backlog_policy policy) {
    counted::reset();
    probes_ran = 0;
    const std::size_t slots = tg::test::live_slots();
    const std::size_t mapped = tg::detail::frame_pool::statistics().mapped_bytes;
    load now;
    at = &now;
    {
        tg::semaphore let_go(0), scope_go(0), cancel_go(0);
        probes_may_run = &let_go;
        std::vector<std::unique_ptr<tg::semaphore>> client_go;
        std::array<thread_producer, threads> submitters;
        cancelled found;
        tg::runtime runtime(options_for(policy));
        runtime.start();
        std::future<void> holds = runtime.submit(holder());
        wait_until([&] { return runtime.gate().storage_in_use(tg::storage::slow) == 1; });
        std::vector<std::future<void>> tasks;
        tasks.push_back(runtime.submit(tg::as_token(cancel_some(cancel_go, policy, found))));
        tasks.push_back(runtime.submit(tg::as_token(scope_producer(scope_go))));
        for (std::uint64_t i = 0; i < clients; ++i) {
            client_go.push_back(std::make_unique<tg::semaphore>(0));
            tasks.push_back(runtime.submit(tg::as_token(client(*client_go.back()))));
        }
        std::vector<std::thread> submitting;
        for (thread_producer& each : submitters)
            submitting.emplace_back([&] { each.offer(runtime); });

        high_water early, late;
        std::uint64_t given = 0;
        const auto finished = [&] {
            return now.done == threads + 1 + clients && counted::alive() == 0;
        };
        for (std::uint64_t round = 1; !finished(); ++round) {
            if (round <= rounds) {
                for (thread_producer& each : submitters) each.go.release();
                scope_go.release();
                for (const auto& each : client_go) each->release();
            }
            now.credits.release(per_round);
            given += per_round;
            high_water& seen = round <= rounds / 10 ? early : late;
            wait_until([&] {
                seen.look();
                if (finished()) return true;
                // Who waits for room offers no more than there is.
                const bool offered = policy == tg::backlog_policy::wait ||
                                     now.arrived == std::min(round, rounds) * (threads + 1);
                return now.ran >= given && offered;
            });
            if (round == rounds / 2) {
                cancel_go.release();
                wait_until([&] {
                    seen.look();
                    return found.over.load();
                });
                given = std::max<std::uint64_t>(given, now.ran);  // it may have given some
            }
        }
        for (std::thread& each : submitting) each.join();
        let_go.release();
        holds.get();
        for (std::future<void>& each : tasks) each.get();
        CHECK(runtime.stop(1min).complete());

        CAPTURE(early.tokens);
        CAPTURE(early.slots);
        CAPTURE(early.mapped);
        for (const high_water& seen : {early, late}) {
            CHECK(seen.tokens <= tokens_bound);
            CHECK(seen.slots <= slots + slots_bound);
            CHECK(seen.mapped <= mapped + mapped_bound);
        }
        CHECK(late.tokens >= static_cast<int>(limit));  // it was overloaded

        CHECK(found.at_gate == outcome::stopped);
        CHECK(found.limited == outcome::timeout);
        CHECK(found.spawner == outcome::stopped);
        CHECK(probes_ran == 0);

        CHECK(now.offered == offered_in_all);
        CHECK(now.ran + now.refused == now.offered);
        CHECK(now.stopped == 0);
        CHECK(now.lost == 0);
        if (policy == tg::backlog_policy::wait)
            CHECK(now.refused == 0);
        else  // nine tenths, but for what was there at the end, and what cancelling has made room for
            CHECK(now.refused >= now.offered - rounds * per_round - 2 * tokens_bound);
        const std::optional<tg::operation_health> health = runtime.gate().health("overload_work");
        REQUIRE(health.has_value());
        CHECK(health->refused == now.refused);
        CHECK(health->started == now.ran);
        CHECK(health->completed == now.ran);
        const tg::snapshot shown = runtime.snapshot();
        const auto row =
            std::ranges::find(shown.operations, "overload_work", &tg::operation_health::operation);
        REQUIRE(row != shown.operations.end());
        CHECK(row->refused == now.refused);
        CHECK(refused_in(runtime.metrics()) == now.refused);
        tg::test::check_settled(runtime);
        CHECK(runtime.tokens().empty());
        MESSAGE(name_of_policy(policy)
                << ": " << now.offered.load() << " offered, " << now.ran.load() << " ran, "
                << now.refused.load() << " refused; at most " << early.tokens
                << " alive in the first tenth, " << late.tokens << " after it (bound "
                << tokens_bound << ")");
    }
    CHECK(counted::alive() == 0);
    CHECK(counted::wrongly_destroyed() == 0);
    CHECK(tg::test::live_slots() == slots);
}

// ---- without a clock ----------------------------------------------------------------------------------------------------

const tg::operation brief{{.name = "overload_brief", .weight = tg::weight::heavy}, [](payload) {
                              const auto until = std::chrono::steady_clock::now() + 20us;
                              while (std::chrono::steady_clock::now() < until) {}
                              ++at->ran;
                          }};

/// Who offers never waits by himself.
void offer_at_full_speed(tg::backlog_policy policy) {
    constexpr int each_offers = static_cast<int>(offered_in_all / 8);
    counted::reset();
    const std::size_t slots = tg::test::live_slots();
    const std::size_t mapped = tg::detail::frame_pool::statistics().mapped_bytes;
    load now;
    at = &now;
    high_water seen;
    std::atomic<std::uint64_t> thrown{0};
    {
        tg::runtime runtime(options_for(policy));
        runtime.start();
        std::vector<std::thread> submitting;
        for (std::uint64_t i = 0; i < threads; ++i)
            submitting.emplace_back([&] {
                for (int n = 0; n < each_offers; ++n) {
                    try {
                        static_cast<void>(runtime.submit(brief(payload{})));
                    } catch (const tg::admission_rejected&) {
                        ++thrown;
                    }
                }
                ++now.done;
            });
        const auto spawns = []() -> tg::task<> {
            const auto body = [](tg::scope& jobs) -> tg::task<> {
                for (int n = 0; n < each_offers; ++n) {
                    tg::token<void> next = brief(payload{});
                    co_await jobs.spawn(std::move(next));
                }
            };
            co_await tg::with_scope({.on_failure = tg::on_failure::report}, body);
            ++at->done;
        };
        std::future<void> spawning = runtime.submit(tg::as_token(spawns()));
        wait_until([&] {
            seen.look();
            return now.done == threads + 1;
        });
        for (std::thread& each : submitting) each.join();
        spawning.get();
        CHECK(runtime.stop().complete());
        const std::optional<tg::operation_health> health = runtime.gate().health("overload_brief");
        REQUIRE(health.has_value());
        CHECK(health->started == now.ran);
        CHECK(health->refused + now.ran == (threads + 1) * each_offers);
        CHECK(health->refused >= thrown + now.refused);  // and those whose future nobody kept
        CHECK((policy == tg::backlog_policy::wait) == (health->refused == 0));
        tg::test::check_settled(runtime);
        MESSAGE(name_of_policy(policy)
                << " at full speed: at most " << seen.tokens << " alive (bound " << tokens_bound
                << "), " << health->refused << " refused");
    }
    CHECK(seen.tokens <= tokens_bound);
    CHECK(seen.slots <= slots + slots_bound);
    CHECK(seen.mapped <= mapped + mapped_bound);
    CHECK(tg::test::live_slots() == slots);
}

// ---- a stop -------------------------------------------------------------------------------------------------------------

/// Submits until it is refused for good.
void submit_until_closed(tg::runtime& to, std::vector<std::future<void>>& all) {
    for (;;) {
        try {
            all.push_back(to.submit(work(payload{})));
            ++at->offered;
        } catch (const tg::admission_rejected&) {
            std::this_thread::yield();
        } catch (const tg::gate_closed&) {
            ++at->done;
            return;
        }
    }
}

void stop_in_the_midst(tg::backlog_policy policy, bool graceful) {
    counted::reset();
    const std::size_t slots = tg::test::live_slots();
    load now;
    at = &now;
    {
        tg::runtime runtime(options_for(policy));
        runtime.start();
        std::array<std::vector<std::future<void>>, 4> all;
        std::vector<std::thread> submitting;
        for (auto& each : all) submitting.emplace_back([&] { submit_until_closed(runtime, each); });
        wait_until([&] { return counted::alive() > static_cast<int>(limit); });
        now.credits.release(per_round);
        wait_until([&] { return now.ran == per_round && runtime.snapshot().waiting >= limit / 2; });
        std::atomic<bool> complete{false};
        std::thread stopping([&] {
            complete = runtime.stop(10min, graceful ? 10min : 0min).complete();
        });
        // Let go while no core does anything.
        for (std::thread& each : submitting) each.join();
        CHECK(now.done == all.size());
        if (!graceful) wait_until([&] { return runtime.snapshot().waiting == 0; });
        now.credits.release(1'000'000);
        stopping.join();
        CHECK(complete);
        for (auto& each : all)
            for (std::future<void>& one : each) note(one);
        CHECK(now.ran + now.refused + now.stopped == now.offered);
        CHECK((now.stopped == 0) == graceful);
        CHECK(now.lost == 0);
        tg::test::check_settled(runtime);
    }
    CHECK(counted::alive() == 0);
    CHECK(tg::test::live_slots() == slots);
}

constexpr std::array policies{tg::backlog_policy::wait, tg::backlog_policy::reject,
                              tg::backlog_policy::shed_oldest};

}  // namespace

TEST_SUITE("stress: overload") {
    TEST_CASE("who offers waits: memory stays, waiting can be cancelled, nothing is refused") {
        overload(tg::backlog_policy::wait);
    }
    TEST_CASE("newcomers are refused, and counted; memory stays, waiting can be cancelled") {
        overload(tg::backlog_policy::reject);
    }
    TEST_CASE("the oldest are refused, and counted; memory stays, waiting can be cancelled") {
        overload(tg::backlog_policy::shed_oldest);
    }
    TEST_CASE("as fast as they can: memory stays") {
        for (const tg::backlog_policy each : policies) offer_at_full_speed(each);
    }
    TEST_CASE("a stop in the midst of it lets go who waits to submit, and ends") {
        for (const tg::backlog_policy each : policies) {
            stop_in_the_midst(
                each,
                true);  // nothing is asked to stop, and no core makes room: it is the closing that they hear of
            stop_in_the_midst(each, false);
        }
    }
}
