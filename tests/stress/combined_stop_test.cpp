// SPDX-License-Identifier: MIT

#include "lifecycle/runtime_core.hpp"
#include "lifecycle/service.hpp"

#include "support/io.hpp"
#include "support/leaks.hpp"
#include "support/settled.hpp"
#include "support/waiting.hpp"

#include <tokengate/tokengate.hpp>

#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <future>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

// A runtime is stopped while tokens wait in every way there is, and some hold their cores and do not let go. Those that spin
// are on cores of their own: what else lives there could not hear of the stop before they end, and is asked for apart.

namespace tg = tokengate;
using namespace std::chrono_literals;
using tg::test::counted;
using tg::test::open_descriptors;
using tg::test::wait_until;

namespace {

constexpr int keys = 12;
constexpr unsigned cores = 3;
constexpr std::size_t backlog_limit = 8, permit_waiters = 3,
                      held_by_pause = 4;  // and one that the drain holds

struct scene {
    std::atomic<int> begun{0}, failed{0}, never{0};
    std::atomic<int> spinning{0};
    std::atomic<bool> let_go{false}, draining{false};
    std::array<std::atomic<bool>, keys> spins{};
    tg::semaphore others{0}, chosen{0}, never_released{0};
};
scene* at = nullptr;

/// In every frame: seen to be gone when the frame has gone.
struct present {
    counted here;
    present() { ++at->begun; }
};

constexpr tg::weight everywhere = tg::weight::heavy,
                     last_core = tg::weight::light;  // of three, without spilling

// ---- those that keep their core -----------------------------------------------------------------------------------------

const tg::operation candidate{{.name = "combined_spins", .weight = everywhere},
                              tg::sticky{"combined", [](int key) { return key; }},
                              [](int key) -> tg::task<int> {
                                  const present here;
                                  co_await at->others.acquire();
                                  if (!at->spins[static_cast<std::size_t>(key)]) co_return key;
                                  co_await at->chosen.acquire();
                                  ++at->spinning;
                                  while (!at->let_go) {}
                                  co_return key;
                              }};
const tg::operation neighbour{{.name = "combined_neighbour", .weight = everywhere},
                              tg::sticky{"combined", [](int key) { return key; }},
                              [](int) -> tg::task<> {
                                  const present here;
                                  co_await tg::sleep_for(10000h);
                              }};
const tg::operation follower{{.name = "combined_follower", .weight = everywhere},
                             tg::sticky{"combined", [](int key) { return key; }},
                             [](int) { ++at->never; }};

// ---- those that wait ----------------------------------------------------------------------------------------------------

tg::task<> sleep_body() {
    const present here;
    co_await tg::sleep_for(10000h);
}
const tg::operation sleeps{{.name = "combined_sleeps", .weight = last_core}, sleep_body};
const tg::operation drained{{.name = "combined_drained", .weight = last_core}, sleep_body};
const tg::operation limited{{.name = "combined_limited", .weight = last_core, .timeout = 10000h},
                            sleep_body};
const tg::operation holds_permit{
    {.name = "combined_permit", .weight = last_core, .storage = tg::storage::slow}, sleep_body};
const tg::operation conducted{{.name = "combined_child"}, sleep_body};
const tg::operation leads{
    {.name = "combined_lead", .weight = last_core}, tg::lead{"combined_child"}, []() -> tg::task<> {
        const present here;
        co_await conducted();
    }};
const tg::operation waits{{.name = "combined_waits", .weight = last_core}, []() -> tg::task<> {
                              const present here;
                              co_await at->never_released.acquire();
                          }};
const tg::operation waits_for_permit{
    {.name = "combined_for_permit", .weight = last_core, .storage = tg::storage::slow},
    [](counted) { ++at->never; }};
const tg::operation held{{.name = "combined_held", .weight = last_core},
                         [](counted) { ++at->never; }};
const tg::operation retried{{.name = "combined_retried",
                             .weight = last_core,
                             .retry = {.attempts = 2, .backoff = 10000h, .max_backoff = 10000h}},
                            [](const counted&) {
                                ++at->failed;
                                throw std::runtime_error("meant to");
                            }};
const tg::operation detaches{{.name = "combined_detaches", .weight = last_core},
                             []() -> tg::task<> {
                                 for (int i = 0; i < 3; ++i) {
                                     tg::token<void> dropped = sleeps();
                                     dropped.admit();
                                 }
                                 co_return;
                             }};
const tg::operation reads{{.name = "combined_reads", .weight = last_core}, []() -> tg::task<> {
                              tg::test::ends pair = co_await tg::test::connected();
                              std::vector<std::byte> buffer(1 << 16);
                              const present here;
                              co_await pair.server.read(buffer);
                          }};
const tg::operation receives{{.name = "combined_receives", .weight = last_core},
                             []() -> tg::task<> {
                                 tg::test::ends pair = co_await tg::test::connected();
                                 co_await pair.client.write_all(tg::test::bytes_of("once"));
                                 const tg::chunk first = co_await pair.server.receive();
                                 const present here;
                                 co_await pair.server.receive();
                             }};
const tg::operation accepts{{.name = "combined_accepts", .weight = last_core}, []() -> tg::task<> {
                                tg::listener from = tg::tcp::listen(tg::endpoint::loopback_v4(0));
                                const present here;
                                co_await from.accept();
                            }};
const tg::operation reads_pipe{{.name = "combined_pipe", .weight = last_core}, []() -> tg::task<> {
                                   std::array<int, 2> pipe{};
                                   if (::pipe2(pipe.data(), O_CLOEXEC) != 0)
                                       throw std::runtime_error("no pipe");
                                   const tg::file::handle written(pipe[1], "the pipe's other end");
                                   tg::file::handle from(pipe[0], "a pipe");
                                   std::vector<std::byte> buffer(1 << 16);
                                   const present here;
                                   co_await from.read(buffer);
                               }};
const tg::operation blocks{
    {.name = "combined_blocks", .weight = last_core}, []() -> tg::task<> {
        const present here;
        auto look = [stop = tg::this_token::stop()] {
            while (!stop.stop_requested()) std::this_thread::yield();
        };
        co_await tg::blocking(look);
        co_await tg::yield();  // what the call returned counts; this is where it hears of the stop
    }};
const tg::operation groups{{.name = "combined_groups", .weight = last_core}, []() -> tg::task<> {
                               const present here;
                               co_await tg::when_all(sleeps(), waits());
                           }};
const tg::operation scopes{{.name = "combined_scopes", .weight = last_core}, []() -> tg::task<> {
                               const present here;
                               const auto body = [](tg::scope& jobs) -> tg::task<> {
                                   tg::token<void> child = sleeps();
                                   co_await jobs.spawn(std::move(child));
                                   co_await tg::sleep_for(10000h);
                               };
                               co_await tg::with_scope(body);
                           }};

tg::task<> drain(tg::runtime& of) {
    at->draining = true;
    static_cast<void>(co_await of.gate().drain("combined_drained"));
}
tg::task<> nothing() { co_return; }

/// How each of them has ended.
enum class outcome { returned, stopped, closed, other };

outcome outcome_of(std::future<void>& of) {
    try {
        of.get();
    } catch (const tg::token_stopped&) {
        return outcome::stopped;
    } catch (...) {
        return outcome::other;
    }
    return outcome::returned;
}

std::size_t alive(const tg::runtime& in, std::string_view operation) {
    const std::vector<tg::token_info> all = in.tokens();
    return static_cast<std::size_t>(std::ranges::count(
        all, operation, [](const tg::token_info& each) { return each.id.operation; }));
}

using line = std::tuple<std::string_view, tg::token_state, unsigned>;

std::vector<line> lines_of(const std::vector<tg::token_info>& tokens) {
    std::vector<line> all;
    for (const tg::token_info& each : tokens)
        if (each.id.operation != "combined_service")
            all.emplace_back(each.id.operation, each.state, each.core);
    std::ranges::sort(all);
    return all;
}

/// Has one token spin on each of the cores 0 … on - 1, and nobody else there. Their ids, by core.
std::map<unsigned, tg::token_id> hold_cores(tg::runtime& runtime, unsigned on, bool with_neighbours,
                                            std::vector<std::future<int>>& spinners,
                                            std::vector<std::future<void>>& others) {
    std::map<unsigned, std::pair<int, tg::token_id>> by_core;
    for (int key = 0; key < keys; ++key) {
        tg::token<int> made = candidate(key);
        const tg::token_id id = made.id();
        spinners.push_back(runtime.submit(std::move(made)));
        wait_until([key] { return at->begun == key + 1; });
        for (const tg::token_info& each : runtime.tokens())
            if (each.id == id && each.core < on) by_core.try_emplace(each.core, key, id);
    }
    REQUIRE(by_core.size() == on);
    std::map<unsigned, tg::token_id> found;
    for (const auto& [core, chosen] : by_core) {
        const auto& [key, id] = chosen;
        at->spins[static_cast<std::size_t>(key)] = true;
        found.emplace(core, id);
        const int before = at->begun;
        if (with_neighbours) {
            others.push_back(runtime.submit(neighbour(key)));
            wait_until([before] { return at->begun == before + 1; });
        }
    }
    at->others.release(keys);
    for (std::size_t key = keys; key-- > 0;) {  // none must be behind one who spins
        if (at->spins[key]) continue;
        CHECK(spinners[key].get() == static_cast<int>(key));
        spinners.erase(spinners.begin() + static_cast<std::ptrdiff_t>(key));
    }
    at->chosen.release(on);
    wait_until([&] { return at->spinning == static_cast<int>(on); });
    if (with_neighbours)
        for (const auto& [core, chosen] : by_core)
            for (int i = 0; i < 3; ++i) others.push_back(runtime.submit(follower(chosen.first)));
    wait_until([&] {
        return alive(runtime, "combined_follower") == (with_neighbours ? 3 * on : 0);
    });
    return found;
}

/// Asks for a stop that comes back at once, whoever spins. One that does not is a failure, and no hang: they are let go.
tg::stop_report stop_at_once(tg::runtime& runtime) {
    std::future<tg::stop_report> stopping =
        std::async(std::launch::async, [&] { return runtime.stop(1ms, 0s); });
    const bool came_back = stopping.wait_for(10s) == std::future_status::ready;
    CHECK_MESSAGE(came_back, "a stop with a deadline of 1 ms has not come back for 10 s");
    if (!came_back) at->let_go = true;
    return stopping.get();
}

void stop_it_all(unsigned spinning_cores, bool with_neighbours) {
    counted::reset();
    const std::size_t slots = tg::test::live_slots();
    const std::size_t descriptors = open_descriptors();
    scene here;
    at = &here;
    {
        std::atomic<int> reported{0};
        tg::runtime runtime{{.cores = cores,
                             .spill = tg::spill::never,
                             .storage = {.slow = 1},
                             .blocking_threads = 1,
                             .backlog = {.limit = backlog_limit},
                             .on_failure = [&](const tg::failure&) { ++reported; }}};
        std::atomic<int> services{0};
        const auto serve = [&services]() -> tg::task<> {
            const counted own;
            ++services;
            try {
                co_await tg::sleep_for(10000h);
            } catch (const tg::token_stopped&) {
                --services;
            }
        };
        const tg::detail::service service(tg::detail::runtime_access::core(runtime), serve,
                                          "combined_service");
        runtime.start();
        wait_until([&] { return services == 1; });
        const std::size_t own_descriptors = open_descriptors();

        std::vector<std::future<int>> spinners;
        std::vector<std::future<void>> waiting;
        const std::map<unsigned, tg::token_id> ids =
            hold_cores(runtime, spinning_cores, with_neighbours, spinners, waiting);

        here.begun = 0;
        for (int i = 0; i < 2; ++i) {
            waiting.push_back(runtime.submit(reads()));
            waiting.push_back(runtime.submit(receives()));
            waiting.push_back(runtime.submit(accepts()));
            waiting.push_back(runtime.submit(reads_pipe()));
            waiting.push_back(runtime.submit(sleeps()));
            waiting.push_back(runtime.submit(limited()));
            waiting.push_back(runtime.submit(drained()));
            waiting.push_back(runtime.submit(leads()));
            waiting.push_back(runtime.submit(waits()));
            waiting.push_back(
                runtime.submit(blocks()));  // the second waits for the pool's only thread
            waiting.push_back(runtime.submit(groups()));
            waiting.push_back(runtime.submit(scopes()));
            waiting.push_back(runtime.submit(tg::as_token(sleep_body())));
        }
        waiting.push_back(runtime.submit(retried(counted())));
        waiting.push_back(runtime.submit(holds_permit()));
        runtime.submit(detaches()).get();
        wait_until([&] {
            return here.begun == 2 * 13 + 2 /* children of leads */ + 2 * 2 + 2 + 1 + 3;
        });
        wait_until([&] { return here.failed == 1 && alive(runtime, "combined_retried") == 1; });
        std::atomic<bool> drain_is_over{false};
        std::thread drains([&] {
            static_cast<void>(runtime.gate().wait_drained("combined_drained"));
            drain_is_over = true;
        });
        wait_until([&] { return runtime.gate().paused("combined_drained"); });
        std::future<void> draining = runtime.submit(tg::as_token(drain(runtime)));
        wait_until([&] { return here.draining.load(); });
        runtime.submit(tg::as_token(nothing()))
            .get();  // behind it on its loop: it has begun to drain
        runtime.gate().pause("combined_held");
        for (std::size_t i = 0; i < held_by_pause; ++i)
            waiting.push_back(runtime.submit(held(counted())));
        waiting.push_back(runtime.submit(drained()));
        for (std::size_t i = 0; i < permit_waiters; ++i)
            waiting.push_back(runtime.submit(waits_for_permit(counted())));
        wait_until([&] {
            const tg::snapshot now = runtime.snapshot();
            return now.held == held_by_pause + 1 && now.waiting_for_permit == permit_waiters;
        });
        static_assert(held_by_pause + 1 + permit_waiters == backlog_limit);
        outcome blocked = outcome::other;
        std::thread submits([&] {
            try {
                static_cast<void>(runtime.submit(held(counted())));
                blocked = outcome::returned;
            } catch (const tg::gate_closed&) {
                blocked = outcome::closed;
            }
        });
        CHECK_FALSE(drain_is_over);

        // Comes back by its deadline, whoever spins. How far the others have come by then is another matter.
        const tg::stop_report first = stop_at_once(runtime);
        CHECK_FALSE(here.let_go);
        for (const auto& [core, id] : ids)
            CHECK(std::ranges::count(first.survivors, id, &tg::token_info::id) == 1);

        std::vector<line> expected;
        for (const auto& [core, id] : ids) {
            expected.emplace_back("combined_spins", tg::token_state::executing, core);
            if (!with_neighbours) continue;
            expected.emplace_back("combined_neighbour", tg::token_state::executing, core);
            for (int i = 0; i < 3; ++i)
                expected.emplace_back("combined_follower", tg::token_state::admitted, core);
        }
        std::ranges::sort(expected);
        wait_until([&] {
            return runtime.tokens().size() <= expected.size() + 1;
        });  // and the service
        submits.join();
        drains.join();
        CHECK(blocked == outcome::closed);

        const tg::stop_report second = stop_at_once(runtime);
        CHECK_FALSE(here.let_go);
        CHECK((lines_of(second.survivors) == expected));
        for (const auto& [core, id] : ids)
            CHECK(std::ranges::count(second.survivors, id, &tg::token_info::id) == 1);
        CHECK(services == 1);  // it serves who stays
        const int frames_left = static_cast<int>(ids.size()) * (with_neighbours ? 2 : 1) + 1;
        wait_until([&] {
            return counted::alive() <= frames_left && open_descriptors() <= own_descriptors;
        });
        CHECK(counted::alive() == frames_left);
        CHECK(open_descriptors() == own_descriptors);
        const tg::snapshot now = runtime.snapshot();
        CHECK(now.waiting == 0);
        CHECK(now.waiting_for_permit == 0);
        CHECK(now.held == 0);
        CHECK(now.domains == 0);
        CHECK(now.pins == ids.size());
        CHECK(runtime.gate().storage_in_use(tg::storage::slow) == 0);

        here.let_go = true;
        CHECK(runtime.stop(1min).complete());
        CHECK(services == 0);
        for (std::future<int>& each : spinners)
            CHECK(here.spins[static_cast<std::size_t>(each.get())]);
        CHECK(spinners.size() == ids.size());
        for (std::future<void>& each : waiting) CHECK(outcome_of(each) == outcome::stopped);
        CHECK(outcome_of(draining) !=
              outcome::other);  // it may have looked in between, and found that all had ended
        CHECK(here.never == 0);
        CHECK(here.failed == 1);
        CHECK(reported == 0);
        tg::test::check_settled(runtime);
        CHECK(runtime.tokens().empty());
    }
    CHECK(counted::alive() == 0);
    CHECK(counted::wrongly_destroyed() == 0);
    CHECK(tg::test::live_slots() == slots);
    CHECK(open_descriptors() == descriptors);
}

}  // namespace

TEST_SUITE("stress: combined stop") {
    TEST_CASE(
        "one token spins, and all others wait, each in its own way: it is named, they are gone") {
        for (int round = 0; round < 5; ++round) stop_it_all(1, false);
    }
    TEST_CASE(
        "two cores are held: those who spin, and what lives behind them, are named as what they "
        "are") {
        for (int round = 0; round < 5; ++round) stop_it_all(2, true);
    }
}
