// SPDX-License-Identifier: MIT

#include <tokengate/semaphore.hpp>

#include <tokengate/error.hpp>
#include <tokengate/operation.hpp>
#include <tokengate/runtime.hpp>
#include <tokengate/this_token.hpp>
#include <tokengate/time.hpp>
#include <tokengate/when_all.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <coroutine>
#include <random>
#include <thread>
#include <utility>
#include <vector>

namespace tg = tokengate;

namespace {

const tg::operation passes{{.name = "semaphore_test_passes"}, [] {}};
const tg::operation acquires{{.name = "semaphore_test_acquires"},
                             [](tg::semaphore* of, std::vector<int>* order, int n) -> tg::task<> {
                                 co_await of->acquire();
                                 order->push_back(n);
                             }};
const tg::operation slow_acquires{
    {.name = "semaphore_test_slow_acquires", .storage = tg::storage::slow},
    [](tg::semaphore* of) -> tg::task<> { co_await of->acquire(); }};
const tg::operation slow_releases{
    {.name = "semaphore_test_slow_releases", .storage = tg::storage::slow},
    [](tg::semaphore* of) { of->release(); }};

struct pool {
    explicit pool(std::size_t permits) : permits(permits), limit(static_cast<int>(permits)) {}
    tg::semaphore permits;
    int limit;
    std::atomic<int> inside{0};
    std::atomic<int> too_many{0};
    std::atomic<int> strayed{0};
    std::atomic<long> operations{0};
    std::atomic<long> stopped{0};

    void enter() { too_many += ++inside > limit; }
    void leave() { --inside; }
};

/// Every way to take and to give, in random order.
const tg::operation works{{.name = "semaphore_test_works", .weight = tg::weight::heavy},
                          [](pool* in, int times, unsigned seed) -> tg::task<> {
                              const unsigned here = tg::this_token::executor();
                              std::minstd_rand random(seed);
                              for (int i = 0; i < times; ++i) {
                                  ++in->operations;
                                  try {
                                      switch (random() % 4) {
                                          case 0:
                                              if (!in->permits.try_acquire()) break;
                                              in->enter();
                                              in->leave();
                                              in->permits.release();
                                              break;
                                          case 1: {
                                              co_await in->permits.acquire();
                                              in->enter();
                                              in->strayed += tg::this_token::executor() != here;
                                              in->leave();
                                              in->permits.release();
                                              break;
                                          }
                                          default: {
                                              auto held = co_await in->permits.permit();
                                              in->enter();
                                              in->strayed += tg::this_token::executor() != here;
                                              in->leave();
                                              if (random() % 4 == 0) co_await tg::yield();
                                              if (random() % 2 == 0) held.release();
                                              break;
                                          }
                                      }
                                  } catch (const tg::token_stopped&) {
                                      ++in->stopped;
                                      break;
                                  }
                              }
                          }};

}  // namespace

TEST_SUITE("semaphore") {
    TEST_CASE("on a thread of no runtime: try_acquire and release; waiting is refused") {
        tg::semaphore two(2);
        CHECK(two.try_acquire());
        CHECK(two.try_acquire());
        CHECK(!two.try_acquire());
        CHECK(two.available() == 0);
        two.release(3);
        CHECK(two.available() == 3);
        {
            auto waiting = two.acquire();
            CHECK(!waiting.await_ready());
            CHECK_THROWS_AS(waiting.await_suspend(std::noop_coroutine()), tg::wrong_thread);
        }
        CHECK(two.available() == 3);
    }

    TEST_CASE("a permit goes back once, however it ends") {
        tg::semaphore one(1);
        REQUIRE(one.try_acquire());
        {
            tg::semaphore_permit permit(one);
            CHECK(permit);
            tg::semaphore_permit moved(std::move(permit));
            CHECK(!permit);  // NOLINT(bugprone-use-after-move)
            CHECK(one.available() == 0);
        }
        CHECK(one.available() == 1);
        REQUIRE(one.try_acquire());
        tg::semaphore_permit permit(one);
        permit.release();
        permit.release();
        CHECK(one.available() == 1);
        REQUIRE(one.try_acquire());
        permit = tg::semaphore_permit(one);
        permit = tg::semaphore_permit();
        CHECK(one.available() == 1);
    }

    TEST_CASE("permits limit how many go on; a release of several lets in as many, in order") {
        tg::runtime runtime{{.cores = 1}};
        tg::semaphore permits(2);
        std::vector<int> order;
        runtime.run([&]() -> tg::task<> {
            std::vector<tg::token<>> all;
            for (int i = 0; i < 10; ++i) {
                all.push_back(acquires(&permits, &order, i));
                all.back().admit();
            }
            co_await passes();
            CHECK(order == std::vector{0, 1});
            permits.release(3);
            CHECK(!permits.try_acquire());
            co_await passes();
            CHECK(order == std::vector{0, 1, 2, 3, 4});
            permits.release(100);
            co_await tg::when_all(std::move(all));
        });
        CHECK(order == std::vector{0, 1, 2, 3, 4, 5, 6, 7, 8, 9});
        CHECK(permits.available() == 95);
    }

    TEST_CASE("a stop ends the wait and takes nothing; the others keep their order") {
        tg::runtime runtime{{.cores = 1}};
        tg::semaphore permits(0);
        std::vector<int> order;
        runtime.run([&]() -> tg::task<> {
            std::vector<tg::token<>> all;
            for (int i = 0; i < 5; ++i) {
                all.push_back(acquires(&permits, &order, i));
                all.back().admit();
            }
            co_await passes();
            int stopped = 0;
            for (const std::size_t i : {0U, 2U, 4U}) {
                all[i].request_stop();
                try {
                    co_await all[i];
                } catch (const tg::token_stopped&) {
                    ++stopped;
                }
            }
            CHECK(stopped == 3);
            permits.release(3);
            co_await all[1];
            co_await all[3];
        });
        CHECK(order == std::vector{1, 3});
        CHECK(permits.available() == 1);
    }

    TEST_CASE("released by many threads of no runtime while tokens of several cores wait") {
        constexpr int threads = 4, each = 500;
        tg::runtime runtime{{.cores = 4}};
        tg::semaphore permits(0);
        std::vector<std::thread> releasers;
        std::atomic<int> got{0};
        const tg::operation gets{{.name = "semaphore_test_gets", .weight = tg::weight::heavy},
                                 [&](int times) -> tg::task<> {
                                     for (int i = 0; i < times; ++i) {
                                         co_await permits.acquire();
                                         ++got;
                                     }
                                 }};
        runtime.run([&]() -> tg::task<> {
            for (int t = 0; t < threads; ++t)
                releasers.emplace_back([&permits, t] {
                    for (int i = 0; i < each; i += 1 + t)
                        permits.release(static_cast<std::size_t>(std::min(1 + t, each - i)));
                });
            std::vector<tg::token<>> all;
            for (int i = 0; i < 20; ++i) all.push_back(gets(threads * each / 20));
            co_await tg::when_all(std::move(all));
        });
        for (std::thread& thread : releasers) thread.join();
        CHECK(got == threads * each);
        CHECK(permits.available() == 0);
    }

    TEST_CASE("who waits for one gives up its storage permit") {
        tg::runtime runtime{{.cores = 2, .storage = {.slow = 1}}};
        tg::semaphore permits(0);
        runtime.run([&]() -> tg::task<> {
            co_await tg::when_all(slow_acquires(&permits), slow_releases(&permits));
        });
        CHECK(permits.available() == 0);
    }

    TEST_CASE(
        "stress: a hundred thousand operations on four cores, stops among them; all permits come "
        "back") {
        constexpr unsigned seed = 20260115;
        MESSAGE("seed ", seed);
        std::mt19937 random(seed);
        pool shared(3);
        long admitted = 0;
        {
            tg::runtime runtime{{.cores = 4}};
            runtime.run([&]() -> tg::task<> {
                while (shared.operations < 100'000) {
                    std::vector<tg::token<>> all;
                    for (int i = 0; i < 32; ++i) {
                        all.push_back(works(&shared, 64, static_cast<unsigned>(random())));
                        all.back().admit();
                        ++admitted;
                    }
                    for (int i = 0; i < 12; ++i) {
                        all[random() % all.size()].request_stop();
                        if (random() % 3 == 0) co_await tg::yield();
                    }
                    for (tg::token<>& each : all) {
                        try {
                            co_await each;
                        } catch (const tg::token_stopped&) {
                            ++shared.stopped;
                        }
                    }
                }
            });
        }
        CHECK(shared.too_many == 0);
        CHECK(shared.strayed == 0);
        CHECK(shared.inside == 0);
        CHECK(shared.stopped > 0);
        CHECK(shared.stopped < admitted);
        CHECK(shared.permits.available() == 3);
    }
}
