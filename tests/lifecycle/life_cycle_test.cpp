// SPDX-License-Identifier: MIT

#include "support/child.hpp"
#include "support/leaks.hpp"
#include "support/manual_event.hpp"
#include "support/thrown.hpp"
#include "support/waiting.hpp"

#include <tokengate/operation.hpp>
#include <tokengate/runtime.hpp>
#include <tokengate/stop.hpp>
#include <tokengate/this_token.hpp>
#include <tokengate/time.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <future>
#include <latch>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace tg = tokengate;
using namespace std::chrono_literals;
using tg::test::blockade;
using tg::test::counted;
using tg::test::live_slots;
using tg::test::manual_event;
using tg::test::until;
using tg::test::wait_until;
using tg::test::what_of;

namespace {

const tg::operation twice{{.name = "life_cycle_test_twice", .weight = tg::weight::light},
                          [](int n) { return 2 * n; }};
const tg::operation adds{{.name = "life_cycle_test_adds"}, [](std::atomic<int>* to) { ++*to; }};
const tg::operation waits{{.name = "life_cycle_test_waits"},
                          [](manual_event* event, int result) -> tg::task<int> {
                              co_await *event;
                              co_return result;
                          }};
const tg::operation fails{{.name = "life_cycle_test_fails"},
                          [](std::string text) -> int { throw std::out_of_range(text); }};
const tg::operation fails_oddly{{.name = "life_cycle_test_fails_oddly"}, [] { throw 42; }};
const tg::operation calls{{.name = "life_cycle_test_calls"},
                          [](std::function<void()> what) { what(); }};
const tg::operation leads{{.name = "life_cycle_test_leads"},
                          tg::lead{"life_cycle_test_calls"},
                          [](std::function<void()> what, manual_event* event) -> tg::task<> {
                              what();
                              co_await *event;
                          }};
const tg::operation gives_pointer{{.name = "life_cycle_test_gives_pointer"},
                                  [](int n) { return std::make_unique<int>(n); }};
int referred = 5;
const tg::operation gives_reference{{.name = "life_cycle_test_gives_reference"},
                                    []() -> int& { return referred; }};

const tg::operation sleeps{{.name = "life_cycle_test_sleeps"},
                           [](std::atomic<int>* begun) -> tg::task<> {
                               ++*begun;
                               co_await tg::sleep_for(1h);
                           }};
const tg::operation blocks{{.name = "life_cycle_test_blocks", .weight = tg::weight::heavy},
                           [](blockade* at) { at->wait(); }};
const tg::operation stops_others{
    {.name = "life_cycle_test_stops_others"},
    [](tg::runtime* runtime, std::chrono::nanoseconds deadline) -> tg::task<tg::stop_report> {
        co_return co_await runtime->stop_others(deadline, 0s);
    }};

bool has(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

std::optional<tg::token_info> find(const tg::runtime& runtime, const tg::token_id& id) {
    for (const tg::token_info& each : runtime.tokens())
        if (each.id.sequence == id.sequence) return each;
    return {};
}

template <class T>
bool fulfilled(const std::future<T>& result) {
    return result.wait_for(0s) == std::future_status::ready;
}

}  // namespace

TEST_SUITE("life cycle: run") {
    TEST_CASE(
        "it returns what the main coroutine returns: values, nothing, references, move-only "
        "types") {
        tg::runtime runtime{{.cores = 2}};
        CHECK(runtime.run([]() -> tg::task<int> { co_return co_await twice(21); }) == 42);
        bool ran = false;
        runtime.run([&]() -> tg::task<> {
            ran = true;
            co_return;
        });
        CHECK(ran);
        const auto refers = []() -> tg::task<int&> { co_return co_await gives_reference(); };
        CHECK(std::is_same_v<decltype(runtime.run(refers)), int&>);
        auto&& result = runtime.run(refers);
        CHECK(&result == &referred);
        CHECK(*runtime.run([]() -> tg::task<std::unique_ptr<int>> {
            co_return co_await gives_pointer(7);
        }) == 7);
    }

    TEST_CASE("it takes a task as well, and refuses an empty one") {
        tg::runtime runtime{{.cores = 1}};
        const auto task = [](int n) -> tg::task<int> { co_return co_await twice(n); };
        CHECK(runtime.run(task(4)) == 8);
        CHECK_THROWS_AS(runtime.run(tg::task<int>{}), tg::already_awaited);
    }

    TEST_CASE("an exception leaves it as itself, whether thrown at once or after an await") {
        tg::runtime runtime{{.cores = 2}};
        CHECK_THROWS_WITH_AS(runtime.run([]() -> tg::task<> {
            throw std::invalid_argument("at once");
            co_return;
        }),
                             "at once", std::invalid_argument);
        CHECK_THROWS_WITH_AS(runtime.run([]() -> tg::task<int> {
            co_return co_await fails("later");
        }),
                             "later", std::out_of_range);
        CHECK(runtime.run([]() -> tg::task<int> { co_return 1; }) == 1);
    }

    TEST_CASE("it can be called again, also from other threads, one after the other") {
        tg::runtime runtime{{.cores = 2}};
        for (int i = 0; i < 20; ++i) {
            int result = 0;
            const auto run = [&] {
                result = runtime.run([i]() -> tg::task<int> { co_return co_await twice(i); });
            };
            i % 3 == 0 ? run() : std::thread(run).join();
            CHECK(result == 2 * i);
        }
    }

    TEST_CASE(
        "it returns when everything it left detached has ended, whatever that detached in turn") {
        tg::runtime runtime{{.cores = 3}};
        std::atomic<int> ran{0};
        for (int round = 0; round < 10; ++round) {
            ran = 0;
            runtime.run([&]() -> tg::task<> {
                for (int i = 0; i < 300; ++i) {
                    calls([&] {
                        ++ran;
                        adds(&ran).admit();
                    }).admit();
                }
                co_return;
            });
            CHECK(ran == 600);
        }
        CHECK_THROWS_AS(runtime.run([&]() -> tg::task<> {
            for (int i = 0; i < 300; ++i) adds(&ran).admit();
            throw std::out_of_range("left early");
            co_return;
        }),
                        std::out_of_range);
        CHECK(ran == 900);
    }

    TEST_CASE("the main coroutine is a token on the control loop") {
        tg::runtime runtime{{.cores = 1}};
        runtime.run([&]() -> tg::task<> {
            const auto mine = find(runtime, tg::this_token::id());
            CHECK(mine.has_value());
            if (mine) {
                CHECK(mine->id == tg::this_token::id());
                CHECK(mine->id.operation == "main");
                CHECK(mine->state == tg::token_state::executing);
                CHECK(mine->core == tg::control_core);
            }
            CHECK(tg::this_token::core() == tg::control_core);
            co_return;
        });
    }

    TEST_CASE("on a loop's thread, or while it runs already, it is refused, and so is start") {
        tg::runtime runtime{{.cores = 2}}, other{{.cores = 1}};
        const auto nothing = []() -> tg::task<> { co_return; };
        const auto refused = [&](tg::runtime& which) {
            CHECK(has(what_of<tg::wrong_thread>([&] { which.run(nothing); }),
                      "event loop's thread"));
            CHECK(has(what_of<tg::wrong_thread>([&] { which.start(); }), "event loop's thread"));
        };
        runtime.run([&]() -> tg::task<> {
            refused(runtime);
            refused(other);
            co_await calls([&] { refused(runtime); });
            std::thread([&] {  // not a loop's thread
                CHECK(has(what_of<tg::wrong_thread>([&] { runtime.run(nothing); }),
                          "running already"));
                CHECK(has(what_of<tg::wrong_thread>([&] { runtime.start(); }), "running already"));
            })
                .join();
        });
        runtime.start();
        CHECK(has(what_of<tg::wrong_thread>([&] { runtime.start(); }), "running already"));
        CHECK(has(what_of<tg::wrong_thread>([&] { runtime.run(nothing); }), "running already"));
    }
}

TEST_SUITE("life cycle: start, submit, stop") {
    TEST_CASE(
        "submitted tokens fulfil their futures: values, nothing, references, move-only types, "
        "exceptions") {
        tg::runtime runtime{{.cores = 2}};
        runtime.start();
        CHECK(runtime.submit(twice(4)).get() == 8);
        std::atomic<int> ran{0};
        runtime.submit(adds(&ran)).get();
        CHECK(ran == 1);
        CHECK(&runtime.submit(gives_reference()).get() == &referred);
        CHECK(*runtime.submit(gives_pointer(3)).get() == 3);
        // Shared, so that the future outlives the catch: ThreadSanitizer does not see the count of an exception's
        // owners, and would take its end on the core, after the catch here, for a race.
        const auto failed = runtime.submit(fails("as itself")).share();
        CHECK_THROWS_WITH_AS(failed.get(), "as itself", std::out_of_range);
        const auto failed_oddly = runtime.submit(fails_oddly()).share();
        CHECK_THROWS_AS(failed_oddly.get(), int);
        CHECK(runtime.stop().complete());
    }

    TEST_CASE("a token whose handle holds none, or that was admitted, is refused") {
        tg::runtime runtime{{.cores = 1}};
        CHECK_THROWS_AS(static_cast<void>(runtime.submit(tg::token<int>{})), tg::already_awaited);
        runtime.run([&]() -> tg::task<> {
            auto admitted = twice(1);
            admitted.admit();
            std::thread([&] {
                CHECK_THROWS_AS(static_cast<void>(runtime.submit(std::move(admitted))),
                                tg::already_awaited);
            }).join();
            co_return;
        });
    }

    TEST_CASE("64 threads submit at once") {
        constexpr int threads = 64, each_submits = 100;
        tg::runtime runtime{{.cores = 4}};
        runtime.start();
        std::vector<std::thread> all;
        std::latch together(threads);
        std::atomic<int> wrong{0};
        for (int t = 0; t < threads; ++t)
            all.emplace_back([&, t] {
                std::vector<std::future<int>> futures;
                together.arrive_and_wait();
                for (int i = 0; i < each_submits; ++i)
                    futures.push_back(runtime.submit(twice(t * each_submits + i)));
                for (int i = 0; i < each_submits; ++i)
                    if (futures[static_cast<std::size_t>(i)].get() != 2 * (t * each_submits + i))
                        ++wrong;
            });
        for (std::thread& each : all) each.join();
        CHECK(wrong == 0);
        CHECK(runtime.stop().complete());
        CHECK(runtime.snapshot().admitted == threads * each_submits);
        CHECK(runtime.snapshot().ended == threads * each_submits);
    }

    TEST_CASE(
        "submit against stop: each is refused, or its future is fulfilled; nothing hangs, the "
        "counts agree") {
        for (int round = 0; round < 60; ++round) {
            CAPTURE(round);
            tg::runtime runtime{{.cores = 1 + static_cast<unsigned>(round) % 3}};
            if (round % 4 != 0) runtime.start();  // else stop serves them itself
            std::atomic<int> accepted{0};
            std::vector<std::vector<std::future<int>>> futures(4);
            std::vector<std::thread> all;
            for (auto& mine : futures)
                all.emplace_back([&] {
                    try {
                        for (int i = 0;; ++i) {
                            mine.push_back(runtime.submit(twice(i)));
                            ++accepted;
                            std::this_thread::yield();
                        }
                    } catch (const tg::gate_closed&) {}
                });
            wait_until([&] { return accepted >= 3 * round; });
            CHECK(runtime.stop().complete());
            for (std::thread& each : all) each.join();
            std::uint64_t kept = 0;
            for (auto& mine : futures)
                for (std::size_t i = 0; i < mine.size(); ++i, ++kept) {
                    REQUIRE(fulfilled(mine[i]));
                    CHECK(mine[i].get() == 2 * static_cast<int>(i));
                }
            CHECK(runtime.snapshot().admitted == kept);
            CHECK(runtime.snapshot().ended == kept);
        }
    }

    TEST_CASE("submit and stop on the runtime's own threads are refused") {
        tg::runtime runtime{{.cores = 1}};
        const auto refused = [&] {
            CHECK(
                has(what_of<tg::wrong_thread>([&] { static_cast<void>(runtime.submit(twice(3))); }),
                    "submit"));
            CHECK(has(what_of<tg::wrong_thread>([&] { static_cast<void>(runtime.stop()); }),
                      "stop"));
        };
        runtime.run([&]() -> tg::task<> {
            refused();
            co_await calls(refused);
        });
    }

    TEST_CASE("after stop, run, start and submit are refused; the message names the token") {
        tg::runtime runtime{{.cores = 1}};
        runtime.start();
        CHECK(runtime.stop().complete());
        auto token = twice(3);
        const std::string id = token.id().text();
        CHECK(has(what_of<tg::gate_closed>([&] {
                      static_cast<void>(runtime.submit(std::move(token)));
                  }),
                  id));
        CHECK(has(what_of<tg::gate_closed>([&] { runtime.start(); }), "make a new one"));
        CHECK(has(what_of<tg::gate_closed>([&] { runtime.run([]() -> tg::task<> { co_return; }); }),
                  "make a new one"));
        CHECK(runtime.stop().complete());  // again: nothing to do
        CHECK(runtime.stop(0s).complete());
    }

    TEST_CASE(
        "what was submitted before anybody hosted the loop is served: by run, by start, by stop, "
        "by the destructor") {
        for (int who = 0; who < 4; ++who) {
            CAPTURE(who);
            std::vector<std::future<int>> futures;
            {
                tg::runtime runtime{{.cores = 2}};
                for (int i = 0; i < 100; ++i) futures.push_back(runtime.submit(twice(i)));
                if (who == 0) runtime.run([]() -> tg::task<> { co_return; });
                if (who == 1) {
                    runtime.start();
                    for (auto& each : futures) each.wait();
                }
                if (who == 2) CHECK(runtime.stop().complete());
                if (who != 3)
                    for (auto& each : futures) CHECK(fulfilled(each));
            }
            for (int i = 0; i < 100; ++i)
                CHECK(futures[static_cast<std::size_t>(i)].get() == 2 * i);
        }
    }

    TEST_CASE(
        "a deadline names who has not ended, whoever hosts the loop, and stop may be called "
        "again") {
        for (int host = 0; host < 3; ++host) {
            CAPTURE(host);
            manual_event release;
            tg::runtime runtime{{.cores = 2}};
            std::thread runs;
            if (host == 1) runtime.start();
            if (host == 2) {
                runs = std::thread([&] {
                    CHECK(runtime.run([&]() -> tg::task<int> {
                        co_return co_await waits(&release, 5);
                    }) == 5);
                });
                wait_until([&] { return runtime.tokens().size() == 2; });
            }
            auto token = waits(&release, 3);
            const tg::token_id id = token.id();
            std::future<int> result = runtime.submit(std::move(token));
            std::future<int> ends = runtime.submit(twice(2));
            const auto begun = [&] {
                const std::vector<tg::token_info> all = runtime.tokens();
                return std::ranges::any_of(all, [&](const tg::token_info& each) {
                    return each.id == id && each.state == tg::token_state::executing;
                });
            };
            if (host != 0) wait_until(begun);  // else nobody serves them before the stop does
            for (bool ended = false, again = false; !again;) {
                again = ended;
                // Nobody is asked to stop: on a busy machine the other may not have begun.
                const tg::stop_report left =
                    runtime.stop(host == 0 ? 300ms : 20ms, tg::time_span::max());
                CHECK_FALSE(left.complete());
                const auto named =
                    std::find_if(left.survivors.begin(), left.survivors.end(),
                                 [&](const tg::token_info& each) { return each.id == id; });
                REQUIRE(named != left.survivors.end());
                CHECK(named->id.operation == "life_cycle_test_waits");
                if (ended)
                    CHECK(left.survivors.size() ==
                          (host == 2 ? 3 : 1));  // with run: main and what it awaits
                ended = fulfilled(ends);
            }
            CHECK(ends.get() == 4);
            CHECK_FALSE(fulfilled(result));
            CHECK(
                has(what_of<tg::gate_closed>([&] { static_cast<void>(runtime.submit(twice(1))); }),
                    "stopping"));
            release.set();
            CHECK(runtime.stop().complete());
            CHECK(fulfilled(result));
            CHECK(result.get() == 3);
            if (runs.joinable()) runs.join();
        }
    }

    TEST_CASE("several threads may stop at once") {
        for (int round = 0; round < 20; ++round) {
            tg::runtime runtime{{.cores = 2}};
            if (round % 2 == 0) runtime.start();
            std::vector<std::future<int>> futures;
            for (int i = 0; i < 50; ++i) futures.push_back(runtime.submit(twice(i)));
            std::vector<std::thread> all;
            for (int t = 0; t < 4; ++t)
                all.emplace_back([&, t] {
                    while (!runtime.stop(t % 2 == 0 ? std::chrono::nanoseconds::max() : 1ms)
                                .complete()) {}
                });
            for (std::thread& each : all) each.join();
            for (auto& each : futures) CHECK(fulfilled(each));
        }
    }

    TEST_CASE("made and destroyed 200 times, nothing is left") {
        { tg::runtime warm{{.cores = 3}}; }
        const std::size_t slots = live_slots(), descriptors = tg::test::open_descriptors();
        counted::reset();
        for (unsigned i = 0; i < 200; ++i) {
            tg::runtime runtime{{.cores = 1 + i % 3}};
            if (i % 4 == 1) runtime.start();
            if (i % 4 == 2) runtime.run([]() -> tg::task<int> { co_return co_await twice(1); });
            if (i % 2 == 1) static_cast<void>(runtime.submit(twice(1)));
        }
        CHECK(live_slots() == slots);
        CHECK(tg::test::open_descriptors() == descriptors);
    }

    TEST_CASE("runtimes live side by side, and one submits to another") {
        std::vector<std::unique_ptr<tg::runtime>> all;
        for (unsigned i = 0; i < 4; ++i)
            all.push_back(std::make_unique<tg::runtime>(tg::runtime_options{.cores = 1 + i % 2}));
        for (const auto& each : all) each->start();
        std::vector<std::future<int>> futures;
        for (int i = 0; i < 400; ++i)
            futures.push_back(all[static_cast<std::size_t>(i) % 4]->submit(twice(i)));
        for (int i = 0; i < 400; ++i) CHECK(futures[static_cast<std::size_t>(i)].get() == 2 * i);

        std::future<int> across;
        all[0]->submit(calls([&] { across = all[1]->submit(twice(9)); })).get();
        CHECK(across.get() == 18);

        manual_event release;
        std::string refused;
        auto lead = leads(
            [&] {
                refused = what_of<tg::wrong_runtime>([&] {
                    static_cast<void>(all[1]->submit(twice(9)));
                });
            },
            &release);
        auto ended = all[0]->submit(std::move(lead));
        release.set();
        ended.get();
        CHECK(has(
            refused,
            "wrong_runtime: life_cycle_test_twice_"));  // a child of a seed domain belongs to its runtime
        for (const auto& each : all) CHECK(each->stop().complete());
        CHECK(all[0]->snapshot().admitted == 102);  // `calls` and the lead are more
        CHECK(all[3]->snapshot().admitted == 100);
    }
}

TEST_SUITE("life cycle: stop_others") {
    TEST_CASE(
        "the others are asked to stop and have ended; the caller hears of it at its next wait") {
        const std::size_t slots = live_slots();
        {
            tg::runtime runtime{{.cores = 2}};
            std::atomic<int> begun{0};
            std::string next;
            runtime.run([&]() -> tg::task<> {
                for (int i = 0; i < 10; ++i) sleeps(&begun).admit();
                co_await until([&] { return begun == 10; });
                const tg::stop_report left = co_await runtime.stop_others(1h, 0s);
                CHECK(left.complete());
                CHECK(runtime.tokens().size() == 1);  // this one
                CHECK(tg::this_token::stop_requested());
                try {
                    co_await tg::sleep_for(1h);
                } catch (const tg::token_stopped& stopped) {
                    next = stopped.what();
                }
            });
            CHECK(has(next, "token_stopped: main_"));
            CHECK(
                has(what_of<tg::gate_closed>([&] { static_cast<void>(runtime.submit(twice(1))); }),
                    "stopp"));
            CHECK(runtime.stop().complete());
        }
        CHECK(live_slots() == slots);
    }

    TEST_CASE(
        "whoever does not end by the deadline is named, but neither the caller nor who awaits it") {
        tg::runtime runtime{{.cores = 2}};
        blockade busy;
        std::atomic<int> begun{0};
        runtime.run([&]() -> tg::task<> {
            tg::token<> holds_on = blocks(&busy);
            holds_on.admit();
            co_await until([&] { return busy.blocking == 1; });
            sleeps(&begun).admit();
            co_await until([&] { return begun == 1; });
            const tg::stop_report left = co_await stops_others(&runtime, 10ms);
            REQUIRE(left.survivors.size() == 1);
            CHECK(left.survivors[0].id.sequence == holds_on.id().sequence);
            CHECK(left.survivors[0].state == tg::token_state::executing);
            busy.end();
            co_await std::move(holds_on);
        });
        CHECK(runtime.stop().complete());
    }

    TEST_CASE("a main coroutine that does not await the caller is one of the others") {
        tg::runtime runtime{{.cores = 2}};
        std::optional<tg::stop_report> left;
        std::atomic<bool> stopped{false};
        const auto ends_all = [&]() -> tg::task<> { left = co_await runtime.stop_others(1h, 0s); };
        runtime.run([&]() -> tg::task<> {
            tg::token<> ending = tg::as_token(ends_all());
            ending.admit();
            try {
                co_await tg::sleep_for(1h);
            } catch (const tg::token_stopped&) {
                stopped = true;
            }
        });
        CHECK(stopped);
        REQUIRE(left);
        CHECK(left->complete());
    }

    TEST_CASE("two at once do not wait for each other, nor for who comes to await them later") {
        tg::runtime runtime{{.cores = 2}};
        std::atomic<int> inside{0};
        const auto ends_all = [&]() -> tg::task<> {
            ++inside;
            const tg::stop_report left = co_await runtime.stop_others();
            CHECK(left.complete());
        };
        runtime.run([&]() -> tg::task<> {
            tg::token<> first = tg::as_token(ends_all()), second = tg::as_token(ends_all());
            first.admit();
            second.admit();
            co_await until([&] { return inside == 2; });
            co_await std::move(second);
            co_await std::move(first);
        });
        CHECK(runtime.stop().complete());
    }

    TEST_CASE("what had been submitted before is among the others") {
        for (int round = 0; round < 50; ++round) {
            tg::runtime runtime{{.cores = 2}};
            runtime.start();
            blockade busy;
            std::future<void> blocking =
                runtime.submit(tg::as_token([](blockade* at) -> tg::task<> {
                    at->wait();  // the control loop
                    co_return;
                }(&busy)));
            busy.until(1);
            std::atomic<int> begun{0};
            std::future<void> late = runtime.submit(sleeps(&begun));
            busy.end();
            const tg::stop_report left = runtime.submit(stops_others(&runtime, 1min)).get();
            CHECK(left.complete());
            CHECK(fulfilled(late));
            blocking.get();
        }
    }

    TEST_CASE("a token of another runtime is told to call stop") {
        tg::runtime runtime{{.cores = 1}}, other{{.cores = 1}};
        const std::string text = what_of<tg::wrong_runtime>([&] {
            other.run([&]() -> tg::task<> { static_cast<void>(co_await runtime.stop_others()); });
        });
        CHECK(has(text, "call stop"));
    }

    TEST_CASE("without a deadline nobody is asked; what is held is let go") {
        tg::runtime runtime{{.cores = 2}};
        manual_event release;
        bool asked = true;
        runtime.start();
        runtime.gate().pause("life_cycle_test_adds");
        std::atomic<int> sum{0};
        std::future<void> held = runtime.submit(adds(&sum));
        wait_until([&] { return runtime.snapshot().held == 1; });
        std::future<int> waiting = runtime.submit(waits(&release, 4));
        const auto ends_all = [&]() -> tg::task<> {
            const tg::stop_report left = co_await runtime.stop_others();
            CHECK(left.complete());
            asked = tg::this_token::stop_requested();
        };
        std::future<void> ended = runtime.submit(tg::as_token(ends_all()));
        held.get();
        CHECK(sum == 1);
        CHECK_FALSE(fulfilled(ended));
        release.set();
        CHECK(waiting.get() == 4);
        ended.get();
        CHECK_FALSE(asked);
        CHECK(runtime.stop().complete());
    }
}
