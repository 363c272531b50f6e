// SPDX-License-Identifier: MIT
#include "lifecycle/service.hpp"

#include "lifecycle/runtime_core.hpp"

#include <doctest/doctest.h>
#include <tokengate/error.hpp>
#include <tokengate/operation.hpp>
#include <tokengate/runtime.hpp>
#include <tokengate/stop.hpp>
#include <tokengate/task_token.hpp>
#include <tokengate/time.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "support/manual_event.hpp"
#include "support/settled.hpp"
#include "support/waiting.hpp"

namespace tg = tokengate;
using namespace std::chrono_literals;
using tg::detail::service;
using tg::test::wait_until;

namespace {

tg::detail::runtime_core& core_of(tg::runtime& runtime) {
    return tg::detail::runtime_access::core(runtime);
}

/// What instances of a service have done.
struct life {
    std::atomic<int> begun{0};
    std::atomic<int> ended{0};

    struct entry {
        explicit entry(life& noted) : of(noted) { ++of.begun; }
        ~entry() { ++of.ended; }
        life& of;
    };
};

tg::task<> sleep_for_ever(life& noted) {
    const life::entry here(noted);
    co_await tg::sleep_for(10000h);
}

tg::task<> nothing() { co_return; }

std::size_t listed(const std::vector<tg::token_info>& tokens, std::string_view name) {
    return static_cast<std::size_t>(
        std::count_if(tokens.begin(), tokens.end(), [&](const auto& each) {
            return each.id.operation == name && each.state == tg::token_state::executing;
        }));
}

/// Collects what a runtime warns of.
struct warnings {
    std::mutex mutex;
    std::vector<std::string> said;

    std::function<void(std::string_view)> handler() {
        return [this](std::string_view text) {
            const std::scoped_lock lock(mutex);
            said.emplace_back(text);
        };
    }
    std::size_t count() {
        const std::scoped_lock lock(mutex);
        return said.size();
    }
};

}  // namespace

TEST_CASE("a service runs while the runtime runs, and does not keep it") {
    tg::runtime runtime{{.cores = 1}};
    life noted;
    const service sleeper(core_of(runtime), [&] { return sleep_for_ever(noted); }, "sleeper");
    CHECK(noted.begun == 0);
    const int result = runtime.run([&]() -> tg::task<int> {
        co_await tg::test::until([&] { return noted.begun == 1; });
        CHECK(noted.ended == 0);
        co_return 42;
    });
    CHECK(result == 42);
    CHECK(noted.ended == 1);
    tg::test::check_settled(runtime);
}

TEST_CASE("it is started anew each time") {
    tg::runtime runtime{{.cores = 1}};
    life noted;
    const service sleeper(core_of(runtime), [&] { return sleep_for_ever(noted); }, "sleeper");
    for (int times = 1; times <= 3; ++times) {
        runtime.run([&]() -> tg::task<> {
            co_await tg::test::until([&] { return noted.begun == times; });
        });
        CHECK(noted.ended == times);
    }
    runtime.start();
    wait_until([&] { return noted.begun == 4; });
    CHECK(noted.ended == 3);
    CHECK(runtime.stop().complete());
    CHECK(noted.ended == 4);
}

TEST_CASE("tokens() lists it by its name; sums and the report of a stop leave it out") {
    tg::runtime runtime{{.cores = 1}};
    life noted;
    const service sleeper(core_of(runtime), [&] { return sleep_for_ever(noted); }, "sleeper");
    tg::test::manual_event go;
    runtime.start();
    wait_until([&] { return noted.begun == 1; });
    CHECK(listed(runtime.tokens(), "sleeper") == 1);
    CHECK(runtime.snapshot().admitted == runtime.snapshot().ended);

    const tg::operation hold{{.name = "service_test hold"}, [&]() -> tg::task<> { co_await go; }};
    auto held = runtime.submit(hold());
    wait_until([&] { return listed(runtime.tokens(), "service_test hold") == 1; });
    const tg::stop_report report = runtime.stop(1ms, 1ms);
    REQUIRE(report.survivors.size() == 1);
    CHECK(report.survivors[0].id.operation == "service_test hold");
    CHECK(noted.ended == 0);  // it stays as long as somebody does

    go.set();
    held.get();
    CHECK(runtime.stop().complete());
    CHECK(noted.ended == 1);
}

TEST_CASE("it may be added and removed while the runtime runs") {
    tg::runtime runtime{{.cores = 1}};
    runtime.start();
    life noted;
    for (int times = 1; times <= 20; ++times) {
        const service sleeper(core_of(runtime), [&] { return sleep_for_ever(noted); }, "sleeper");
        if (times % 2) wait_until([&] { return noted.begun != noted.ended; });
    }
    CHECK(noted.begun == noted.ended);  // which each destructor has waited for
    CHECK(noted.begun >= 10);
    CHECK(runtime.stop().complete());
}

TEST_CASE("one that was never hosted, or is not hosted now, goes at once") {
    life noted;
    tg::runtime runtime{{.cores = 1}};
    {
        const service never(core_of(runtime), [&] { return sleep_for_ever(noted); }, "never");
    }
    CHECK(noted.begun == 0);
    {
        const service between(core_of(runtime), [&] { return sleep_for_ever(noted); }, "between");
        runtime.run([&]() -> tg::task<> {
            co_await tg::test::until([&] { return noted.begun == 1; });
        });
    }
    runtime.run(nothing());
    CHECK(noted.begun == 1);
    const service after_all(core_of(runtime), [&] { return sleep_for_ever(noted); }, "after all");
    CHECK(runtime.stop().complete());
    CHECK(noted.begun == 1);  // a runtime that is only to end serves nobody
}

TEST_CASE("destroyed on a loop, it is asked to stop, and what it holds outlives it until then") {
    tg::runtime runtime{{.cores = 1}};
    const auto noted = std::make_shared<life>();
    runtime.run([&]() -> tg::task<> {
        auto sleeper = std::make_unique<service>(
            core_of(runtime), [noted] { return sleep_for_ever(*noted); }, "sleeper");
        co_await tg::test::until([&] { return noted->begun == 1; });
        sleeper.reset();
        co_await tg::test::until([&] { return noted->ended == 1; });
        co_await tg::test::until([&] { return noted.use_count() == 1; });
    });
    CHECK(noted->begun == 1);
}

TEST_CASE("one that throws ends with a warning, and comes back with the next run only") {
    warnings heard;
    tg::runtime runtime{{.cores = 1, .on_warning = heard.handler()}};
    std::atomic<int> begun{0};
    const service failing(
        core_of(runtime),
        [&]() -> tg::task<> {
            ++begun;
            co_await tg::yield();
            throw std::runtime_error("no luck today");
        },
        "failing");
    const service not_even_made(
        core_of(runtime), []() -> tg::task<> { throw std::runtime_error("not even made"); },
        "not even made");
    runtime.run([&]() -> tg::task<> {
        co_await tg::test::until([&] { return heard.count() == 2; });
        for (int i = 0; i < 10; ++i) co_await tg::yield();
    });
    CHECK(begun == 1);
    CHECK(heard.count() == 2);
    const bool named =
        std::all_of(heard.said.begin(), heard.said.end(), [](const std::string& text) {
            return text.find("the service \"failing\" has ended") != std::string::npos
                       ? text.find("no luck today") != std::string::npos
                       : text.find("the service \"not even made\"") != std::string::npos;
        });
    CHECK(named);
    runtime.run([&]() -> tg::task<> {
        co_await tg::test::until([&] { return heard.count() == 4; });
    });
    CHECK(begun == 2);
    tg::test::check_settled(runtime);
}

TEST_CASE("one that returns stays away until the next run, in silence") {
    warnings heard;
    tg::runtime runtime{{.cores = 1, .on_warning = heard.handler()}};
    std::atomic<int> begun{0};
    const service brief(
        core_of(runtime),
        [&]() -> tg::task<> {
            ++begun;
            co_return;
        },
        "brief");
    for (int times = 1; times <= 2; ++times) {
        runtime.run([&]() -> tg::task<> {
            co_await tg::test::until([&] { return begun == times; });
            for (int i = 0; i < 10; ++i) co_await tg::yield();
        });
        CHECK(begun == times);
    }
    CHECK(heard.count() == 0);
}

TEST_CASE("what a service spawns is alive like anything else, also when it spawns as it ends") {
    tg::runtime runtime{{.cores = 2}};
    std::atomic<int> done{0};
    const tg::operation late{{.name = "service_test late"}, [&]() -> tg::task<> {
                                 co_await tg::yield();
                                 ++done;
                             }};
    std::atomic<int> begun{0};
    const service spawner(
        core_of(runtime),
        [&]() -> tg::task<> {
            ++begun;
            try {
                co_await tg::sleep_for(10000h);
            } catch (const tg::token_stopped&) {}
            for (int i = 0; i < 100; ++i) {
                tg::token<> left = late();
                left.admit();
            }
        },
        "spawner");
    for (int times = 1; times <= 3; ++times) {
        runtime.run([&]() -> tg::task<> {
            co_await tg::test::until([&] { return begun == times; });
        });
        CHECK(done == 100 * times);
        tg::test::check_settled(runtime);
    }
}

TEST_CASE("a stop of the whole runtime is not for services: they end last") {
    tg::runtime runtime{{.cores = 1}};
    life noted;
    const service sleeper(core_of(runtime), [&] { return sleep_for_ever(noted); }, "sleeper");
    runtime.start();
    wait_until([&] { return noted.begun == 1; });
    std::atomic<int> ended_then{-1};
    const tg::operation look{{.name = "service_test look"}, [&]() -> tg::task<> {
                                 try {
                                     co_await tg::sleep_for(10000h);
                                 } catch (const tg::token_stopped&) {
                                     ended_then = noted.ended.load();
                                 }
                             }};
    auto looked = runtime.submit(look());
    wait_until([&] { return listed(runtime.tokens(), "service_test look") == 1; });
    CHECK(runtime.stop(10s, 0s).complete());
    CHECK(noted.ended == 1);
    looked.get();
    CHECK(ended_then == 0);
}

TEST_CASE("many services, made and destroyed by several threads while others stop the runtime") {
    tg::runtime runtime{{.cores = 1}};
    runtime.start();
    life noted;
    std::atomic<bool> stopped{false};
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i)
        threads.emplace_back([&] {
            while (!stopped) {
                const service sleeper(
                    core_of(runtime), [&] { return sleep_for_ever(noted); }, "sleeper");
                std::this_thread::yield();
            }
        });
    wait_until([&] { return noted.begun >= 10; });
    CHECK(runtime.stop().complete());
    stopped = true;
    for (std::thread& each : threads) each.join();
    CHECK(noted.begun == noted.ended);
}

TEST_CASE("a task that is run for a service is listed by its name, and is no survivor") {
    tg::runtime runtime{{.cores = 1}};
    tg::test::manual_event go;
    std::atomic<bool> waiting{false};
    const service starter(
        core_of(runtime),
        [&]() -> tg::task<> {
            const auto errand = [](tg::test::manual_event& until,
                                   std::atomic<bool>& noted) -> tg::task<> {
                noted = true;
                co_await until;
            };
            tg::detail::run_detached(errand(go, waiting), "errand");
            co_return;
        },
        "starter");
    runtime.start();
    wait_until([&] { return waiting.load(); });
    CHECK(listed(runtime.tokens(), "errand") == 1);
    CHECK(runtime.snapshot().admitted == runtime.snapshot().ended + 1);
    go.set();
    CHECK(runtime.stop().complete());
}
