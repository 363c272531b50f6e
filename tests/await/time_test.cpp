// SPDX-License-Identifier: MIT

#include <tokengate/time.hpp>

#include "support/io.hpp"
#include "support/leaks.hpp"
#include "support/manual_event.hpp"
#include "support/sanitizers.hpp"
#include "support/settled.hpp"
#include "support/waiting.hpp"

#include <tokengate/channel.hpp>
#include <tokengate/error.hpp>
#include <tokengate/listener.hpp>
#include <tokengate/mutex.hpp>
#include <tokengate/operation.hpp>
#include <tokengate/runtime.hpp>
#include <tokengate/stop.hpp>
#include <tokengate/stream.hpp>
#include <tokengate/tcp.hpp>
#include <tokengate/this_token.hpp>
#include <tokengate/when_all.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <filesystem>
#include <future>
#include <iterator>
#include <memory>
#include <numeric>
#include <optional>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace tg = tokengate;
using namespace std::chrono_literals;
using steady = std::chrono::steady_clock;
using tg::test::begun;
using tg::test::blockade;
using tg::test::check_settled;
using tg::test::counted;
using tg::test::live_slots;
using tg::test::manual_event;
using tg::test::run_cleanly;

namespace {

std::atomic<int> started{0};

tg::task<int> sleep_and_give(std::chrono::nanoseconds how_long, int n) {
    ++started;
    co_await tg::sleep_for(how_long);
    co_return n;
}
const tg::operation sleeps{{.name = "time_test_sleeps"}, sleep_and_give};
const tg::operation gives{{.name = "time_test_gives"}, [](int n) {
                              ++started;
                              return n;
                          }};
const tg::operation refers{{.name = "time_test_refers"}, [](int& n) -> int& { return n; }};
const tg::operation owns{{.name = "time_test_owns"},
                         [](int n) { return std::make_unique<int>(n); }};
const tg::operation nothing{{.name = "time_test_nothing"}, [] {}};
const tg::operation fails{{.name = "time_test_fails"},
                          [](counted) -> int { throw std::out_of_range("its own"); }};
const tg::operation stubborn{{.name = "time_test_stubborn"}, [](int n) -> tg::task<int> {
                                 try {
                                     co_await tg::sleep_for(1h);
                                 } catch (const tg::token_stopped&) {
                                     co_return n;
                                 }
                                 co_return -1;
                             }};
const tg::operation slow_gives{{.name = "time_test_slow_gives", .storage = tg::storage::slow},
                               [](int n) {
                                   ++started;
                                   return n;
                               }};

const tg::operation block{{.name = "time_test_block", .weight = tg::weight::heavy},
                          [](blockade* on) { on->wait(); }};
const tg::operation slow_block{{.name = "time_test_slow_block", .storage = tg::storage::slow},
                               [](blockade* on) { on->wait(); }};

const tg::operation conducted_sleeps{{.name = "time_test_conducted_sleeps"}, sleep_and_give};
tg::task<std::string> lead_with_timeout() {
    std::string text;
    try {
        co_await tg::with_timeout(conducted_sleeps(1h, 1), 2ms);
    } catch (const tg::token_timeout& late) {
        text = late.what();
    }
    const int in_time = co_await tg::with_timeout(conducted_sleeps(0s, 5), 1h);
    co_return text + ' ' + std::to_string(in_time);
}
const tg::operation lead{
    {.name = "time_test_lead"}, tg::lead{"time_test_conducted_sleeps"}, lead_with_timeout};

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

/// What is thrown, as its type's name and text.
template <class T>
tg::task<std::string> thrown_by(tg::task<T> work) {
    std::string text = "nothing";
    try {
        co_await std::move(work);
    } catch (const tg::token_timeout& late) {
        text = std::string("timeout: ") + late.what();
    } catch (const tg::token_stopped& stopped) {
        text = std::string("stopped: ") + stopped.what();
    } catch (const std::exception& other) {
        text = std::string("other: ") + other.what();
    }
    co_return text;
}

std::size_t threads() {
    using entries = std::filesystem::directory_iterator;
    return static_cast<std::size_t>(std::distance(entries("/proc/self/task"), entries{}));
}

/// A coroutine of no runtime.
struct loose {
    struct promise_type {
        loose get_return_object() noexcept { return {}; }
        std::suspend_never initial_suspend() noexcept { return {}; }
        std::suspend_never final_suspend() noexcept { return {}; }
        void return_void() noexcept {}
        void unhandled_exception() { std::terminate(); }
    };
};

template <class Main>
auto run_one(Main main) {
    tg::runtime runtime{{.cores = 2}};
    return runtime.run(std::move(main));
}

}  // namespace

TEST_SUITE("sleep") {
    TEST_CASE("zero, negative and past: returns at once, without a turn of the loop") {
        tg::runtime runtime{{.cores = 1}};
        runtime.run([]() -> tg::task<> {
            bool ran = false;
            const auto note = [&ran]() -> tg::task<> {
                ran = true;
                co_return;
            };
            tg::token<void> other = tg::as_token(note());
            other.admit();  // runs as soon as this body lets it
            co_await tg::sleep_for(0s);
            co_await tg::sleep_for(-1h);
            co_await tg::sleep_for(std::chrono::nanoseconds::min());
            co_await tg::sleep_for(std::chrono::duration<double>(-0.5));
            co_await tg::sleep_until(steady::now() - 1h);
            co_await tg::sleep_until(steady::time_point::min());
            co_await tg::sleep_until(steady::time_point{});
            CHECK_FALSE(ran);
            co_await other;
            CHECK(ran);
        });
    }

    TEST_CASE("never early, whatever the unit") {
        tg::runtime runtime{{.cores = 3}};
        std::atomic<int> early{0};
        const tg::operation checked{
            {.name = "time_test_checked"}, [&early](std::int64_t ns) -> tg::task<> {
                const auto begin = steady::now();
                co_await tg::sleep_for(std::chrono::nanoseconds(ns));
                early += steady::now() - begin < std::chrono::nanoseconds(ns);
                const auto when = steady::now() + std::chrono::nanoseconds(ns);
                co_await tg::sleep_until(when);
                early += steady::now() < when;
                const std::chrono::duration<double, std::milli> fraction(0.3);
                const auto again = steady::now();
                co_await tg::sleep_for(fraction);
                early += steady::now() - again < 300us;
            }};
        constexpr unsigned seed = 20240;
        MESSAGE("seed " << seed);
        std::mt19937 random(seed);
        runtime.run([&]() -> tg::task<> {
            std::vector<tg::token<void>> all;
            for (int i = 0; i < 1000; ++i)
                all.push_back(checked(static_cast<std::int64_t>(random() % 3'000'000)));
            co_await tg::when_all(std::move(all));
        });
        CHECK(early == 0);
    }

    TEST_CASE(
        "those of one loop wake in the order of their deadlines, in the order of going to sleep "
        "where they are equal") {
        tg::runtime runtime{{.cores = 1}};
        std::vector<int> order;
        runtime.run([&]() -> tg::task<> {
            const auto base = steady::now() + 10ms;
            const auto sleeper = [&order, base](int n) -> tg::task<> {
                co_await tg::sleep_until(base + (n / 2) * 100us);
                order.push_back(n);
            };
            std::vector<int> numbers(100);
            std::iota(numbers.begin(), numbers.end(), 0);
            // pairs stay in order, the pairs among themselves do not
            std::vector<int> pairs(50);
            std::iota(pairs.begin(), pairs.end(), 0);
            std::mt19937 random(7);
            std::shuffle(pairs.begin(), pairs.end(), random);
            std::vector<tg::token<void>> all;
            for (const int pair : pairs) {
                all.push_back(tg::as_token(sleeper(2 * pair)));
                all.push_back(tg::as_token(sleeper(2 * pair + 1)));
            }
            co_await tg::when_all(std::move(all));
        });
        CHECK(order.size() == 100);
        CHECK(std::is_sorted(order.begin(), order.end()));
    }

    TEST_CASE("a million need no thread, and all wake") {
        constexpr int many = tg::test::under_tsan || tg::test::under_asan ? 100'000 : 1'000'000;
        const std::size_t before = live_slots();
        {
            tg::runtime runtime{{.cores = 2}};
            const std::size_t threads_then = threads();
            std::size_t threads_meanwhile = 0;
            std::atomic<int> woke{0};
            const tg::operation sleeper{{.name = "time_test_one_of_many"},
                                        [&woke](steady::time_point when) -> tg::task<> {
                                            co_await tg::sleep_until(when);
                                            ++woke;
                                        }};
            runtime.run([&]() -> tg::task<> {
                std::vector<tg::token<void>> all;
                const auto when = steady::now() + 100ms;
                for (int i = 0; i < many; ++i) {
                    all.push_back(sleeper(when + (i % 1000) * 10us));
                    all.back().admit();
                }
                co_await tg::sleep_until(when - 1ms);
                threads_meanwhile = threads();
                co_await tg::when_all(std::move(all));
            });
            CHECK(woke == many);
            CHECK(threads_meanwhile == threads_then);
            check_settled(runtime);
        }
        CHECK(live_slots() == before);
    }

    TEST_CASE("for ever, in any unit, and ended by a stop") {
        tg::runtime runtime{{.cores = 1}};
        runtime.run([]() -> tg::task<> {
            using hours = std::chrono::hours;
            const auto longest = [](int unit) -> tg::task<> {
                switch (unit) {
                    case 0: co_await tg::sleep_for(std::chrono::nanoseconds::max()); break;
                    case 1: co_await tg::sleep_for(hours::max()); break;
                    case 2: co_await tg::sleep_for(std::chrono::duration<double>(1e300)); break;
                    case 3: co_await tg::sleep_until(steady::time_point::max()); break;
                    default:
                        co_await tg::sleep_until(steady::now() +
                                                 std::chrono::hours(24 * 365 * 100));
                        break;
                }
            };
            int stopped = 0;
            for (int unit = 0; unit < 5; ++unit) {
                tg::token<void> sleeper = tg::as_token(longest(unit));
                sleeper.admit();
                co_await begun(sleeper);
                sleeper.request_stop();
                try {
                    co_await sleeper;
                } catch (const tg::token_stopped&) {
                    ++stopped;
                }
            }
            CHECK(stopped == 5);
        });
    }

    TEST_CASE("until a point in a coarser unit than the clock counts: the last one is never") {
        tg::runtime runtime{{.cores = 1}};
        runtime.run([]() -> tg::task<> {
            const auto sleeper = []() -> tg::task<> {
                co_await tg::sleep_until(
                    std::chrono::time_point<steady, std::chrono::hours>::max());
            };
            tg::token<void> token = tg::as_token(sleeper());
            token.admit();
            co_await begun(token);
            token.request_stop();
            CHECK_THROWS_AS(co_await token, tg::token_stopped);
        });
    }

    TEST_CASE("a stop ends it, says what was not done, and leaves nothing armed") {
        const std::size_t before = live_slots();
        {
            tg::runtime runtime{{.cores = 2}};
            const std::string text = runtime.run([]() -> tg::task<std::string> {
                tg::token<int> sleeper = sleeps(1h, 1);
                const std::string id = sleeper.id().text();
                sleeper.admit();
                while (started == 0) co_await tg::yield();
                sleeper.request_stop();
                const auto await = [](tg::token<int> it) -> tg::task<int> {
                    co_return co_await it;
                };
                const std::string said = co_await thrown_by(await(std::move(sleeper)));
                co_return contains(said, id) ? said : "another one: " + said;
            });
            CHECK(contains(text, "stopped: "));
            CHECK(contains(text, "sleep"));
            check_settled(runtime);
        }
        CHECK(live_slots() == before);
    }

    TEST_CASE("who is due when the stop comes has slept") {
        tg::runtime runtime{{.cores = 1}};
        int slept = 0, stopped = 0;
        runtime.run([&]() -> tg::task<> {
            for (int round = 0; round < 20; ++round) {
                const auto when = steady::now() + 1ms;
                tg::token<void> second;
                const auto first_body = [&second, when]() -> tg::task<> {
                    co_await tg::sleep_until(when);
                    second
                        .request_stop();  // due in the same turn: both have been made ready by now
                };
                const auto second_body = [when]() -> tg::task<> { co_await tg::sleep_until(when); };
                second = tg::as_token(second_body());
                tg::token<void> first = tg::as_token(first_body());
                first.admit();
                second.admit();
                co_await first;
                try {
                    co_await second;
                    ++slept;
                } catch (const tg::token_stopped&) {
                    ++stopped;
                }
            }
        });
        CHECK(slept == 20);
        CHECK(stopped == 0);
    }

    TEST_CASE("where no event loop runs: wrong_thread") {
        std::string text;
        const auto body = [&text]() -> loose {
            try {
                co_await tg::sleep_for(1s);
            } catch (const tg::wrong_thread& wrong) {
                text = wrong.what();
            }
            try {
                co_await tg::yield();
            } catch (const tg::wrong_thread& wrong) {
                text += wrong.what();
            }
        };
        body();
        CHECK(contains(text, "sleep"));
        CHECK(contains(text, "yield"));
    }

    TEST_CASE("yield lets the others of the loop run, in turn") {
        tg::runtime runtime{{.cores = 1}};
        std::string order;
        runtime.run([&]() -> tg::task<> {
            const auto voice = [&order](char name) -> tg::task<> {
                for (int i = 0; i < 3; ++i) {
                    order += name;
                    co_await tg::yield();
                }
            };
            co_await tg::when_all(tg::as_token(voice('a')), tg::as_token(voice('b')),
                                  tg::as_token(voice('c')));
        });
        CHECK(order == "abcabcabc");
    }

    TEST_CASE("a loop that is never idle wakes its sleepers all the same") {
        tg::runtime runtime{{.cores = 1}};
        runtime.run([]() -> tg::task<> {
            bool awake = false;
            const auto sleeper = [&awake]() -> tg::task<> {
                co_await tg::sleep_for(3ms);
                awake = true;
            };
            const auto busy = [&awake]() -> tg::task<> {
                while (!awake) co_await tg::yield();
            };
            co_await tg::when_all(tg::as_token(busy()), tg::as_token(sleeper()));
        });
    }
}

TEST_SUITE("with_timeout") {
    TEST_CASE("in time: the result, of every kind") {
        tg::runtime runtime{{.cores = 2}};
        runtime.run([]() -> tg::task<> {
            int place = 3;
            CHECK(co_await tg::with_timeout(gives(4), 1h) == 4);
            int& referred = co_await tg::with_timeout(refers(std::ref(place)), 1h);
            CHECK(&referred == &place);
            const auto owned = co_await tg::with_timeout(owns(5), 1h);
            CHECK(*owned == 5);
            co_await tg::with_timeout(nothing(), 1h);
            CHECK(co_await tg::with_timeout(sleep_and_give(1us, 6), 1h) == 6);  // a task
            CHECK(co_await tg::with_timeout(gives(7), std::chrono::nanoseconds::max()) == 7);
        });
        check_settled(runtime);
    }

    TEST_CASE("too late: token_timeout, which names the token and the limit") {
        const std::size_t before = live_slots();
        {
            tg::runtime runtime{{.cores = 2}};
            runtime.run([]() -> tg::task<> {
                const std::pair<std::chrono::nanoseconds, const char*> limits[] = {
                    {2ms, " 2ms"}, {1500us, " 1500us"}, {1'500'001ns, " 1500001ns"}, {1ns, " 1ns"}};
                for (const auto& [limit, text] : limits) {
                    tg::token<int> late = sleeps(1h, 1);
                    const std::string id = late.id().text();
                    const std::string said =
                        co_await thrown_by(tg::with_timeout(std::move(late), limit));
                    CHECK(contains(said, "timeout: token_timeout: " + id));
                    CHECK(contains(said, text));
                }
                const std::string of_task =
                    co_await thrown_by(tg::with_timeout(sleep_and_give(1h, 1), 1ms));
                CHECK(contains(of_task, "timeout: "));
                CHECK(contains(of_task, "task"));
            });
            check_settled(runtime);
        }
        CHECK(live_slots() == before);
    }

    TEST_CASE("a value that is returned in spite of it counts") {
        tg::runtime runtime{{.cores = 2}};
        runtime.run([]() -> tg::task<> {
            tg::token<int> started_in_time = stubborn(7);
            started_in_time.admit();
            co_await begun(started_in_time);
            const int result = co_await tg::with_timeout(std::move(started_in_time), 1ms);
            CHECK(result == 7);
        });
    }

    TEST_CASE("an exception of the token's own passes, also after the time") {
        counted::reset();
        tg::runtime runtime{{.cores = 2}};
        runtime.run([]() -> tg::task<> {
            CHECK_THROWS_AS(co_await tg::with_timeout(fails(counted(1)), 1h), std::out_of_range);
            const auto late_failure = []() -> tg::task<> {
                try {
                    co_await tg::sleep_for(1h);
                } catch (const tg::token_stopped&) {}
                throw std::domain_error("late");
            };
            tg::token<void> started_in_time = tg::as_token(late_failure());
            started_in_time.admit();
            co_await begun(started_in_time);
            CHECK_THROWS_AS(co_await tg::with_timeout(std::move(started_in_time), 1ms),
                            std::domain_error);
        });
        CHECK(counted::alive() == 0);
    }

    TEST_CASE("a token stopped for another reason is not said to have been late") {
        tg::runtime runtime{{.cores = 2}};
        runtime.run([]() -> tg::task<> {
            tg::token<int> sleeper = sleeps(1h, 1);
            sleeper.request_stop();
            CHECK_THROWS_AS(co_await tg::with_timeout(std::move(sleeper), 1h), tg::token_stopped);
        });
    }

    TEST_CASE("zero and negative: never starts") {
        tg::runtime runtime{{.cores = 2}};
        runtime.run([]() -> tg::task<> {
            started = 0;
            for (const std::chrono::nanoseconds limit :
                 {std::chrono::nanoseconds(0), std::chrono::nanoseconds(-1),
                  std::chrono::nanoseconds::min()}) {
                CHECK_THROWS_AS(co_await tg::with_timeout(gives(1), limit), tg::token_timeout);
                CHECK_THROWS_AS(co_await tg::with_timeout(sleep_and_give(0s, 1), limit),
                                tg::token_timeout);
            }
            CHECK(started == 0);
        });
        check_settled(runtime);
    }

    TEST_CASE("longer than can be counted, and fractions") {
        CHECK(run_one([]() -> tg::task<int> {
                  int sum = co_await tg::with_timeout(sleeps(1ms, 1), std::chrono::seconds::max());
                  sum +=
                      co_await tg::with_timeout(sleeps(1ms, 1), std::chrono::hours(24 * 365 * 400));
                  sum += co_await tg::with_timeout(sleep_and_give(1ms, 1), 3600.5s);
                  sum += co_await tg::with_timeout(sleep_and_give(1ms, 1),
                                                   std::chrono::nanoseconds::max());
                  co_return sum;
              }) == 4);
        const tg::operation unlimited{
            {.name = "time_test_unlimited", .timeout = std::chrono::hours::max()},
            [] { return 1; }};
        CHECK(run_one([&]() -> tg::task<int> {
                  const int one = co_await unlimited();
                  co_return one;
              }) == 1);
        tg::runtime runtime{{.cores = 1}};
        runtime.start();
        std::future<int> slept = runtime.submit(sleeps(5ms, 1));
        CHECK(runtime.stop(std::chrono::hours::max()).complete());
        CHECK(slept.get() == 1);
    }

    TEST_CASE("a single wait needs no token of its own: in time, too late, and without any") {
        run_cleanly([]() -> tg::task<> {
            co_await tg::with_timeout(tg::sleep_for(1us), 1h);
            tg::channel<int> items(1);
            co_await tg::with_timeout(items.send(7), 0s);  // there is room: it need not wait
            const std::optional<int> seven = co_await tg::with_timeout(items.receive(), -1s);
            CHECK(seven == 7);
            tg::listener listener = tg::tcp::listen({"127.0.0.1", 0});
            tg::stream client =
                co_await tg::with_timeout(tg::tcp::connect(listener.local_endpoint()), 1h);
            tg::stream server = co_await tg::with_timeout(listener.accept(), 1h);
            std::array<std::byte, 4> into{};
            const tg::token_id id = tg::this_token::id();
            const auto late = [&id](const std::string& text, const char* limit) {
                CHECK(text ==
                      "timeout: token_timeout: " + id.text() + " waited longer than " + limit);
            };
            for (const auto limit : {2ms, 0ms, -1ms}) {
                const auto read = [&]() -> tg::task<> {
                    co_await tg::with_timeout(server.read(into), limit);
                };
                const std::string text = co_await thrown_by(read());
                late(text, limit == 2ms ? "2ms" : limit == 0ms ? "0s" : "-1ms");
            }
            const auto sleep = []() -> tg::task<> {
                co_await tg::with_timeout(tg::sleep_for(1h), 1.5ms);
            };
            const std::string slept = co_await thrown_by(sleep());
            late(slept, "1500us");
            const auto receive = [&]() -> tg::task<> {
                static_cast<void>(co_await tg::with_timeout(items.receive(), 1ms));
            };
            const std::string received = co_await thrown_by(receive());
            late(received, "1ms");
            const auto accept = [&]() -> tg::task<> {
                co_await tg::with_timeout(listener.accept(), 1ms);
            };
            const std::string accepted = co_await thrown_by(accept());
            late(accepted, "1ms");
            tg::mutex one;
            const auto held = co_await one.lock();
            const auto lock = [&]() -> tg::task<> {
                const auto mine = co_await tg::with_timeout(one.lock(), 1ms);
            };
            const std::string locked = co_await thrown_by(lock());
            late(locked, "1ms");
            CHECK_FALSE(tg::this_token::stop_requested());
            // Nothing was taken by those that gave up, and nothing is in their way.
            co_await client.write_all(std::as_bytes(std::span("four", 4)));
            co_await tg::with_timeout(server.read_all(into), 1h);
            CHECK(std::memcmp(into.data(), "four", 4) == 0);
        });
    }

    TEST_CASE("a single wait: a stop is a stop, whatever its time") {
        run_cleanly([]() -> tg::task<> {
            const auto sleep = [](std::chrono::nanoseconds limit) -> tg::task<> {
                co_await tg::with_timeout(tg::sleep_for(1h), limit);
            };
            const auto wait = [&]() -> tg::task<std::string> {
                const std::string text = co_await thrown_by(sleep(1h));
                const std::string again = co_await thrown_by(sleep(0s));
                co_return text.substr(0, 8) + again.substr(0, 8);
            };
            tg::token<std::string> waiting = tg::as_token(wait());
            waiting.admit();
            co_await tg::yield();
            waiting.request_stop();
            const std::string text = co_await waiting;
            CHECK(text == "stopped:stopped:");
        });
    }

    TEST_CASE("nested: whoever is over first says so") {
        tg::runtime runtime{{.cores = 2}};
        runtime.run([]() -> tg::task<> {
            const auto nested = [](std::chrono::nanoseconds inner) -> tg::task<int> {
                co_return co_await tg::with_timeout(sleeps(1h, 1), inner);
            };
            const std::string inner_first = co_await thrown_by(tg::with_timeout(nested(2ms), 1h));
            CHECK(contains(inner_first, "timeout: "));
            CHECK(contains(inner_first, " 2ms"));
            CHECK(contains(inner_first, "time_test_sleeps"));
            const std::string outer_first = co_await thrown_by(tg::with_timeout(nested(1h), 2ms));
            CHECK(contains(outer_first, "timeout: "));
            CHECK(contains(outer_first, " 2ms"));
            CHECK(contains(outer_first, "task"));
            const std::string both = co_await thrown_by(tg::with_timeout(nested(1ms), 1ms));
            CHECK(contains(both, "timeout: "));
        });
        check_settled(runtime);
    }

    TEST_CASE("of a token that was admitted before") {
        tg::runtime runtime{{.cores = 2}};
        runtime.run([]() -> tg::task<> {
            tg::token<int> running = sleeps(1h, 1);
            running.admit();
            CHECK_THROWS_AS(co_await tg::with_timeout(std::move(running), 1ms), tg::token_timeout);
            tg::token<int> ended = gives(2);
            ended.admit();
            while (tg::detail::token_access::record(ended).state.load() <=
                   tg::token_state::executing)
                co_await tg::yield();
            CHECK(co_await tg::with_timeout(std::move(ended), 1h) == 2);
            tg::token<int> waiting = sleeps(1h, 1);
            waiting.admit();
            CHECK_THROWS_AS(co_await tg::with_timeout(std::move(waiting), 0s), tg::token_timeout);
        });
        check_settled(runtime);
    }

    TEST_CASE("of a handle without a token: already_awaited") {
        tg::runtime runtime{{.cores = 1}};
        runtime.run([]() -> tg::task<> {
            CHECK_THROWS_AS(co_await tg::with_timeout(tg::token<int>(), 1h), tg::already_awaited);
        });
    }

    TEST_CASE("in a domain") {
        tg::runtime runtime{{.cores = 2}};
        const std::string said =
            runtime.run([]() -> tg::task<std::string> { co_return co_await lead(); });
        CHECK(contains(said, "time_test_conducted_sleeps"));
        CHECK(contains(said, " 2ms 5"));
        check_settled(runtime);
    }

    TEST_CASE("of a token that waits at the gate: refused while no core is free") {
        tg::runtime runtime{{.cores = 1}};
        runtime.run([]() -> tg::task<> {
            blockade all;
            tg::token<void> blocking = block(&all);
            blocking.admit();
            while (all.blocking == 0) co_await tg::yield();
            std::vector<tg::token<int>> crowd;  // more than a core's window
            for (int i = 0; i < 3000; ++i) {
                crowd.push_back(gives(i));
                crowd.back().admit();
            }
            started = 0;
            CHECK_THROWS_AS(co_await tg::with_timeout(gives(1), 2ms), tg::token_timeout);
            CHECK(started == 0);
            all.end();
            co_await blocking;
            co_await tg::when_all(std::move(crowd));
            CHECK(started == 3000);
        });
        check_settled(runtime);
    }

    TEST_CASE("of one that waits for a permit: refused while no core is free") {
        tg::runtime runtime{{.cores = 1, .storage = {.slow = 1}}};
        runtime.run([]() -> tg::task<> {
            blockade all;
            tg::token<void> blocking = slow_block(&all);
            blocking.admit();
            while (all.blocking == 0) co_await tg::yield();
            started = 0;
            CHECK_THROWS_AS(co_await tg::with_timeout(slow_gives(1), 2ms), tg::token_timeout);
            CHECK(started == 0);
            std::vector<tg::token<int>> crowd;  // the same while the core's window is full
            for (int i = 0; i < 3000; ++i) {
                crowd.push_back(gives(i));
                crowd.back().admit();
            }
            CHECK_THROWS_AS(co_await tg::with_timeout(slow_gives(1), 2ms), tg::token_timeout);
            CHECK(started == 0);
            all.end();
            co_await blocking;
            CHECK(co_await slow_gives(9) == 9);  // the permits are right
            co_await tg::when_all(std::move(crowd));
        });
        check_settled(runtime);
    }

    TEST_CASE("of one in the queue of a core that is busy: it never starts") {
        tg::runtime runtime{{.cores = 1}};
        runtime.run([]() -> tg::task<> {
            blockade all;
            tg::token<void> blocking = block(&all);
            blocking.admit();
            while (all.blocking == 0) co_await tg::yield();
            started = 0;
            tg::token<std::string> limited =
                tg::as_token(thrown_by(tg::with_timeout(gives(1), 1ms)));
            limited.admit();
            co_await tg::sleep_for(3ms);  // on this loop: the limit is over before
            all.end();
            const std::string said = co_await limited;
            CHECK(contains(said, "timeout: "));
            CHECK(started == 0);
            co_await blocking;
        });
        check_settled(runtime);
    }

    TEST_CASE("one that is to stop starts nothing, and leaves nothing running on") {
        tg::runtime runtime{{.cores = 2}};
        runtime.run([]() -> tg::task<> {
            started = 0;
            manual_event go;
            std::atomic<bool> ended{false};
            const auto child_body = [&ended]() -> tg::task<> {
                struct at_end {
                    std::atomic<bool>& flag;
                    ~at_end() { flag = true; }
                } const sets{ended};
                co_await tg::sleep_for(50ms);
            };
            bool outlived = false;
            const auto body = [&]() -> tg::task<> {
                tg::token<void> admitted = tg::as_token(child_body());
                admitted.admit();
                co_await go;  // asked to stop meanwhile
                CHECK_THROWS_AS(co_await tg::with_timeout(gives(1), 1h), tg::token_stopped);
                CHECK_THROWS_AS(co_await tg::with_timeout(std::move(admitted), 1h),
                                tg::token_stopped);
                outlived = !ended;
            };
            tg::token<void> asked = tg::as_token(body());
            asked.admit();
            co_await begun(asked);
            asked.request_stop();
            go.set();
            co_await asked;
            CHECK(started == 0);
            CHECK_FALSE(outlived);  // as if it had been awaited without a limit
            while (!ended) co_await tg::yield();
        });
        check_settled(runtime);
    }
}
