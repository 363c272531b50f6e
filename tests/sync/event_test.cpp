// SPDX-License-Identifier: MIT

#include <tokengate/event.hpp>

#include <tokengate/error.hpp>
#include <tokengate/operation.hpp>
#include <tokengate/runtime.hpp>
#include <tokengate/this_token.hpp>
#include <tokengate/time.hpp>
#include <tokengate/when_all.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <coroutine>
#include <future>
#include <memory>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

namespace tg = tokengate;

namespace {

const tg::operation passes{{.name = "event_test_passes"}, [] {}};
const tg::operation waits{{.name = "event_test_waits"},
                          [](tg::event* of, std::vector<int>* order, int n) -> tg::task<> {
                              co_await of->wait();
                              order->push_back(n);
                          }};
/// Whether it resumed where it had waited, and what it found there.
const tg::operation reads{{.name = "event_test_reads", .weight = tg::weight::heavy},
                          [](tg::event* of, const int* value) -> tg::task<int> {
                              const unsigned here = tg::this_token::executor();
                              co_await of->wait();
                              co_return tg::this_token::executor() == here ? *value : -1;
                          }};

}  // namespace

TEST_SUITE("event") {
    TEST_CASE("on a thread of no runtime: set, reset and is_set; waiting is refused") {
        tg::event happened;
        CHECK(!happened.is_set());
        happened.set();
        happened.set();
        CHECK(happened.is_set());
        auto waiting = happened.wait();
        CHECK(!waiting.await_ready());
        CHECK_THROWS_AS(waiting.await_suspend(std::noop_coroutine()), tg::wrong_thread);
        happened.reset();
        CHECK(!happened.is_set());
    }

    TEST_CASE("lets go on all who wait, in order, and those who come later, until it is reset") {
        tg::runtime runtime{{.cores = 1}};
        tg::event happened;
        std::vector<int> order;
        runtime.run([&]() -> tg::task<> {
            std::vector<tg::token<>> all;
            for (int i = 0; i < 20; ++i) {
                all.push_back(waits(&happened, &order, i));
                all.back().admit();
            }
            co_await passes();
            CHECK(order.empty());
            happened.set();
            happened.reset();  // who waited goes on all the same
            co_await tg::when_all(std::move(all));
            CHECK(order.size() == 20);
            tg::token<> late = waits(&happened, &order, 20);
            late.admit();
            co_await passes();
            CHECK(order.size() == 20);
            happened.set();
            co_await late;
            co_await waits(&happened, &order, 21);
            co_await happened.wait();
        });
        std::vector<int> expected(22);
        std::iota(expected.begin(), expected.end(), 0);
        CHECK(order == expected);
    }

    TEST_CASE(
        "set on a thread of no runtime: everybody sees what happened before, on its own core") {
        tg::runtime runtime{{.cores = 4}};
        for (int round = 0; round < 50; ++round) {
            tg::event happened;
            int value = 0;
            std::thread setter;
            runtime.run([&]() -> tg::task<> {
                std::vector<tg::token<int>> all;
                for (int i = 0; i < 40; ++i) {
                    all.push_back(reads(&happened, &value));
                    all.back().admit();
                }
                setter = std::thread([&] {
                    value = 42;
                    happened.set();
                });
                for (const int seen : co_await tg::when_all(std::move(all))) CHECK(seen == 42);
            });
            setter.join();
        }
    }

    TEST_CASE("waiters of two runtimes, set by a token of one of them") {
        tg::runtime one{{.cores = 1}};
        tg::runtime other{{.cores = 1}};
        other.start();
        tg::event happened;
        const int value = 7;
        std::future<int> there = other.submit(reads(&happened, &value));
        const int here = one.run([&]() -> tg::task<int> {
            tg::token<int> waiting = reads(&happened, &value);
            waiting.admit();
            co_await passes();
            happened.set();
            co_return co_await waiting;
        });
        CHECK(here == 7);
        CHECK(there.get() == 7);
    }

    TEST_CASE("a stop ends the wait, and one that has been asked does not wait at all") {
        tg::runtime runtime{{.cores = 2}};
        tg::event happened, never;
        std::vector<int> order;
        bool refused = false;
        const tg::operation tries{
            {.name = "event_test_tries"}, [&]() -> tg::task<> {
                try {
                    co_await never.wait();
                } catch (const tg::token_stopped&) {}
                try {
                    co_await happened.wait();  // it is set, and the token is to stop
                } catch (const tg::token_stopped&) {
                    refused = true;
                }
            }};
        runtime.run([&]() -> tg::task<> {
            happened.set();
            tg::token<> one = tries();
            one.admit();
            for (int i = 0; i < 10; ++i) co_await passes();
            one.request_stop();
            bool unrun = false;
            try {
                co_await one;
            } catch (const tg::token_stopped&) {
                unrun = true;  // it had not started
            }
            CHECK(refused != unrun);
        });
    }

    TEST_CASE("whoever was let through may destroy it") {
        tg::runtime runtime{{.cores = 2}};
        const tg::operation destroys{{.name = "event_test_destroys"},
                                     [](std::unique_ptr<tg::event>* of) -> tg::task<> {
                                         co_await (*of)->wait();
                                         of->reset();
                                     }};
        for (int round = 0; round < 200; ++round) {
            auto happened = std::make_unique<tg::event>();
            std::thread setter;
            runtime.run([&]() -> tg::task<> {
                tg::token<> last = destroys(&happened);
                last.admit();
                if (round % 2 == 0) co_await passes();
                setter = std::thread([of = happened.get()] { of->set(); });
                co_await last;
            });
            setter.join();
        }
    }

    TEST_CASE(
        "stress: stops race with the event, which is destroyed at once; each ends in one of the "
        "two ways") {
        constexpr unsigned seed = 20260116;
        MESSAGE("seed ", seed);
        std::mt19937 random(seed);
        tg::runtime runtime{{.cores = 4}};
        int read = 0, stopped = 0, wrong = 0;
        constexpr int rounds = 600, tokens = 24;
        runtime.run([&]() -> tg::task<> {
            for (int round = 0; round < rounds; ++round) {
                std::vector<tg::token<int>> all;
                auto happened = std::make_unique<tg::event>();
                int value = 0;
                for (int i = 0; i < tokens; ++i) {
                    all.push_back(reads(happened.get(), &value));
                    all.back().admit();
                }
                if (random() % 2 == 0) co_await passes();
                for (int i = 0; i < 6; ++i) all[random() % tokens].request_stop();
                if (random() % 2 == 0) co_await passes();
                value = 1;
                happened->set();
                for (int i = 0; i < 6; ++i) all[random() % tokens].request_stop();
                for (tg::token<int>& each : all) {
                    try {
                        const int seen = co_await each;
                        wrong += seen != 1;
                        ++read;
                    } catch (const tg::token_stopped&) {
                        ++stopped;
                    }
                }
            }
        });
        CHECK(wrong == 0);
        CHECK(read > 0);
        CHECK(stopped > 0);
        CHECK(read + stopped == rounds * tokens);
    }
}
