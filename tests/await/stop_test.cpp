// SPDX-License-Identifier: MIT

#include <tokengate/stop.hpp>

#include "support/leaks.hpp"
#include "support/manual_event.hpp"
#include "support/settled.hpp"
#include "support/waiting.hpp"

#include <tokengate/channel.hpp>
#include <tokengate/endpoint.hpp>
#include <tokengate/error.hpp>
#include <tokengate/operation.hpp>
#include <tokengate/runtime.hpp>
#include <tokengate/scope.hpp>
#include <tokengate/stream.hpp>
#include <tokengate/task_token.hpp>
#include <tokengate/this_token.hpp>
#include <tokengate/time.hpp>
#include <tokengate/when_all.hpp>
#include <tokengate/when_any.hpp>

#include <doctest/doctest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace tg = tokengate;
using namespace std::chrono_literals;
using tg::test::begun;
using tg::test::check_settled;
using tg::test::live_slots;
using tg::test::manual_event;
using tg::test::until;
using tg::test::wait_until;

namespace {

std::atomic<int> started{0}, stopped{0}, looping{0};

/// Sleeps until it is stopped, and notes it.
tg::task<> wait_for_stop() {
    ++started;
    try {
        co_await tg::sleep_for(1h);
    } catch (const tg::token_stopped&) {
        ++stopped;
        throw;
    }
}
const tg::operation waits{{.name = "stop_test_waits"}, wait_for_stop};
const tg::operation conducted_waits{{.name = "stop_test_conducted_waits"}, wait_for_stop};
const tg::operation fails{{.name = "stop_test_fails"}, []() -> tg::task<> {
                              co_await tg::shield(tg::sleep_for(1us));
                              throw std::out_of_range("meant to");
                          }};
const tg::operation notes{{.name = "stop_test_notes"}, [] { ++started; }};
const tg::operation gives{{.name = "stop_test_gives"}, [](int n) {
                              ++started;
                              return n;
                          }};

/// Never waits: looks for itself.
void loop_until_stop() {
    ++looping;
    while (!tg::this_token::stop_requested()) {}
    ++stopped;
}
const tg::operation loops{{.name = "stop_test_loops", .weight = tg::weight::heavy},
                          loop_until_stop};
const tg::operation conducted_loops{{.name = "stop_test_conducted_loops"}, loop_until_stop};

const tg::operation lead_waits{{.name = "stop_test_lead_waits"},
                               tg::lead{"stop_test_conducted_waits"},
                               []() -> tg::task<> { co_await conducted_waits(); }};
const tg::operation lead_loops{{.name = "stop_test_lead_loops"},
                               tg::lead{"stop_test_conducted_loops"},
                               []() -> tg::task<> { co_await conducted_loops(); }};
const tg::operation on_a_core_waits{{.name = "stop_test_on_a_core_waits"},
                                    []() -> tg::task<> { co_await waits(); }};

void reset() { started = stopped = looping = 0; }

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

/// Admits the task, waits until `begun`, asks it to stop, and tells whether it ended with token_stopped.
template <class Condition>
tg::task<bool> ends_by_stop(tg::task<> work, Condition begun) {
    tg::token<void> token = tg::as_token(std::move(work));
    token.admit();
    while (!begun()) co_await tg::yield();
    token.request_stop();
    try {
        co_await token;
    } catch (const tg::token_stopped&) {
        co_return true;
    }
    co_return false;
}

/// Runs `body` as a token that was asked to stop while it waited for something that no stop ends.
template <class Body>
void run_precancelled(tg::runtime& runtime, Body body) {
    runtime.run([&]() -> tg::task<> {
        manual_event go;
        bool begun = false;
        const auto asked = [&]() -> tg::task<> {
            begun = true;
            co_await go;
            co_await body();
        };
        tg::token<void> token = tg::as_token(asked());
        token.admit();
        while (!begun) co_await tg::yield();
        token.request_stop();
        co_await tg::yield();
        go.set();
        co_await token;
    });
}

struct no_leak {
    std::size_t before = live_slots();
    ~no_leak() { CHECK(live_slots() == before); }
};

}  // namespace

TEST_SUITE("request_stop") {
    TEST_CASE("outside of every token nothing is requested") {
        CHECK_FALSE(tg::this_token::stop_requested());
        CHECK_THROWS_AS(static_cast<void>(tg::this_token::stop()), tg::wrong_thread);
    }

    TEST_CASE("a handle without a token: already_awaited") {
        tg::token<int> none;
        CHECK_THROWS_AS(none.request_stop(), tg::already_awaited);
        tg::token<int> one = gives(1);
        const tg::token<int> other = std::move(one);
        CHECK_THROWS_AS(one.request_stop(), tg::already_awaited);
    }

    TEST_CASE("not admitted: it never starts, and says so") {
        const no_leak check;
        tg::runtime runtime{{.cores = 2}};
        runtime.run([]() -> tg::task<> {
            reset();
            tg::token<int> token = gives(1);
            const std::string id = token.id().text();
            token.request_stop();
            token.request_stop();
            std::string text;
            try {
                co_await token;
            } catch (const tg::token_stopped& said) {
                text = said.what();
            }
            CHECK(contains(text, id));
            CHECK(contains(text, "before it had started"));
            CHECK(started == 0);
            gives(1).request_stop();  // and dropped
        });
        check_settled(runtime);
    }

    TEST_CASE("of a detached token: neither it nor the failure handler says anything") {
        std::atomic<int> failures{0};
        tg::runtime runtime{{.cores = 2, .on_failure = [&](const tg::failure&) { ++failures; }}};
        runtime.run([]() -> tg::task<> {
            reset();
            {
                tg::token<void> token = waits();
                token.admit();
                co_await until([] { return started == 1; });
                token.request_stop();
            }
            {
                tg::token<void> token = notes();
                token.request_stop();
                token.admit();
            }
        });
        CHECK(stopped == 1);
        CHECK(started == 1);
        CHECK(failures == 0);
        check_settled(runtime);
    }

    TEST_CASE("running: the body looks for itself, on another core and on another's behalf") {
        tg::runtime runtime{{.cores = 2}};
        runtime.run([]() -> tg::task<> {
            reset();
            tg::token<void> token = loops();
            token.admit();
            co_await until([] { return looping == 1; });
            token.request_stop();
            token.request_stop();
            co_await token;  // returned
            CHECK(stopped == 1);
            CHECK_THROWS_AS(co_await tg::with_timeout(waits(), 1ms), tg::token_timeout);
            // a running body hears of a limit too; it returns, which counts
            try {
                co_await tg::with_timeout(loops(), 5ms);
            } catch (const tg::token_timeout&) {
                CHECK(looping == 1);  // it was too late to start
            }
            CHECK(stopped == started + looping);
        });
        check_settled(runtime);
    }

    TEST_CASE("a conducted child that runs in its lead's turn hears what the lead is asked") {
        tg::runtime runtime{{.cores = 2}};
        runtime.run([]() -> tg::task<> {
            reset();
            tg::token<void> token = lead_loops();
            token.admit();
            co_await until([] { return looping == 1; });
            token.request_stop();
            try {
                co_await token;
            } catch (const tg::token_stopped&) {}
            CHECK(stopped == 1);
        });
        check_settled(runtime);
    }

    TEST_CASE("ended: nothing happens, the result is there") {
        tg::runtime runtime{{.cores = 2}};
        runtime.run([]() -> tg::task<> {
            reset();
            tg::token<int> token = gives(4);
            token.admit();
            co_await until([&] {
                return tg::detail::token_access::record(token).state.load() >
                       tg::token_state::executing;
            });
            token.request_stop();
            co_await tg::yield();
            token.request_stop();
            CHECK(co_await token == 4);
        });
    }

    TEST_CASE("by a foreign thread that has the handle, in every state") {
        const no_leak check;
        tg::runtime runtime{{.cores = 2}};
        for (int round = 0; round < 50; ++round) {
            reset();
            manual_event asked;
            runtime.run([&]() -> tg::task<> {
                tg::token<void> token = round % 2 ? waits() : loops();
                token.admit();
                if (round % 5 != 0) co_await until([] { return started + looping == 1; });
                std::thread foreign([&, mine = std::move(token)]() mutable {
                    mine.request_stop();
                    token = std::move(mine);
                    asked.set();
                });
                co_await asked;
                foreign.join();
                try {
                    co_await token;
                } catch (const tg::token_stopped&) {}
            });
            CHECK(started + looping == stopped);
        }
        check_settled(runtime);
    }

    TEST_CASE(
        "through a handle that outlives the token, the loops and the runtime: nothing, and nothing "
        "leaks") {
        const no_leak check;
        std::vector<tg::token<int>> kept;
        {
            tg::runtime runtime{{.cores = 2}};
            kept = runtime.run([]() -> tg::task<std::vector<tg::token<int>>> {
                std::vector<tg::token<int>> ended;
                for (int i = 0; i < 3; ++i) {
                    ended.push_back(gives(i));
                    ended.back().admit();
                }
                const auto here = []() -> tg::task<int> { co_return 1; };
                ended.push_back(tg::as_token(here()));
                ended.back().admit();
                co_return ended;
            });
            for (auto& each : kept) each.request_stop();
            CHECK(runtime.stop().complete());
            for (auto& each : kept) each.request_stop();
        }
        for (auto& each : kept) each.request_stop();
        kept.clear();
    }

    TEST_CASE("passes down: what a token awaits ends, wherever it is") {
        const no_leak check;
        tg::runtime runtime{{.cores = 3}};
        runtime.run([]() -> tg::task<> {
            const auto one = [] { return started == 1; };
            const auto three = [] { return started == 3; };
            const auto other_core = []() -> tg::task<> { co_await waits(); };
            const auto plain = [](auto& self, int depth) -> tg::task<> {
                if (depth == 0)
                    co_await wait_for_stop();
                else
                    co_await self(self, depth - 1);
            };
            const auto same_loop = []() -> tg::task<> { co_await tg::as_token(wait_for_stop()); };
            const auto chain = []() -> tg::task<> { co_await on_a_core_waits(); };
            const auto conducted = []() -> tg::task<> { co_await lead_waits(); };
            const auto group = []() -> tg::task<> {
                co_await tg::when_all(waits(), lead_waits(), tg::as_token(wait_for_stop()));
            };
            const auto vector = []() -> tg::task<> {
                std::vector<tg::token<void>> all;
                for (int i = 0; i < 3; ++i) all.push_back(waits());
                co_await tg::when_all(std::move(all));
            };
            const auto any = []() -> tg::task<> {
                co_await tg::when_any(waits(), lead_waits(), tg::as_token(wait_for_stop()));
            };
            const auto scope = []() -> tg::task<> {
                const auto body = [](tg::scope& jobs) -> tg::task<> {
                    co_await jobs.spawn(waits());
                    co_await jobs.spawn(lead_waits());
                    co_await wait_for_stop();
                };
                co_await tg::with_scope(body);
            };
            const auto limited = []() -> tg::task<> { co_await tg::with_timeout(waits(), 1h); };
            const auto admitted = []() -> tg::task<> {
                tg::token<void> before = waits();
                before.admit();
                co_await begun(before);
                co_await before;
            };
            for (int round = 0; round < 20; ++round) {
                reset();
                CHECK(co_await ends_by_stop(other_core(), one));
                CHECK(stopped == 1);
                reset();
                CHECK(co_await ends_by_stop(plain(plain, 5), one));
                CHECK(stopped == 1);
                reset();
                CHECK(co_await ends_by_stop(same_loop(), one));
                CHECK(stopped == 1);
                reset();
                CHECK(co_await ends_by_stop(chain(), one));
                CHECK(stopped == 1);
                reset();
                CHECK(co_await ends_by_stop(conducted(), one));
                CHECK(stopped == 1);
                reset();
                CHECK(co_await ends_by_stop(group(), three));
                CHECK(stopped == 3);
                reset();
                CHECK(co_await ends_by_stop(vector(), three));
                CHECK(stopped == 3);
                reset();
                CHECK(co_await ends_by_stop(any(), three));
                CHECK(stopped == 3);
                reset();
                CHECK(co_await ends_by_stop(scope(), three));
                CHECK(stopped == 3);
                reset();
                CHECK(co_await ends_by_stop(limited(), one));
                CHECK(stopped == 1);
                reset();
                CHECK(co_await ends_by_stop(admitted(), one));
                CHECK(stopped == 1);
            }
        });
        check_settled(runtime);
    }

    TEST_CASE("asked at any moment of the way: no child is forgotten") {
        const no_leak check;
        tg::runtime runtime{{.cores = 3}};
        runtime.run([]() -> tg::task<> {
            for (int round = 0; round < 300; ++round) {
                tg::token<void> token = round % 3 == 0   ? on_a_core_waits()
                                        : round % 3 == 1 ? lead_waits()
                                                         : waits();
                token.admit();
                for (int turns = round % 7; turns > 0; --turns) co_await tg::yield();
                token.request_stop();
                CHECK_THROWS_AS(co_await token, tg::token_stopped);
            }
        });
        check_settled(runtime);
    }

    TEST_CASE("who is to stop waits for nothing any more, and starts nothing") {
        const no_leak check;
        tg::runtime runtime{{.cores = 2}};
        reset();
        run_precancelled(runtime, []() -> tg::task<> {
            CHECK(tg::this_token::stop_requested());
            CHECK_THROWS_AS(co_await gives(1), tg::token_stopped);
            CHECK_THROWS_AS(co_await tg::as_token(wait_for_stop()), tg::token_stopped);
            CHECK_THROWS_AS(co_await tg::sleep_for(1h), tg::token_stopped);
            CHECK_THROWS_AS(co_await tg::sleep_for(0s), tg::token_stopped);
            CHECK_THROWS_AS(co_await tg::yield(), tg::token_stopped);
            CHECK_THROWS_AS(co_await tg::when_all(gives(1), gives(2)), tg::token_stopped);
            CHECK_THROWS_AS(co_await tg::when_any(gives(1), gives(2)), tg::token_stopped);
            CHECK_THROWS_AS(co_await tg::with_timeout(gives(1), 1h), tg::token_stopped);
            const auto body = [](tg::scope& jobs) -> tg::task<> {
                ++started;
                co_await jobs.spawn(gives(1));
            };
            CHECK_THROWS_AS(co_await tg::with_scope(body), tg::token_stopped);
            std::vector<tg::token<int>> several;
            several.push_back(gives(1));
            CHECK_THROWS_AS(co_await tg::when_all(std::move(several)), tg::token_stopped);
            tg::token<void> detached = notes();  // is its own master
            detached.admit();
        });
        CHECK(started == 1);
        check_settled(runtime);
    }

    TEST_CASE("who is to stop asks an admitted token to stop, and awaits it") {
        tg::runtime runtime{{.cores = 2}};
        reset();
        runtime.run([]() -> tg::task<> {
            manual_event go;
            const auto body = [&]() -> tg::task<> {
                tg::token<void> child = waits();
                child.admit();
                co_await go;
                CHECK_THROWS_AS(co_await child, tg::token_stopped);
                CHECK(stopped == started);
            };
            tg::token<void> token = tg::as_token(body());
            token.admit();
            co_await until([] { return started == 1; });
            token.request_stop();
            go.set();
            co_await token;
        });
        CHECK(stopped == 1);
    }

    TEST_CASE(
        "a value that is returned all the same is the result; a success that beats the stop "
        "succeeds") {
        tg::runtime runtime{{.cores = 2}};
        runtime.run([]() -> tg::task<> {
            const auto returns = []() -> tg::task<int> {
                try {
                    co_await tg::sleep_for(1h);
                } catch (const tg::token_stopped&) {}
                co_return 3;
            };
            tg::token<int> token = tg::as_token(returns());
            token.admit();
            co_await begun(token);
            token.request_stop();
            CHECK(co_await token == 3);

            reset();
            manual_event go;
            const auto beats = [&go]() -> tg::task<int> {
                tg::token<int> child = gives(5);
                child.admit();
                co_await go;  // the child has ended meanwhile
                co_return co_await child;
            };
            tg::token<int> winner = tg::as_token(beats());
            winner.admit();
            co_await until([] { return started == 1; });
            winner.request_stop();
            go.set();
            CHECK(co_await winner == 5);
        });
    }

    TEST_CASE("a stop inside of a wait that no stop ends is found at the next") {
        tg::runtime runtime{{.cores = 1}};
        reset();
        run_precancelled(runtime, []() -> tg::task<> {
            bool thrown = false;
            try {
                co_await wait_for_stop();  // a plain task runs: it is the same body
            } catch (const tg::token_stopped&) {
                thrown = true;
            }
            CHECK(thrown);
            CHECK(started == 1);
            CHECK(stopped == 1);
        });
    }
}

TEST_SUITE("stop_callback") {
    TEST_CASE("later, on the token's core, once; and not when it has been destroyed before") {
        tg::runtime runtime{{.cores = 2}};
        runtime.run([]() -> tg::task<> {
            std::atomic<int> called{0}, not_called{0};
            std::atomic<bool> begun{false}, same{false};
            const auto body = [&]() -> tg::task<> {
                const auto thread = std::this_thread::get_id();
                {
                    tg::stop_callback gone{tg::this_token::stop(), [&] { ++not_called; }};
                }
                tg::stop_callback one{tg::this_token::stop(), [&, thread] {
                                          ++called;
                                          same = std::this_thread::get_id() == thread;
                                      }};
                tg::stop_callback two{tg::this_token::stop(), [&] { ++called; }};
                begun = true;
                try {
                    co_await tg::sleep_for(1h);
                } catch (const tg::token_stopped&) {
                    CHECK(called == 2);
                }
            };
            const tg::operation elsewhere{{.name = "stop_test_callbacks"}, body};
            tg::token<void> token = elsewhere();
            token.admit();
            co_await until([&] { return begun.load(); });
            token.request_stop();
            token.request_stop();
            co_await token;
            CHECK(called == 2);
            CHECK(not_called == 0);
            CHECK(same);
        });
    }

    TEST_CASE(
        "called before a wait throws, also where the body meets the stop before the message does") {
        tg::runtime runtime{{.cores = 2}};
        runtime.run([]() -> tg::task<> {
            reset();
            std::atomic<int> called{0}, called_at_the_wait{-1};
            const auto body = [&]() -> tg::task<> {
                tg::stop_callback one{tg::this_token::stop(), [&] { ++called; }};
                ++looping;
                while (!tg::this_token::stop_requested()) {}  // nothing is delivered here meanwhile
                try {
                    co_await tg::sleep_for(1h);
                } catch (const tg::token_stopped&) {
                    called_at_the_wait = called.load();
                }
            };
            const tg::operation elsewhere{{.name = "stop_test_meets_the_stop"}, body};
            tg::token<void> token = elsewhere();
            token.admit();
            co_await until([] { return looping == 1; });
            token.request_stop();
            co_await token;
            CHECK(called_at_the_wait == 1);
            CHECK(called == 1);
        });
    }

    TEST_CASE("at once where the stop has been requested") {
        tg::runtime runtime{{.cores = 1}};
        int called = 0;
        run_precancelled(runtime, [&]() -> tg::task<> {
            const tg::stop_token stop = tg::this_token::stop();
            CHECK(stop.stop_requested());
            {
                tg::stop_callback now{stop, [&] { ++called; }};
                CHECK(called == 1);
            }
            CHECK(called == 1);
            co_return;
        });
        CHECK(called == 1);
    }

    TEST_CASE("one that destroys another, itself or makes a new one from within") {
        tg::runtime runtime{{.cores = 1}};
        runtime.run([]() -> tg::task<> {
            int called = 0;
            const auto body = [&called]() -> tg::task<> {
                using callback = tg::stop_callback<std::function<void()>>;
                std::optional<callback> first, second, self;
                first.emplace(tg::this_token::stop(), [&] {
                    ++called;
                    second.reset();
                });
                second.emplace(tg::this_token::stop(), [&] {
                    ++called;
                    first.reset();
                });
                self.emplace(tg::this_token::stop(), [&] {
                    ++called;
                    self.reset();  // and this closure with it
                });
                try {
                    co_await tg::sleep_for(1h);
                } catch (const tg::token_stopped&) {}
                CHECK(called == 2);  // one of the pair, and the one that destroys itself
                CHECK(first.has_value() != second.has_value());
                CHECK_FALSE(self.has_value());
            };
            tg::token<void> token = tg::as_token(body());
            token.admit();
            co_await begun(token);
            token.request_stop();
            co_await token;
        });
    }

    TEST_CASE("in a shield: after it") {
        tg::runtime runtime{{.cores = 1}};
        runtime.run([]() -> tg::task<> {
            manual_event go;
            std::string order;
            const auto inside = [&]() -> tg::task<> {
                co_await go;
                order += "shielded ";
                tg::stop_callback late{tg::this_token::stop(), [&] { order += "never "; }};
                co_await tg::yield();
                order += "end ";
            };
            const auto body = [&]() -> tg::task<> {
                tg::stop_callback outer{tg::this_token::stop(), [&] { order += "called "; }};
                co_await tg::shield(inside());
                order += "left";
            };
            tg::token<void> token = tg::as_token(body());
            token.admit();
            co_await begun(token);
            token.request_stop();
            co_await tg::yield();
            go.set();
            co_await token;
            CHECK(order == "shielded end called left");
        });
    }

    TEST_CASE("of another token, or none: wrong_thread") {
        tg::runtime runtime{{.cores = 1}};
        runtime.run([]() -> tg::task<> {
            const tg::stop_token mine = tg::this_token::stop();
            std::string text;
            std::thread foreign([&] {
                try {
                    tg::stop_callback never{mine, [] {}};
                } catch (const tg::wrong_thread& wrong) {
                    text = wrong.what();
                }
            });
            foreign.join();
            CHECK(contains(text, "stop_callback"));
            CHECK_FALSE(mine.stop_requested());
            const auto other = [mine]() -> tg::task<> {
                CHECK_THROWS_AS((tg::stop_callback{mine, [] {}}), tg::wrong_thread);
                co_return;
            };
            co_await tg::as_token(other());
        });
    }

    TEST_CASE("one that stops others, or a scope") {
        tg::runtime runtime{{.cores = 2}};
        reset();
        runtime.run([]() -> tg::task<> {
            const auto body = [](tg::scope& jobs) -> tg::task<> {
                for (int i = 0; i < 100; ++i) co_await jobs.spawn(waits());
                co_await until([] { return started == 100; });
                const auto inner = [&jobs]() -> tg::task<> {
                    tg::stop_callback all{tg::this_token::stop(), [&jobs] { jobs.request_stop(); }};
                    co_await tg::sleep_for(1h);
                };
                tg::token<void> token = tg::as_token(inner());
                token.admit();
                co_await begun(token);
                token.request_stop();
                try {
                    co_await token;
                } catch (const tg::token_stopped&) {}
            };
            try {
                co_await tg::with_scope(body);
            } catch (const tg::token_stopped&) {}
        });
        CHECK(stopped == 100);
        check_settled(runtime);
    }
}

TEST_SUITE("shield") {
    TEST_CASE("what is inside waits to its end; what comes after it throws") {
        tg::runtime runtime{{.cores = 2}};
        runtime.run([]() -> tg::task<> {
            reset();
            bool done = false, requested_inside = true;
            const auto clean_up = [&]() -> tg::task<int> {
                co_await tg::sleep_for(3ms);
                requested_inside = tg::this_token::stop_requested();
                const int given = co_await gives(2);
                auto [a, b] = co_await tg::when_all(gives(3), gives(4));
                co_await tg::yield();
                done = true;
                co_return given + a + b;
            };
            const auto body = [&]() -> tg::task<> {
                CHECK(co_await tg::shield(clean_up()) == 9);
                CHECK(tg::this_token::stop_requested());
                co_await tg::sleep_for(1h);
            };
            tg::token<void> token = tg::as_token(body());
            token.admit();
            co_await begun(token);
            token.request_stop();
            CHECK_THROWS_AS(co_await token, tg::token_stopped);
            CHECK(done);
            CHECK_FALSE(requested_inside);
        });
        check_settled(runtime);
    }

    TEST_CASE("around a single wait") {
        const no_leak check;
        tg::runtime runtime{{.cores = 1}};
        int slept = 0;
        const auto clean_up = [&]() -> tg::task<> {
            try {
                co_await tg::sleep_for(1h);
            } catch (const tg::token_stopped&) {}
            co_await tg::shield(tg::sleep_for(1us));
            ++slept;
            tg::channel<int> items(1);
            co_await tg::shield(items.send(1));  // which need not wait
            ++slept;
            CHECK_THROWS_AS(co_await tg::shield(fails()), std::out_of_range);
            CHECK(tg::this_token::
                      stop_requested());  // the shield has gone with the wait, on every way out
            co_await tg::sleep_for(1us);  // not shielded
            ++slept;
        };
        runtime.run([&]() -> tg::task<> {
            tg::token<void> cleaning = tg::as_token(clean_up());
            cleaning.admit();
            co_await tg::yield();
            cleaning.request_stop();
            CHECK_THROWS_AS(co_await cleaning, tg::token_stopped);
        });
        CHECK(slept == 2);
    }

    TEST_CASE("of one that is to stop already; nested; around a token; with an exception") {
        tg::runtime runtime{{.cores = 2}};
        reset();
        run_precancelled(runtime, []() -> tg::task<> {
            const auto inner = []() -> tg::task<int> { co_return co_await gives(1); };
            const auto outer = [&]() -> tg::task<int> {
                const int first = co_await tg::shield(inner());
                CHECK_FALSE(tg::this_token::stop_requested());  // the outer one holds
                co_return first + co_await gives(1);
            };
            CHECK(co_await tg::shield(outer()) == 2);
            CHECK(co_await tg::shield(gives(5)) == 5);
            CHECK(tg::this_token::stop_requested());
            const auto throws = []() -> tg::task<> {
                co_await tg::yield();
                throw std::domain_error("inside");
            };
            CHECK_THROWS_AS(co_await tg::shield(throws()), std::domain_error);
            CHECK(tg::this_token::stop_requested());
            CHECK_THROWS_AS(co_await tg::yield(), tg::token_stopped);
        });
        check_settled(runtime);
    }

    TEST_CASE("timeouts, groups and scopes inside of it work") {
        tg::runtime runtime{{.cores = 2}};
        reset();
        run_precancelled(runtime, []() -> tg::task<> {
            const auto inside = []() -> tg::task<> {
                CHECK_THROWS_AS(co_await tg::with_timeout(waits(), 1ms), tg::token_timeout);
                CHECK(co_await tg::with_timeout(gives(1), 1h) == 1);
                const auto first = co_await tg::when_any(gives(7), gives(7));
                CHECK(first.value.index() == first.index);
                const auto body = [](tg::scope& jobs) -> tg::task<int> {
                    co_await jobs.spawn(notes());
                    co_return 8;
                };
                CHECK(co_await tg::with_scope(body) == 8);
            };
            co_await tg::shield(inside());
        });
        check_settled(runtime);
    }

    TEST_CASE("a child's shield holds against its awaiter's stop") {
        tg::runtime runtime{{.cores = 2}};
        runtime.run([]() -> tg::task<> {
            reset();
            manual_event go;
            std::atomic<bool> inside{false}, whole{false};
            const auto protected_body = [&]() -> tg::task<> {
                inside = true;
                co_await tg::sleep_for(2ms);
                co_await go;
                co_await tg::sleep_for(2ms);
                whole = true;
            };
            const auto child_body = [&]() -> tg::task<> { co_await tg::shield(protected_body()); };
            const tg::operation child{{.name = "stop_test_shielded_child"}, child_body};
            const auto parent_body = [&]() -> tg::task<> { co_await child(); };
            tg::token<void> parent = tg::as_token(parent_body());
            parent.admit();
            co_await until([&] { return inside.load(); });
            parent.request_stop();
            co_await tg::yield();
            go.set();
            co_await parent;
            CHECK(whole);
        });
    }
}

TEST_SUITE("runtime::stop with a grace") {
    TEST_CASE(
        "what sleeps is asked when it is over, and the runtime ends; who asked for it hears of "
        "it") {
        const no_leak check;
        std::atomic<int> failures{0};
        reset();
        {
            tg::runtime runtime{
                {.cores = 3, .on_failure = [&](const tg::failure&) { ++failures; }}};
            runtime.start();
            std::vector<std::future<void>> all;
            for (int i = 0; i < 300; ++i)
                all.push_back(i % 3 == 0   ? runtime.submit(waits())
                              : i % 3 == 1 ? runtime.submit(lead_waits())
                                           : runtime.submit(tg::as_token(wait_for_stop())));
            wait_until([] { return started == 300; });
            CHECK(runtime.stop(1min, 5ms).complete());
            CHECK(stopped == 300);
            for (auto& each : all) CHECK_THROWS_AS(each.get(), tg::token_stopped);
            check_settled(runtime);
        }
        CHECK(failures == 0);
    }

    TEST_CASE("a running body finds it when it looks") {
        reset();
        tg::runtime runtime{{.cores = 2}};
        runtime.start();
        auto loop = runtime.submit(loops());
        auto conducted = runtime.submit(lead_loops());
        wait_until([] { return looping == 2; });
        const tg::stop_report left = runtime.stop(5s, 0s);
        CHECK(left.complete());
        if (!left.complete()) std::_Exit(1);  // the loops never end
        loop.get();
    }

    TEST_CASE("what has not started never does, and its future says so; detached ones are silent") {
        const no_leak check;
        std::atomic<int> failures{0};
        reset();
        {
            tg::runtime runtime{{.cores = 1,
                                 .storage = {.slow = 1},
                                 .on_failure = [&](const tg::failure&) { ++failures; }}};
            runtime.start();
            std::atomic<bool> go{false};
            const tg::operation blocks{{.name = "stop_test_blocks", .storage = tg::storage::slow},
                                       [&go] {
                                           ++looping;
                                           go.wait(false);
                                       }};
            const tg::operation slow_notes{
                {.name = "stop_test_slow_notes", .storage = tg::storage::slow}, [] { ++started; }};
            const tg::operation sticky_notes{{.name = "stop_test_sticky_notes"},
                                             tg::sticky{"stop_test", [](int n) { return n; }},
                                             [](int) { ++started; }};
            const auto detaches = []() -> tg::task<> {
                for (int i = 0; i < 50; ++i) notes().admit();
                co_return;
            };
            auto blocking = runtime.submit(blocks());
            wait_until([] { return looping == 1; });
            std::vector<std::future<void>> all;
            for (int i = 0; i < 3000; ++i) all.push_back(runtime.submit(notes()));
            for (int i = 0; i < 10; ++i) all.push_back(runtime.submit(slow_notes()));
            for (int i = 0; i < 10; ++i) all.push_back(runtime.submit(sticky_notes(i)));
            runtime.submit(tg::as_token(detaches())).get();
            const tg::stop_report left = runtime.stop(20ms, 0s);
            CHECK_FALSE(left.complete());  // the blockade
            go = true;
            go.notify_all();
            CHECK(runtime.stop().complete());
            blocking.get();
            CHECK(started == 0);
            for (auto& each : all) CHECK_THROWS_AS(each.get(), tg::token_stopped);
            check_settled(runtime);
        }
        CHECK(failures == 0);
    }

    TEST_CASE("a runtime that nobody hosted refuses what was submitted to it") {
        reset();
        tg::runtime runtime{{.cores = 1}};
        auto never = runtime.submit(gives(1));
        auto task = runtime.submit(tg::as_token(wait_for_stop()));
        CHECK(runtime.stop(1min, 0s).complete());
        CHECK_THROWS_AS(never.get(), tg::token_stopped);
        CHECK_THROWS_AS(task.get(), tg::token_stopped);
        CHECK(started == 0);
    }

    TEST_CASE("who ignores it is named as a survivor") {
        tg::runtime runtime{{.cores = 2}};
        runtime.start();
        manual_event go;
        std::atomic<bool> inside{false};
        const tg::operation ignores{{.name = "stop_test_ignores"}, [&]() -> tg::task<int> {
                                        inside = true;
                                        co_await go;
                                        co_return 1;
                                    }};
        auto future = runtime.submit(ignores());
        wait_until([&] { return inside.load(); });
        const tg::stop_report left = runtime.stop(5ms, 1ms);
        REQUIRE(left.survivors.size() == 1);
        CHECK(contains(left.survivors[0].id.text(), "stop_test_ignores"));
        go.set();
        CHECK(runtime.stop(1min, 0s).complete());
        CHECK(future.get() == 1);
    }

    TEST_CASE("without a deadline nothing is asked") {
        reset();
        tg::runtime runtime{{.cores = 2}};
        runtime.start();
        auto slept = runtime.submit(tg::as_token([]() -> tg::task<int> {
            co_await tg::sleep_for(20ms);
            co_return tg::this_token::stop_requested() ? 0 : 1;
        }()));
        auto given = runtime.submit(gives(1));
        CHECK(runtime.stop().complete());
        CHECK(slept.get() == 1);
        CHECK(given.get() == 1);
    }

    TEST_CASE("what is inside a shield, and its children, get to their end") {
        const no_leak check;
        reset();
        tg::runtime runtime{{.cores = 2}};
        runtime.start();
        std::atomic<bool> inside{false};
        const auto grandchild = []() -> tg::task<int> {
            co_await tg::sleep_for(2ms);
            co_return co_await gives(1);
        };
        const tg::operation child{{.name = "stop_test_child_of_a_shield"}, grandchild};
        const auto farewell = [&]() -> tg::task<int> {
            inside = true;
            co_await tg::sleep_for(30ms);  // stop has asked meanwhile
            auto [a, b] = co_await tg::when_all(child(), child());
            const int c = co_await tg::with_timeout(child(), 1h);
            const auto body = [&](tg::scope& jobs) -> tg::task<int> {
                co_await jobs.spawn(child());
                co_return co_await child();
            };
            co_return a + b + c + co_await tg::with_scope(body);
        };
        const tg::operation shielded{{.name = "stop_test_in_a_shield"}, [&]() -> tg::task<int> {
                                         const int done = co_await tg::shield(farewell());
                                         bool thrown = false;
                                         try {
                                             co_await tg::yield();
                                         } catch (const tg::token_stopped&) {
                                             thrown = true;
                                         }
                                         co_return thrown ? done : -1;
                                     }};
        auto future = runtime.submit(shielded());
        wait_until([&] { return inside.load(); });
        CHECK(runtime.stop(1min, 0s).complete());
        CHECK(future.get() == 4);
    }

    TEST_CASE("under run: the main token is asked too") {
        tg::runtime runtime{{.cores = 1}};
        reset();
        std::thread foreign([&] {
            wait_until([] { return started == 1; });
            CHECK(runtime.stop(1min, 0s).complete());
        });
        CHECK_THROWS_AS(runtime.run([]() -> tg::task<> { co_await wait_for_stop(); }),
                        tg::token_stopped);
        foreign.join();
        CHECK(stopped == 1);
    }

    TEST_CASE("the destructor asks what sleeps, after its grace") {
        reset();
        std::future<void> future;
        {
            tg::runtime runtime{{.cores = 1}};
            runtime.start();
            future = runtime.submit(waits());
            wait_until([] { return started == 1; });
        }
        CHECK(stopped == 1);
        CHECK_THROWS_AS(future.get(), tg::token_stopped);
    }

    TEST_CASE("the control loop may change its host while tokens wait on it") {
        const no_leak check;
        manual_event go;
        std::atomic<int> begun{0};
        std::atomic<bool> moved{false};
        const tg::operation waits_for_go{{.name = "stop_test_waits_for_go"},
                                         [&]() -> tg::task<int> {
                                             ++begun;
                                             co_await go;
                                             co_return 1;
                                         }};
        auto runtime = std::make_unique<tg::runtime>(tg::runtime_options{.cores = 1});
        const auto on_the_control_loop = [&]() -> tg::task<int> {
            const unsigned here = tg::this_token::executor();
            const int one = co_await waits_for_go();
            moved = moved || tg::this_token::executor() != here;
            auto [a, b] = co_await tg::when_all(waits_for_go(), waits_for_go());
            moved = moved || tg::this_token::executor() != here;
            co_return one + a + b;
        };
        const auto in_a_group = [&]() -> tg::task<int> {
            const unsigned here = tg::this_token::executor();
            auto [a, b] = co_await tg::when_all(waits_for_go(), waits_for_go());
            moved = moved || tg::this_token::executor() != here;
            co_return 1 + a + b;
        };
        const auto in_any = [&]() -> tg::task<int> {
            const unsigned here = tg::this_token::executor();
            co_await tg::when_any(waits_for_go(), waits_for_go());
            moved = moved || tg::this_token::executor() != here;
            co_return 3;
        };
        const auto in_a_scope = [&]() -> tg::task<int> {
            const unsigned here = tg::this_token::executor();
            const auto body = [&](tg::scope& jobs) -> tg::task<> {
                co_await jobs.spawn(waits_for_go());
                co_await jobs.spawn(waits_for_go());
            };
            co_await tg::with_scope(body);
            moved = moved || tg::this_token::executor() != here;
            co_return 3;
        };
        std::vector<std::future<int>> all;
        all.push_back(runtime->submit(tg::as_token(on_the_control_loop())));
        all.push_back(runtime->submit(tg::as_token(in_a_group())));
        all.push_back(runtime->submit(tg::as_token(in_any())));
        all.push_back(runtime->submit(tg::as_token(in_a_scope())));
        // A first host serves for a while, and ends; its context goes to another runtime's executor.
        std::thread first([&] { CHECK_FALSE(runtime->stop(20ms, 1min).complete()); });
        first.join();
        {
            tg::runtime other{{.cores = 1}};
            other.start();
            wait_until([&] { return begun >= 7; });
            go.set();
            CHECK(runtime->stop().complete());
        }
        for (auto& each : all) CHECK(each.get() == 3);
        CHECK_FALSE(moved);
        check_settled(*runtime);
        runtime.reset();
    }

    TEST_CASE("what the kernel was asked for on the control loop outlives the thread that asked") {
        const no_leak check;
        int ends[2];
        REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
        tg::runtime runtime{{.cores = 1}};
        std::atomic<bool> reading{false};
        const auto read_five = [&]() -> tg::task<std::size_t> {
            tg::stream from = tg::stream::from_descriptor(ends[0], tg::endpoint::local("/five"));
            std::array<std::byte, 5> into;
            reading = true;
            const std::size_t came = co_await from.read_all(into);
            co_return came;
        };
        std::future<std::size_t> came = runtime.submit(tg::as_token(read_five()));
        // The kernel gives up what a thread has asked for when that thread ends.
        std::thread first([&] {
            while (!reading) CHECK_FALSE(runtime.stop(5ms, 1min).complete());
        });
        first.join();
        std::thread second([&] { CHECK_FALSE(runtime.stop(5ms, 1min).complete()); });
        second.join();
        REQUIRE(::write(ends[1], "hello", 5) == 5);
        CHECK(runtime.stop().complete());
        CHECK(came.get() == 5);
        ::close(ends[1]);
    }
}
