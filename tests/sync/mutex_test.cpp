// SPDX-License-Identifier: MIT

#include <tokengate/mutex.hpp>

#include <tokengate/error.hpp>
#include <tokengate/operation.hpp>
#include <tokengate/runtime.hpp>
#include <tokengate/stop.hpp>
#include <tokengate/task_token.hpp>
#include <tokengate/this_token.hpp>
#include <tokengate/time.hpp>
#include <tokengate/when_all.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <coroutine>
#include <memory>
#include <numeric>
#include <random>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace tg = tokengate;

namespace {

const tg::operation passes{{.name = "mutex_test_passes"}, [] {}};
const tg::operation notes{{.name = "mutex_test_notes"},
                          [](tg::mutex* of, std::vector<int>* order, int n) -> tg::task<> {
                              const auto held = co_await of->lock();
                              order->push_back(n);
                          }};
/// Takes it, and gives it away to be unlocked elsewhere.
const tg::operation takes{
    {.name = "mutex_test_takes"},
    [](tg::mutex* of) -> tg::task<tg::mutex_guard> { co_return co_await of->lock(); }};

struct account {
    tg::mutex lock;
    long balance = 0;  // by the mutex alone
    int inside = 0;
    std::atomic<int> intruders{0};
    std::atomic<int> strayed{0};
    std::atomic<int> stopped{0};
    std::atomic<long> paid{0};
};

const tg::operation pays{{.name = "mutex_test_pays", .weight = tg::weight::heavy},
                         [](account* to, int times, unsigned seed) -> tg::task<> {
                             const unsigned here = tg::this_token::executor();
                             std::minstd_rand random(seed);
                             try {
                                 for (int i = 0; i < times; ++i) {
                                     const auto held = co_await to->lock.lock();
                                     to->strayed += tg::this_token::executor() != here;
                                     to->intruders += to->inside++ != 0;
                                     ++to->balance;
                                     ++to->paid;
                                     if (random() % 8 == 0)
                                         co_await tg::shield(tg::as_token([]() -> tg::task<> {
                                             co_await tg::yield();
                                         }()));
                                     --to->inside;
                                 }
                             } catch (const tg::token_stopped&) {
                                 ++to->stopped;
                             }
                         }};

}  // namespace

TEST_SUITE("mutex") {
    TEST_CASE("on a thread of no runtime: try_lock and unlock; waiting is refused") {
        tg::mutex lock;
        auto held = lock.try_lock();
        CHECK(held);
        CHECK(!lock.try_lock());
        auto moved = std::move(held);
        CHECK(!held);  // NOLINT(bugprone-use-after-move)
        CHECK(!lock.try_lock());
        moved.unlock();
        CHECK(!moved);
        moved.unlock();
        {
            auto again = lock.try_lock();
            CHECK(again);
        }
        auto waiting = lock.lock();
        CHECK(!waiting.await_ready());
        CHECK_THROWS_AS(waiting.await_suspend(std::noop_coroutine()), tg::wrong_thread);
        CHECK(lock.try_lock());
    }

    TEST_CASE("first come, first served") {
        tg::runtime runtime{{.cores = 1}};
        tg::mutex lock;
        std::vector<int> order;
        runtime.run([&]() -> tg::task<> {
            auto held = co_await lock.lock();
            std::vector<tg::token<>> all;
            for (int i = 0; i < 50; ++i) {
                all.push_back(notes(&lock, &order, i));
                all.back().admit();
            }
            co_await passes();  // the only core has run or begun all that were admitted before
            CHECK(order.empty());
            held.unlock();
            {
                const auto barged = lock.try_lock();
                // It went to the first, and is free again only when all have had it.
                CHECK((!barged || order.size() == 50));
            }
            co_await tg::when_all(std::move(all));
        });
        std::vector<int> expected(50);
        std::iota(expected.begin(), expected.end(), 0);
        CHECK(order == expected);
        CHECK(lock.try_lock());
    }

    TEST_CASE(
        "exclusion across cores, also while the holder waits; everybody resumes on its own core") {
        tg::runtime runtime{{.cores = 4}};
        account shared;
        runtime.run([&]() -> tg::task<> {
            std::vector<tg::token<>> all;
            for (unsigned i = 0; i < 40; ++i) all.push_back(pays(&shared, 250, i + 1));
            co_await tg::when_all(std::move(all));
        });
        CHECK(shared.balance == 40 * 250);
        CHECK(shared.intruders == 0);
        CHECK(shared.strayed == 0);
        CHECK(shared.lock.try_lock());
    }

    TEST_CASE("one that never has to wait still lets others of its core run") {
        tg::runtime runtime{{.cores = 1}};
        tg::mutex lock;
        bool stop = false;  // one core
        const tg::operation loops{{.name = "mutex_test_loops"}, [&]() -> tg::task<> {
                                      while (!stop) auto held = co_await lock.lock();
                                  }};
        const tg::operation ends{{.name = "mutex_test_ends"}, [&]() -> tg::task<> {
                                     co_await tg::yield();  // until the other one loops
                                     stop = true;
                                 }};
        runtime.run([&]() -> tg::task<> { co_await tg::when_all(ends(), loops()); });
        CHECK(stop);
    }

    TEST_CASE("a stop ends the wait; the next in line gets it") {
        tg::runtime runtime{{.cores = 2}};
        tg::mutex lock;
        std::vector<int> order;
        runtime.run([&]() -> tg::task<> {
            auto held = co_await lock.lock();
            tg::token<> first = notes(&lock, &order, 1);
            tg::token<> second = notes(&lock, &order, 2);
            first.admit();
            second.admit();
            first.request_stop();
            bool stopped = false;
            try {
                co_await first;
            } catch (const tg::token_stopped&) {
                stopped = true;
            }
            CHECK(stopped);
            held.unlock();
            co_await second;
        });
        CHECK(order == std::vector{2});
        CHECK(lock.try_lock());
    }

    TEST_CASE("who has been asked to stop takes nothing, unless shielded") {
        tg::runtime runtime{{.cores = 1}};
        tg::mutex lock;
        std::atomic<int> refused{0}, taken{0};
        const tg::operation tries{
            {.name = "mutex_test_tries"}, [&](tg::token<>* self) -> tg::task<> {
                self->request_stop();
                try {
                    const auto held = co_await lock.lock();
                } catch (const tg::token_stopped&) {
                    ++refused;
                }
                CHECK(lock.try_lock());
                auto cleans_up = [](tg::mutex* of, std::atomic<int>* count) -> tg::task<> {
                    const auto held = co_await of->lock();
                    ++*count;
                };
                co_await tg::shield(cleans_up(&lock, &taken));
            }};
        runtime.run([&]() -> tg::task<> {
            tg::token<> one;
            one = tries(&one);
            one.admit();
            while (refused == 0 || taken == 0) co_await passes();
            co_await one;
        });
        CHECK(refused == 1);
        CHECK(taken == 1);
    }

    TEST_CASE("unlocked on a thread of no runtime") {
        tg::runtime runtime{{.cores = 2}};
        tg::mutex lock;
        std::vector<int> order;
        std::thread unlocker;
        runtime.run([&]() -> tg::task<> {
            tg::mutex_guard held = co_await takes(&lock);
            tg::token<> waits = notes(&lock, &order, 1);
            waits.admit();
            co_await passes();
            unlocker = std::thread([held = std::move(held)]() mutable { held.unlock(); });
            co_await waits;
        });
        unlocker.join();
        CHECK(order == std::vector{1});
    }

    TEST_CASE("whoever was let through may destroy it") {
        tg::runtime runtime{{.cores = 2}};
        const tg::operation destroys{{.name = "mutex_test_destroys"},
                                     [](std::unique_ptr<tg::mutex>* of) -> tg::task<> {
                                         auto held = co_await (*of)->lock();
                                         held.unlock();
                                         of->reset();
                                     }};
        runtime.run([&]() -> tg::task<> {
            for (int round = 0; round < 200; ++round) {
                auto lock = std::make_unique<tg::mutex>();
                auto held = co_await lock->lock();
                tg::token<> last = destroys(&lock);
                last.admit();
                if (round % 2 == 0) co_await passes();
                held.unlock();
                co_await last;
            }
        });
    }

    TEST_CASE(
        "stress: stops race with hand-overs; nobody is inside twice, and it is free in the end") {
        constexpr unsigned seed = 20260114;
        MESSAGE("seed ", seed);
        std::mt19937 random(seed);
        tg::runtime runtime{{.cores = 4}};
        account shared;
        runtime.run([&]() -> tg::task<> {
            for (int round = 0; round < 100; ++round) {
                std::vector<tg::token<>> all;
                for (int i = 0; i < 32; ++i) {
                    all.push_back(pays(&shared, 32, static_cast<unsigned>(random())));
                    all.back().admit();
                }
                for (int i = 0; i < 16; ++i) {
                    all[random() % all.size()].request_stop();
                    if (random() % 4 == 0) co_await tg::yield();
                }
                for (tg::token<>& each : all) {
                    try {
                        co_await each;
                    } catch (const tg::token_stopped&) {}  // it had not started
                }
            }
        });
        CHECK(shared.balance == shared.paid);
        CHECK(shared.balance > 0);
        CHECK(shared.intruders == 0);
        CHECK(shared.strayed == 0);
        CHECK(shared.lock.try_lock());
    }
}
