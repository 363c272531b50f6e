// SPDX-License-Identifier: MIT

#include <tokengate/latch.hpp>

#include <tokengate/error.hpp>
#include <tokengate/operation.hpp>
#include <tokengate/runtime.hpp>
#include <tokengate/this_token.hpp>
#include <tokengate/when_all.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <coroutine>
#include <memory>
#include <random>
#include <thread>
#include <vector>

namespace tg = tokengate;

namespace {

const tg::operation passes{{.name = "latch_test_passes"}, [] {}};
const tg::operation waits{{.name = "latch_test_waits", .weight = tg::weight::heavy},
                          [](tg::latch* of, std::atomic<int>* through) -> tg::task<> {
                              const unsigned here = tg::this_token::executor();
                              co_await of->wait();
                              *through += tg::this_token::executor() == here ? 1 : 1000;
                          }};
const tg::operation arrives{
    {.name = "latch_test_arrives", .weight = tg::weight::heavy},
    [](tg::latch* of, std::atomic<int>* arrived, int all) -> tg::task<bool> {
        ++*arrived;
        co_await of->arrive_and_wait();
        co_return *arrived == all;
    }};

}  // namespace

TEST_SUITE("latch") {
    TEST_CASE(
        "on a thread of no runtime: count_down and is_open; waiting is refused, and does not "
        "arrive") {
        tg::latch three(3);
        three.count_down();
        CHECK(!three.is_open());
        {
            auto waiting = three.arrive_and_wait(2);
            CHECK(!waiting.await_ready());
            CHECK_THROWS_AS(waiting.await_suspend(std::noop_coroutine()), tg::wrong_thread);
        }
        CHECK(!three.is_open());
        three.count_down(2);
        CHECK(three.is_open());
        three.count_down();
        CHECK(three.is_open());
        CHECK(tg::latch(0).is_open());
        tg::latch two(2);
        two.count_down(5);
        CHECK(two.is_open());
    }

    TEST_CASE("opens for all at the last count, and stays open") {
        tg::runtime runtime{{.cores = 4}};
        tg::latch gate(8);
        std::atomic<int> through{0};
        std::vector<std::thread> counters;
        runtime.run([&]() -> tg::task<> {
            std::vector<tg::token<>> all;
            for (int i = 0; i < 40; ++i) {
                all.push_back(waits(&gate, &through));
                all.back().admit();
            }
            for (int i = 0; i < 7; ++i) gate.count_down();
            co_await passes();
            CHECK(through == 0);
            counters.emplace_back([&gate] { gate.count_down(); });
            co_await tg::when_all(std::move(all));
            CHECK(through == 40);
            co_await gate.wait();
            co_await gate.arrive_and_wait();
        });
        for (std::thread& counter : counters) counter.join();
    }

    TEST_CASE("arrive_and_wait: nobody goes on before all have arrived") {
        tg::runtime runtime{{.cores = 4}};
        runtime.run([&]() -> tg::task<> {
            for (int round = 0; round < 100; ++round) {
                tg::latch all_there(20);
                std::atomic<int> arrived{0};
                std::vector<tg::token<bool>> all;
                for (int i = 0; i < 20; ++i) all.push_back(arrives(&all_there, &arrived, 20));
                for (const bool complete : co_await tg::when_all(std::move(all))) CHECK(complete);
            }
        });
    }

    TEST_CASE("a token that has been asked to stop arrives, and does not wait") {
        tg::runtime runtime{{.cores = 1}};
        tg::latch two(2);
        std::atomic<int> through{0};
        bool stopped = false;
        const tg::operation stops{{.name = "latch_test_stops"},
                                  [&](tg::token<>* self) -> tg::task<> {
                                      self->request_stop();
                                      try {
                                          co_await two.arrive_and_wait();
                                      } catch (const tg::token_stopped&) {
                                          stopped = true;
                                      }
                                  }};
        runtime.run([&]() -> tg::task<> {
            tg::token<> waiting = waits(&two, &through);
            waiting.admit();
            tg::token<> one;
            one = stops(&one);
            one.admit();
            co_await passes();
            CHECK(stopped);
            CHECK(!two.is_open());
            two.count_down();
            co_await waiting;
            co_await one;
        });
        CHECK(through == 1);
    }

    TEST_CASE(
        "stress: in the frame of one who arrives, who may leave before others run; stops race with "
        "the last arrival") {
        constexpr unsigned seed = 20260117;
        MESSAGE("seed ", seed);
        std::mt19937 random(seed);
        tg::runtime runtime{{.cores = 4}};
        int through = 0, stopped = 0;
        constexpr int rounds = 600, tokens = 12;
        runtime.run([&]() -> tg::task<> {
            for (int round = 0; round < rounds; ++round) {
                auto all_there = std::make_unique<tg::latch>(tokens + 1);
                std::atomic<int> arrived{0};
                std::vector<tg::token<bool>> all;
                for (int i = 0; i < tokens; ++i) {
                    all.push_back(arrives(all_there.get(), &arrived, tokens));
                    all.back().admit();
                }
                // Only those that have started are asked: who never starts never arrives.
                while (arrived != tokens) co_await passes();
                for (int i = 0; i < 4; ++i) all[random() % tokens].request_stop();
                if (random() % 2 == 0) co_await passes();
                co_await all_there->arrive_and_wait();
                all_there.reset();
                for (int i = 0; i < 4; ++i) all[random() % tokens].request_stop();
                for (tg::token<bool>& each : all) {
                    try {
                        const bool complete = co_await each;
                        through += complete;
                    } catch (const tg::token_stopped&) {
                        ++stopped;
                    }
                }
            }
        });
        CHECK(through + stopped == rounds * tokens);
        CHECK(through > 0);
        CHECK(stopped > 0);
    }
}
