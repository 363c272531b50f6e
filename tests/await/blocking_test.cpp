// SPDX-License-Identifier: MIT
#include <tokengate/blocking.hpp>

#include "support/child.hpp"
#include "support/leaks.hpp"
#include "support/manual_event.hpp"

#include <tokengate/error.hpp>
#include <tokengate/operation.hpp>
#include <tokengate/runtime.hpp>
#include <tokengate/scope.hpp>
#include <tokengate/stop.hpp>
#include <tokengate/this_token.hpp>
#include <tokengate/time.hpp>
#include <tokengate/when_all.hpp>

#include <doctest/doctest.h>

#include <sys/syscall.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <coroutine>
#include <latch>
#include <memory>
#include <mutex>
#include <random>
#include <semaphore>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace tg = tokengate;
using namespace std::chrono_literals;
using tg::test::counted;
using tg::test::in_child;
using tg::test::manual_event;
using tg::test::refuse;

namespace {

/// Holds a thread of the pool until it is let go.
struct holder {
    std::binary_semaphore go{0};
    manual_event begun;

    void hold() {
        begun.set();
        go.acquire();
    }
};

std::string what_of(const std::exception& thrown) { return thrown.what(); }

const tg::operation held{{.name = "blocking_test_held"}, [](holder* by) -> tg::task<> {
                             auto hold = [by] { by->hold(); };
                             co_await tg::blocking(hold);
                         }};

/// What it says of the end of its call; `ran` if the call was made.
const tg::operation asks{{.name = "blocking_test_asks"},
                         [](std::atomic<int>* ran) -> tg::task<std::string> {
                             auto run = [ran] { ++*ran; };
                             std::string end = "returned";
                             try {
                                 co_await tg::blocking(run);
                             } catch (const tg::token_stopped& stopped) {
                                 end = stopped.what();
                             }
                             co_return end;
                         }};

const tg::operation polls{{.name = "blocking_test_polls"},
                          [](manual_event* begun) -> tg::task<int> {
                              auto poll = [begun, stop = tg::this_token::stop()] {
                                  begun->set();
                                  while (!stop.stop_requested()) std::this_thread::yield();
                                  return 17;
                              };
                              const int found = co_await tg::blocking(poll);
                              co_return found;
                          }};

}  // namespace

TEST_SUITE("blocking") {
    TEST_CASE(
        "gives what the callable gives: nothing, a value, what only moves, a reference, an "
        "exception") {
        tg::runtime runtime{{.cores = 1}};
        counted::reset();
        runtime.run([]() -> tg::task<> {
            int target = 0;
            auto nothing = [&target] { target = 1; };
            static_assert(std::is_void_v<decltype(tg::blocking(nothing).await_resume())>);
            co_await tg::blocking(nothing);
            CHECK(target == 1);

            auto text = [] { return std::string(100, 'x'); };
            const std::string given = co_await tg::blocking(text);
            CHECK(given == std::string(100, 'x'));

            auto owner = [held = std::make_unique<int>(5)]() mutable { return std::move(held); };
            const std::unique_ptr<int> owned = co_await tg::blocking(std::move(owner));
            CHECK(*owned == 5);

            auto refers = [&target]() -> int& { return target; };
            static_assert(std::is_same_v<decltype(tg::blocking(refers).await_resume()), int&>);
            int& found = co_await tg::blocking(refers);
            CHECK(&found == &target);

            auto passes = [&target]() -> int&& { return std::move(target); };
            int&& passed = co_await tg::blocking(passes);
            CHECK(&passed == &target);

            auto constant = []() -> const std::string { return "constant"; };
            const std::string kept = co_await tg::blocking(constant);
            CHECK(kept == "constant");

            const counted number(3);
            auto counts = [number] { return number; };
            const counted same = co_await tg::blocking(counts);
            CHECK(same.number() == 3);

            auto fails = []() -> counted { throw std::invalid_argument("not this one"); };
            std::string heard;
            try {
                static_cast<void>(co_await tg::blocking(fails));
            } catch (const std::invalid_argument& thrown) {
                heard = thrown.what();
            }
            CHECK(heard == "not this one");
        });
        CHECK(counted::alive() == 0);
        CHECK(counted::wrongly_destroyed() == 0);
    }

    TEST_CASE("a function and what only an rvalue can call") {
        struct once {
            int operator()() && { return 3; }
        };
        tg::runtime runtime{{.cores = 1}};
        runtime.run([]() -> tg::task<> {
            const int first = co_await tg::blocking(+[] { return 2; });
            CHECK(first == 2);
            const int second = co_await tg::blocking(once());
            CHECK(second == 3);
        });
    }

    TEST_CASE("runs on a thread without a loop; the token comes back to its own") {
        tg::runtime runtime{{.cores = 2}};
        const tg::operation op{{.name = "blocking_test_where"}, []() -> tg::task<> {
                                   const std::thread::id before = std::this_thread::get_id();
                                   const tg::token_id id = tg::this_token::id();
                                   auto look = [] {
                                       std::string heard;
                                       try {
                                           static_cast<void>(tg::this_token::id());
                                       } catch (const tg::wrong_thread& wrong) {
                                           heard = wrong.what();
                                       }
                                       return std::pair(std::this_thread::get_id(), heard);
                                   };
                                   const auto [there, heard] = co_await tg::blocking(look);
                                   CHECK(there != before);
                                   CHECK(heard.starts_with("wrong_thread"));
                                   CHECK(std::this_thread::get_id() == before);
                                   CHECK(tg::this_token::id().sequence == id.sequence);
                               }};
        runtime.run([&]() -> tg::task<> { co_await tg::when_all(op(), op()); });
    }

    TEST_CASE("the callable may drop what its own core has made, and make tokens") {
        tg::runtime runtime{{.cores = 1}};
        const tg::operation child{{.name = "blocking_test_child"}, [](counted) {}};
        const tg::operation lead{
            {.name = "blocking_test_lead"}, tg::lead{"blocking_test_child"}, [&]() -> tg::task<> {
                auto drop = [conducted = child(counted(1)), &child]() mutable {
                    auto gone = std::move(conducted);
                    auto made = child(counted(2));
                };
                co_await tg::blocking(std::move(drop));
            }};
        counted::reset();
        runtime.run([&]() -> tg::task<> { co_await lead(); });
        CHECK(counted::alive() == 0);
        const tg::snapshot now = runtime.snapshot();
        CHECK(now.admitted == now.ended);
        CHECK(now.domains == 0);
    }

    TEST_CASE("waits without holding the core") {
        tg::runtime runtime{{.cores = 1}};
        runtime.run([]() -> tg::task<> {
            std::latch both(2);
            const tg::operation meets{{.name = "blocking_test_meets"}, [&both]() -> tg::task<> {
                                          auto meet = [&both] { both.arrive_and_wait(); };
                                          co_await tg::blocking(meet);
                                      }};
            co_await tg::when_all(meets(), meets());  // each call waits for the other
        });
    }

    TEST_CASE("as many at a time as allowed, the others in the order of their calls") {
        static constexpr int most = 3, calls = 60;
        tg::runtime runtime{{.cores = 1, .blocking_threads = most}};
        std::atomic<int> now{0}, highest{0};
        std::latch all_threads(most);
        runtime.run([&]() -> tg::task<> {
            const tg::operation counts{{.name = "blocking_test_counts"}, [&](int n) -> tg::task<> {
                                           auto count = [&, n] {
                                               const int here = ++now;
                                               for (int seen = highest; seen < here;)
                                                   if (highest.compare_exchange_weak(seen, here))
                                                       break;
                                               if (n < most) all_threads.arrive_and_wait();
                                               std::this_thread::yield();
                                               --now;
                                           };
                                           co_await tg::blocking(count);
                                       }};
            std::vector<tg::token<>> all;
            for (int n = 0; n < calls; ++n) all.push_back(counts(n));
            co_await tg::when_all(std::move(all));
        });
        CHECK(highest == most);

        tg::runtime one{{.cores = 1, .blocking_threads = 1}};
        std::vector<int> called, order;  // by the one core, by the one thread
        one.run([&]() -> tg::task<> {
            const tg::operation notes{{.name = "blocking_test_notes"}, [&](int n) -> tg::task<> {
                                          auto note = [&order, n] { order.push_back(n); };
                                          called.push_back(n);
                                          co_await tg::blocking(note);
                                      }};
            std::vector<tg::token<>> all;
            for (int n = 0; n < calls; ++n) all.push_back(notes(n));
            co_await tg::when_all(std::move(all));
        });
        CHECK(order.size() == calls);
        CHECK(order == called);
    }

    TEST_CASE("options that cannot be") {
        const auto refusal = [](tg::runtime_options options) {
            try {
                const tg::runtime runtime(std::move(options));
                return std::string("none");
            } catch (const tg::configuration_error& error) {
                return what_of(error);
            }
        };
        CHECK(refusal({.blocking_threads = 0}) ==
              "configuration_error: runtime_options.blocking_threads is 0: at least 1; none is "
              "started before the "
              "first blocking call");
        CHECK(refusal({.blocking_idle = -1ns}) ==
              "configuration_error: runtime_options.blocking_idle is negative: 0 or more");
        CHECK(refusal({.cores = 1, .blocking_idle = 0ns}) == "none");
    }

    TEST_CASE("outside of a loop: wrong_thread") {
        auto never = [] { FAIL("it ran"); };
        auto call = tg::blocking(never);
        CHECK_THROWS_WITH_AS(call.await_suspend(std::noop_coroutine()),
                             "wrong_thread: a coroutine was to make a blocking call on a thread "
                             "without an event loop: "
                             "await it inside a coroutine that the runtime runs",
                             tg::wrong_thread);
    }

    TEST_CASE("stopped before: not called, except inside a shield") {
        tg::runtime runtime{{.cores = 1}};
        std::atomic<int> ran{0};
        runtime.run([&]() -> tg::task<> {
            const tg::operation stops_itself{
                {.name = "blocking_test_stops_itself"}, [&](manual_event* go) -> tg::task<> {
                    co_await *go;
                    CHECK(tg::this_token::stop_requested());
                    auto run = [&ran] { ++ran; };
                    co_await tg::shield([](auto* f) -> tg::task<> {
                        co_await tg::blocking(*f);
                    }(&run));
                    CHECK(ran == 1);
                    CHECK_THROWS_AS(co_await tg::blocking(run), tg::token_stopped);
                }};
            manual_event go, started;
            const tg::operation starts{{.name = "blocking_test_starts"}, [&] { started.set(); }};
            tg::token<> t = stops_itself(&go);
            t.admit();
            co_await starts();  // behind it, on the only core
            t.request_stop();
            go.set();
            co_await std::move(t);
        });
        CHECK(ran == 1);
    }

    TEST_CASE("stopped while queued: taken back, never called, and those behind it are served") {
        tg::runtime runtime{{.cores = 1, .blocking_threads = 1}};
        holder by;
        std::atomic<int> ran{0};
        runtime.run([&]() -> tg::task<> {
            tg::token<> first = held(&by);
            first.admit();
            co_await by.begun;
            std::vector<tg::token<std::string>> queued;
            for (int i = 0; i < 5; ++i) {
                queued.push_back(asks(&ran));
                queued.back().admit();
            }
            const tg::operation behind{{.name = "blocking_test_behind"}, [] {}};
            co_await behind();               // on the only core: all five wait
            for (const int i : {2, 0, 4}) {  // from the middle, the front, and the back
                queued[static_cast<std::size_t>(i)].request_stop();
                const std::string end = co_await std::move(queued[static_cast<std::size_t>(i)]);
                CHECK(end.ends_with("was asked to stop: it did not make a blocking call"));
            }
            CHECK(ran == 0);
            queued.push_back(asks(&ran));
            queued.back().admit();
            co_await behind();
            by.go.release();
            for (const int i : {1, 3, 5}) {
                const std::string end = co_await std::move(queued[static_cast<std::size_t>(i)]);
                CHECK(end == "returned");
            }
            co_await std::move(first);
        });
        CHECK(ran == 3);
    }

    TEST_CASE("stopped while it runs: the callable can see it, and its result is delivered") {
        tg::runtime runtime{{.cores = 1}};
        manual_event begun;
        int found = 0;
        runtime.run([&]() -> tg::task<> {
            tg::token<int> t = polls(&begun);
            t.admit();
            co_await begun;
            t.request_stop();
            found = co_await std::move(t);
        });
        CHECK(found == 17);
    }

    TEST_CASE("a timeout waits for what runs, and its result counts") {
        tg::runtime runtime{{.cores = 1}};
        manual_event begun;
        int found = 0;
        runtime.run([&]() -> tg::task<> {
            tg::token<int> t = polls(&begun);
            t.admit();
            co_await begun;
            found = co_await tg::with_timeout(std::move(t), 1ms);
        });
        CHECK(found == 17);
    }

    TEST_CASE("runtime::stop asks what runs, takes back what waits, and ends the threads") {
        tg::runtime runtime{{.cores = 1, .blocking_threads = 1}};
        runtime.start();
        manual_event begun;
        std::atomic<int> ran{0};
        std::binary_semaphore is_begun{0};
        const tg::operation tells{{.name = "blocking_test_tells"}, [&]() -> tg::task<> {
                                      co_await begun;
                                      is_begun.release();
                                  }};
        auto first = runtime.submit(polls(&begun));
        auto told = runtime.submit(tells());
        is_begun.acquire();
        auto second = runtime.submit(asks(&ran));
        CHECK(runtime.stop(std::chrono::hours(1), 0ns).complete());
        CHECK(first.get() == 17);
        told.get();
        // Refused before it started, taken back, or (the first call had ended) made.
        try {
            const std::string end = second.get();
            CHECK((end == "returned" || end.ends_with("it did not make a blocking call")));
        } catch (const tg::token_stopped& stopped) {
            CHECK(what_of(stopped).ends_with("did not run"));
        }
    }

    TEST_CASE("no thread can be made: the call fails, and the next one tries again") {
        const auto child = in_child([]() -> std::string {
            tg::runtime runtime{{.cores = 1}};
            std::string heard;
            const tg::operation tries{{.name = "blocking_test_tries"}, [&]() -> tg::task<> {
                                          refuse(SYS_clone3, EAGAIN);  // for this core's thread
                                          refuse(SYS_clone, EAGAIN);
                                          auto never = [&heard] { heard = "it ran"; };
                                          for (int i = 0; i < 2; ++i) try {
                                                  co_await tg::blocking(never);
                                              } catch (const std::system_error& error) {
                                                  heard += error.what();
                                                  heard += '\n';
                                              }
                                      }};
            runtime.run([&]() -> tg::task<> {
                co_await tries();
                auto says = [&heard] { heard += "ran"; };
                co_await tg::blocking(says);  // from the control loop's thread
            });
            return heard;
        });
        const std::string each =
            "tg::blocking: there is no thread for blocking calls and none could be made: Resource "
            "temporarily "
            "unavailable\n";
        CHECK(child.said == each + each + "ran");
        CHECK(child.complained == "");
    }

    TEST_CASE("stress: calls from four cores, threads that come and go, some stopped") {
        constexpr unsigned seed = 20250711;
        static constexpr unsigned calls = 10'000;
        MESSAGE("seed " << seed);
        counted::reset();
        std::atomic<unsigned> ran{0}, strayed{0}, wrong{0}, stopped_in_time{0}, failed{0};
        const std::size_t slots_before = tg::test::live_slots();
        {
            tg::runtime runtime{{.cores = 4, .blocking_threads = 8, .blocking_idle = 200us}};
            const tg::operation calls_once{
                {.name = "blocking_test_calls_once"}, [&](unsigned n) -> tg::task<> {
                    const unsigned core = tg::this_token::core();
                    const counted number(static_cast<int>(n));
                    auto call = [&ran, number] {
                        ++ran;
                        if (number.number() % 7 == 0)
                            throw std::runtime_error(std::to_string(number.number()));
                        if (number.number() % 3 == 0) std::this_thread::yield();
                        return number;
                    };
                    try {
                        const counted same = co_await tg::blocking(call);
                        if (same.number() != number.number()) ++wrong;
                    } catch (const std::runtime_error& thrown) {
                        if (dynamic_cast<const tg::token_stopped*>(&thrown))
                            ++stopped_in_time;
                        else if (thrown.what() == std::to_string(n))
                            ++failed;
                        else
                            ++wrong;
                    }
                    if (tg::this_token::core() != core) ++strayed;
                }};
            runtime.run([&]() -> tg::task<> {
                std::minstd_rand random(seed);
                for (unsigned made = 0; made < calls;) {
                    std::vector<tg::token<>> all;
                    for (unsigned wave = std::min<unsigned>(random() % 300 + 1, calls - made);
                         wave > 0; --wave) {
                        all.push_back(calls_once(made++));
                        all.back().admit();
                    }
                    for (auto& each : all) {
                        const bool asked = random() % 5 == 0;
                        if (asked) each.request_stop();
                        try {
                            co_await std::move(each);
                        } catch (const tg::token_stopped&) {
                            if (!asked) ++wrong;
                            ++stopped_in_time;  // before it started
                        }
                    }
                    if (random() % 4 == 0)
                        co_await tg::sleep_for(300us);  // the pool's threads leave meanwhile
                }
            });
        }
        CHECK(ran + stopped_in_time == calls);
        CHECK(failed > 0);
        CHECK(wrong == 0);
        CHECK(strayed == 0);
        CHECK(counted::alive() == 0);
        CHECK(counted::wrongly_destroyed() == 0);
        CHECK(tg::test::live_slots() == slots_before);
    }
}
