// SPDX-License-Identifier: MIT
#include <tokengate/runtime.hpp>

#include "support/child.hpp"
#include "support/manual_event.hpp"
#include "support/waiting.hpp"

#include <tokengate/operation.hpp>
#include <tokengate/when_all.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <future>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace tg = tokengate;
using namespace std::chrono_literals;
using tg::test::in_child;
using tg::test::manual_event;
using tg::test::wait_until;

namespace {

const tg::operation twice{{.name = "runtime_test_twice", .weight = tg::weight::light},
                          [](int n) { return 2 * n; }};
const tg::operation adds{{.name = "runtime_test_adds"}, [](std::atomic<int>* to) { ++*to; }};
const tg::operation waits{{.name = "runtime_test_waits"},
                          [](manual_event* event, int result) -> tg::task<int> {
                              co_await *event;
                              co_return result;
                          }};
const tg::operation awaits_waits{
    {.name = "runtime_test_awaits_waits"},
    [](manual_event* event) -> tg::task<int> { co_return co_await waits(event, 3) + 1; }};
const tg::operation slow_waits{{.name = "runtime_test_slow_waits", .storage = tg::storage::slow},
                               [](manual_event* event) -> tg::task<> { co_await *event; }};
const tg::operation sticky_waits{
    {.name = "runtime_test_sticky_waits"},
    tg::sticky{"runtime_test", [](int key, manual_event*) { return key; }},
    [](int, manual_event* event) -> tg::task<> { co_await *event; }};
const tg::operation fails{{.name = "runtime_test_fails"},
                          [](std::string text) -> int { throw std::out_of_range(text); }};
const tg::operation fails_oddly{{.name = "runtime_test_fails_oddly"}, [] { throw 42; }};
/// Holds its core until it is let go.
const tg::operation blocks{{.name = "runtime_test_blocks", .weight = tg::weight::heavy},
                           [](std::atomic<bool>* go) { go->wait(false); }};
const tg::operation leads{{.name = "runtime_test_leads"},
                          tg::lead{"runtime_test_calls"},
                          [](std::function<void()> what, manual_event* event) -> tg::task<> {
                              what();
                              co_await *event;
                          }};

bool has(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

std::optional<tg::token_info> find(const tg::runtime& runtime, const tg::token_id& id) {
    for (const tg::token_info& each : runtime.tokens())
        if (each.id.sequence == id.sequence) return each;
    return {};
}

}  // namespace

TEST_SUITE("runtime: looking") {
    TEST_CASE(
        "tokens that wait, are admitted and execute are listed with operation, core, age and who "
        "awaits them") {
        manual_event release;
        std::atomic<bool> go{false};
        tg::runtime runtime{{.cores = 1, .storage = {.slow = 1}}};
        runtime.start();
        CHECK(runtime.tokens().empty());

        // Two want the one permit.
        auto first = slow_waits(&release), second = slow_waits(&release);
        const tg::token_id runs = first.id(), waits_for_permit = second.id();
        auto first_ended = runtime.submit(std::move(first));
        auto second_ended = runtime.submit(std::move(second));
        // One awaits another.
        auto outer = awaits_waits(&release);
        const tg::token_id outer_id = outer.id();
        auto outer_ended = runtime.submit(std::move(outer));
        wait_until([&] {
            const auto now = runtime.tokens();
            return std::count_if(now.begin(), now.end(),
                                 [](const auto& t) {
                                     return t.state == tg::token_state::executing;
                                 }) == 3 &&
                   now.size() == 4;
        });
        for (const tg::token_info& each : runtime.tokens()) {
            CAPTURE(each.id.text());
            CHECK(each.age > 0ns);
            CHECK(each.age < std::chrono::hours(1));
            CHECK(each.core == (each.state == tg::token_state::waiting ? tg::control_core : 0));
            if (each.id == runs) CHECK(each.state == tg::token_state::executing);
            if (each.id == waits_for_permit) CHECK(each.state == tg::token_state::waiting);
            if (each.id.operation == "runtime_test_waits") {
                CHECK(each.awaited_by_sequence == outer_id.sequence);
            } else {
                CHECK(each.awaited_by_sequence == 0);
            }
        }

        // One holds the core: others are routed to it, up to its window, and the rest waits at the gate.
        auto blocker = blocks(&go);
        const tg::token_id blocker_id = blocker.id();
        auto blocker_ended = runtime.submit(std::move(blocker));
        wait_until([&] {
            const auto found = find(runtime, blocker_id);
            return found && found->state == tg::token_state::executing;
        });
        std::atomic<int> ran{0};
        std::vector<std::future<void>> more;
        for (int i = 0; i < 3000; ++i) more.push_back(runtime.submit(adds(&ran)));
        const auto count = [&](tg::token_state state) {
            const auto now = runtime.tokens();
            return std::count_if(now.begin(), now.end(), [&](const auto& t) {
                return t.state == state && t.id.operation == "runtime_test_adds";
            });
        };
        wait_until([&] {
            return count(tg::token_state::waiting) + count(tg::token_state::admitted) == 3000;
        });
        CHECK(count(tg::token_state::admitted) > 0);
        CHECK(count(tg::token_state::waiting) > 0);
        wait_until([&] {
            return runtime.snapshot().waiting ==
                   static_cast<std::uint64_t>(count(tg::token_state::waiting));
        });
        CHECK(ran == 0);

        go = true;
        go.notify_all();
        release.set();
        for (auto& each : more) each.get();
        first_ended.get();
        second_ended.get();
        CHECK(outer_ended.get() == 4);
        blocker_ended.get();
        CHECK(runtime.stop().complete());
        CHECK(runtime.tokens().empty());
        CHECK(ran == 3000);
    }

    TEST_CASE("what belongs to a conducted chain is listed with its lead") {
        manual_event release;
        tg::runtime runtime{{.cores = 1}};
        runtime.start();
        tg::token_id child_id, unadmitted_id;
        std::optional<tg::token<int>> unadmitted;
        auto lead = leads(
            [&] {
                tg::token<int> child = waits(&release, 1);
                child_id = child.id();
                child.admit();  // and runs on by itself
                unadmitted = waits(&release, 2);
                unadmitted_id = unadmitted->id();
            },
            &release);
        const tg::token_id lead_id = lead.id();
        auto stranger = waits(&release, 3);
        const tg::token_id stranger_id = stranger.id();
        auto lead_ended = runtime.submit(std::move(lead));
        auto stranger_ended = runtime.submit(std::move(stranger));
        wait_until([&] {
            const auto now = runtime.tokens();
            return std::count_if(now.begin(), now.end(), [](const auto& t) {
                       return t.state == tg::token_state::executing;
                   }) == 3;
        });
        CHECK(runtime.tokens().size() == 4);
        CHECK(find(runtime, lead_id).value_or(tg::token_info{}).domain == lead_id);
        CHECK(find(runtime, child_id).value_or(tg::token_info{}).domain == lead_id);
        CHECK(find(runtime, stranger_id).value_or(tg::token_info{}).domain == tg::token_id{});
        const tg::token_info waiting = find(runtime, unadmitted_id).value_or(tg::token_info{});
        CHECK(waiting.domain == lead_id);
        CHECK(waiting.state == tg::token_state::created);
        CHECK(waiting.core == tg::control_core);
        CHECK(waiting.awaited_by_sequence == 0);
        unadmitted.reset();  // here, from afar: it has to go home first
        wait_until([&] { return !find(runtime, unadmitted_id); });
        release.set();
        lead_ended.get();
        CHECK(stranger_ended.get() == 3);
        CHECK(runtime.stop().complete());
        CHECK(runtime.tokens().empty());
    }

    TEST_CASE(
        "one that nobody has admitted yet is listed as created, nowhere, and goes when it is "
        "dropped") {
        tg::runtime runtime{{.cores = 1}};
        runtime.run([&]() -> tg::task<> {
            const int four = co_await twice(
                2);  // in the frame that the next one gets: none of this is to be seen of it
            CHECK(four == 4);
            tg::token_id id;
            {
                const tg::token<int> made = twice(3);
                id = made.id();
                const tg::token_info listed = find(runtime, id).value_or(tg::token_info{});
                CHECK(listed.id == id);
                CHECK(listed.state == tg::token_state::created);
                CHECK(listed.core == tg::control_core);
                CHECK(listed.awaited_by_sequence == 0);
                CHECK(listed.domain == tg::token_id{});
                CHECK(runtime.tokens().size() == 2);  // with main
            }
            CHECK_FALSE(find(runtime, id));
            CHECK(runtime.tokens().size() == 1);
        });
    }

    TEST_CASE("a snapshot's counts are exact when nothing moves") {
        manual_event release;
        tg::runtime runtime{{.cores = 2}};
        runtime.start();
        std::vector<std::future<void>> held;
        for (int i = 0; i < 4; ++i)
            held.push_back(runtime.submit(sticky_waits(i % 2, &release)));  // two keys, twice each
        held.push_back(runtime.submit(leads([&] { sticky_waits(9, &release).admit(); },
                                            &release)));  // bypasses its key
        const auto executing = [&] {
            const auto now = runtime.tokens();
            return std::count_if(now.begin(), now.end(), [](const auto& t) {
                return t.state == tg::token_state::executing;
            });
        };
        wait_until([&] { return executing() == 6; });
        tg::snapshot now = runtime.snapshot();
        CHECK(now.admitted == 6);
        CHECK(now.ended == 0);
        CHECK(now.waiting == 0);
        CHECK(now.domains == 1);
        CHECK(now.pins == 2);
        CHECK(now.redirections == 2);
        CHECK(now.sticky_bypassed == 1);
        CHECK(now.busy_ns.size() == 2);
        release.set();
        CHECK(runtime.stop().complete());
        now = runtime.snapshot();
        CHECK(now.admitted == 6);
        CHECK(now.ended == 6);
        CHECK(now.domains == 0);
        CHECK(now.pins == 0);
        CHECK(now.redirections == 2);
        CHECK(std::max(now.busy_ns[0], now.busy_ns[1]) > 0);
    }

    TEST_CASE("tokens and snapshot may be asked from any thread while all is moving") {
        tg::runtime runtime{{.cores = 3}};
        std::atomic<bool> done{false};
        std::vector<std::thread> lookers;
        for (int i = 0; i < 2; ++i)
            lookers.emplace_back([&] {
                while (!done) {
                    for (const tg::token_info& each : runtime.tokens()) {
                        CHECK(each.state != tg::token_state::none);
                        CHECK_FALSE(each.id.operation.empty());
                    }
                    const tg::snapshot now = runtime.snapshot();
                    CHECK(now.ended <= now.admitted);
                }
            });
        runtime.run([]() -> tg::task<> {
            for (int round = 0; round < 50; ++round) {
                std::vector<tg::token<int>> tokens;
                for (int i = 0; i < 100; ++i) tokens.push_back(twice(i));
                auto all = tg::when_all(std::move(tokens));
                co_await std::move(all);
            }
        });
        done = true;
        for (std::thread& each : lookers) each.join();
    }

    TEST_CASE("a failure that nobody can hear goes to the handler") {
        std::mutex mutex;
        std::vector<std::string> heard;
        {
            tg::runtime runtime{{.cores = 2, .on_failure = [&](const tg::failure& failed) {
                                     try {
                                         std::rethrow_exception(failed.error);
                                     } catch (const std::exception& thrown) {
                                         const std::scoped_lock lock(mutex);
                                         heard.push_back(std::string(failed.id.operation) + ": " +
                                                         thrown.what());
                                     }
                                 }}};
            runtime.run([]() -> tg::task<> {
                fails("detached").admit();
                co_return;
            });
        }
        CHECK(heard == std::vector<std::string>{"runtime_test_fails: detached"});
    }

    TEST_CASE("without a handler it is a line on stderr, also for what is no std::exception") {
        const auto child = in_child([] {
            tg::runtime runtime{{.cores = 1}};
            runtime.run([]() -> tg::task<> {
                fails("the reason").admit();
                fails_oddly().admit();
                co_return;
            });
            return std::string("ran on");
        });
        CHECK(child.ended);
        CHECK(child.said == "ran on");
        CHECK(has(child.complained, "tokengate: runtime_test_fails_"));
        CHECK(has(child.complained, "failed and nobody awaits it: the reason\n"));
        CHECK(has(child.complained, "tokengate: runtime_test_fails_oddly_"));
    }

    TEST_CASE("a handler that throws does not end the process, and the failure is still told") {
        const auto child = in_child([] {
            tg::runtime runtime{{.cores = 1, .on_failure = [](const tg::failure&) {
                                     throw std::runtime_error("the handler's");
                                 }}};
            return std::to_string(runtime.run([]() -> tg::task<int> {
                fails("the reason").admit();
                co_return co_await twice(4);
            }));
        });
        CHECK(child.ended);
        CHECK(child.said == "8");
        CHECK(has(child.complained, "the failure handler itself threw"));
        CHECK(has(child.complained, "the reason"));
    }
}
