// SPDX-License-Identifier: MIT
#include "base/blocking_pool.hpp"

#include "support/child.hpp"

#include <doctest/doctest.h>

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <functional>
#include <iterator>
#include <latch>
#include <memory>
#include <random>
#include <semaphore>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using namespace std::chrono_literals;
using tokengate::detail::blocking_job;
using tokengate::detail::blocking_pool;
using tokengate::test::in_child;
using tokengate::test::refuse;

namespace {

class job : public blocking_job {
public:
    explicit job(std::function<void()> body) : body_(std::move(body)) {
        call = [](blocking_job* self) noexcept { static_cast<job*>(self)->body_(); };
    }

private:
    std::function<void()> body_;
};

/// A job that holds its thread until the test lets it go.
class holder {
public:
    job held{[this] {
        begun_.release();
        go_.acquire();
    }};

    void wait_until_begun() { begun_.acquire(); }
    void let_go() { go_.release(); }

private:
    std::binary_semaphore begun_{0}, go_{0};
};

/// Waits for what another thread will bring about; the test's own time limit is the bound.
template <class Condition>
void until(Condition condition) {
    while (!condition()) std::this_thread::yield();
}

bool at_rest(const blocking_pool& pool) {
    return pool.waiting() == 0 && pool.idle() == pool.threads();
}

}  // namespace

TEST_SUITE("blocking_pool") {
    TEST_CASE("a job runs on a thread of the pool, which has its name and blocks every signal") {
        std::thread::id ran_on;
        std::string name(16, '\0');
        sigset_t blocked;
        std::binary_semaphore done{0};
        job work([&] {
            ran_on = std::this_thread::get_id();
            ::pthread_getname_np(::pthread_self(), name.data(), name.size());
            ::pthread_sigmask(SIG_BLOCK, nullptr, &blocked);
            done.release();
        });
        sigset_t before, after;
        ::pthread_sigmask(SIG_BLOCK, nullptr, &before);
        blocking_pool pool(4, 1h);
        REQUIRE(pool.submit(work));
        done.acquire();
        ::pthread_sigmask(SIG_BLOCK, nullptr, &after);

        CHECK(ran_on != std::this_thread::get_id());
        CHECK(name.c_str() == std::string("tokengate-block"));
        for (const int signal :
             {SIGINT, SIGTERM, SIGHUP, SIGALRM, SIGPIPE, SIGCHLD, SIGUSR1, SIGRTMAX}) {
            CAPTURE(signal);
            CHECK(::sigismember(&blocked, signal) == 1);
            CHECK(::sigismember(&after, signal) ==
                  ::sigismember(&before, signal));  // the submitter's mask is as it was
        }
    }

    TEST_CASE(
        "the threads may run where the maker of the pool may, though a pinned thread submits") {
        cpu_set_t makers, seen;
        REQUIRE(::sched_getaffinity(0, sizeof makers, &makers) == 0);
        if (CPU_COUNT(&makers) < 2) {
            MESSAGE("skipped: needs two CPUs");
            return;
        }
        std::binary_semaphore done{0};
        job work([&] {
            ::sched_getaffinity(0, sizeof seen, &seen);
            done.release();
        });
        blocking_pool pool(1, 1h);
        std::thread([&] {
            std::size_t first = 0;
            while (!CPU_ISSET(first, &makers)) ++first;
            cpu_set_t one;
            CPU_ZERO(&one);
            CPU_SET(first, &one);
            REQUIRE(::sched_setaffinity(0, sizeof one, &one) == 0);
            REQUIRE(pool.submit(work));
        }).join();
        done.acquire();
        CHECK(CPU_EQUAL(&seen, &makers));
    }

    TEST_CASE("one thread runs jobs in the order of their submits") {
        holder first;
        std::vector<int> order;
        std::vector<std::unique_ptr<job>> jobs;
        {
            blocking_pool pool(1, 1h);
            REQUIRE(pool.submit(first.held));
            first.wait_until_begun();
            for (int i = 0; i < 100; ++i) {
                jobs.push_back(std::make_unique<job>([&order, i] { order.push_back(i); }));
                REQUIRE(pool.submit(*jobs.back()));
            }
            CHECK(pool.waiting() == 100);
            first.let_go();
        }
        REQUIRE(order.size() == 100);
        CHECK(std::is_sorted(order.begin(), order.end()));
    }

    TEST_CASE("no more threads than allowed: the other jobs wait") {
        constexpr unsigned most = 3, count = 10;
        std::latch all_threads_busy(most), go(1);
        std::atomic<unsigned> running{0}, at_once{0}, begun{0};
        std::vector<std::unique_ptr<job>> jobs;
        for (unsigned i = 0; i < count; ++i)
            jobs.push_back(std::make_unique<job>([&] {
                const unsigned now = ++running;
                for (unsigned seen = at_once;
                     seen < now && !at_once.compare_exchange_weak(seen, now);) {}
                if (++begun <= most) all_threads_busy.count_down();
                go.wait();
                --running;
            }));
        {
            blocking_pool pool(most, 1h);
            for (auto& each : jobs) REQUIRE(pool.submit(*each));
            all_threads_busy.wait();
            CHECK(pool.threads() == most);
            CHECK(pool.idle() == 0);
            CHECK(pool.waiting() == count - most);
            go.count_down();
        }
        CHECK(begun == count);
        CHECK(at_once == most);
    }

    TEST_CASE("threads appear one by one, only when none is idle") {
        std::vector<std::unique_ptr<holder>> holders;
        blocking_pool pool(4, 1h);
        CHECK(pool.threads() == 0);
        CHECK(pool.idle() == 0);
        CHECK(pool.waiting() == 0);
        for (unsigned i = 1; i <= 3; ++i) {
            holders.push_back(std::make_unique<holder>());
            REQUIRE(pool.submit(holders.back()->held));
            holders.back()->wait_until_begun();
            CHECK(pool.threads() == i);
            CHECK(pool.idle() == 0);
        }
        for (auto& each : holders) each->let_go();
        until([&] { return pool.idle() == 3; });
        for (auto& each : holders)
            REQUIRE(pool.submit(each->held));  // each of the three finds a thread
        for (auto& each : holders) each->wait_until_begun();
        CHECK(pool.threads() == 3);
        for (auto& each : holders) each->let_go();
    }

    TEST_CASE("idle threads leave after their time, and come back with the next job") {
        std::vector<std::unique_ptr<holder>> holders(4);
        blocking_pool pool(4, 1ms);
        for (int round = 0; round < 3; ++round) {
            for (auto& each : holders) {
                each = std::make_unique<holder>();
                REQUIRE(pool.submit(each->held));
            }
            for (auto& each : holders) each->wait_until_begun();
            CHECK(pool.threads() == 4);
            for (auto& each : holders) each->let_go();
            until([&] { return pool.threads() == 0; });
            CHECK(pool.idle() == 0);
        }
    }

    TEST_CASE("the shortest and the longest time to keep an idle thread") {
        static thread_local int jobs_of_this_thread = 0;
        std::atomic<int> nth{0};
        job work([&] { nth = ++jobs_of_this_thread; });
        SUBCASE("for ever") {
            blocking_pool pool(1, std::chrono::nanoseconds::max());
            for (int i = 1; i <= 5; ++i) {
                REQUIRE(pool.submit(work));
                until([&] { return nth == i && at_rest(pool); });
                CHECK(pool.threads() == 1);
            }
        }
        SUBCASE("not at all") {
            for (const auto keep : {0ns, -1ns, std::chrono::nanoseconds::min()}) {
                blocking_pool pool(1, keep);
                for (int i = 0; i < 5; ++i) {
                    nth = 0;
                    REQUIRE(pool.submit(work));
                    until([&] { return pool.threads() == 0; });
                    CHECK(nth == 1);
                }
            }
        }
    }

    TEST_CASE("a job may end its own life, and submit others, from several threads of the pool") {
        std::atomic<int> left{1000};
        struct chain : blocking_job {
            chain(blocking_pool& pool, std::atomic<int>& left) : pool_(pool), left_(left) {
                call = [](blocking_job* self) noexcept {
                    const std::unique_ptr<chain> mine(static_cast<chain*>(self));
                    if (mine->left_.fetch_sub(1) > 0) {
                        auto next = std::make_unique<chain>(mine->pool_, mine->left_);
                        if (mine->pool_.submit(*next)) next.release();
                    }
                };
            }
            blocking_pool& pool_;
            std::atomic<int>& left_;
        };
        {
            blocking_pool pool(3, 1h);
            for (int i = 0; i < 5; ++i) REQUIRE(pool.submit(*new chain(pool, left)));
        }  // also while the destructor waits
        CHECK(left == -5);
    }

    TEST_CASE("the destructor runs what waits; without a job it has nothing to wait for") {
        { blocking_pool never_used(4, 1h); }
        holder first;
        std::atomic<int> ran{0};
        std::vector<std::unique_ptr<job>> jobs;
        {
            blocking_pool pool(2, 1h);
            REQUIRE(pool.submit(first.held));
            for (int i = 0; i < 1000; ++i) {
                jobs.push_back(std::make_unique<job>([&] { ++ran; }));
                REQUIRE(pool.submit(*jobs.back()));
            }
            first.let_go();
        }
        CHECK(ran == 1000);
    }

    TEST_CASE("no thread is allowed: the job stays the caller's") {
        blocking_pool pool(0, 1h);
        job work([] {});
        CHECK_FALSE(pool.submit(work));
        CHECK(pool.waiting() == 0);
    }

    TEST_CASE(
        "no thread can be made: said if there is none, left to the others if there are, tried "
        "again at each submit") {
        const auto child = in_child([] {
            std::string said;
            const auto note = [&](bool yes) { said += yes ? '1' : '0'; };
            std::atomic<int> ran{0};
            job works[4] = {job([&] { ++ran; }), job([&] { ++ran; }), job([&] { ++ran; }),
                            job([&] { ++ran; })};
            holder first;
            std::binary_semaphore go{0}, gone{0};
            blocking_pool pool(2, 1h);
            std::thread free(
                [&] {  // made before the refusal, which binds the thread that asks for it
                    go.acquire();
                    note(pool.submit(first.held));
                    first.wait_until_begun();
                    gone.release();
                    go.acquire();
                    note(pool.submit(
                        works[2]));  // makes the second thread, though the first is busy
                    until([&] { return ran == 3; });
                    gone.release();
                });
            refuse(SYS_clone3, EAGAIN);
            refuse(SYS_clone, EAGAIN);
            note(pool.submit(works[0]));
            note(pool.submit(works[0]));
            note(pool.waiting() == 0 && pool.threads() == 0 && pool.idle() == 0);
            go.release();
            gone.acquire();
            note(pool.submit(works[0]));
            note(pool.submit(works[1]));
            note(pool.waiting() == 2 && pool.threads() == 1);
            go.release();
            gone.acquire();
            note(pool.threads() == 2 && pool.waiting() == 0);
            first.let_go();
            free.join();
            note(pool.submit(works[3]));
            until([&] { return ran == 4; });
            return said;
        });
        CHECK(child.ended);
        CHECK(child.said ==
              "0011111"
              "111");
        CHECK(child.complained == "");
    }

    TEST_CASE("stress: threads leave while jobs are handed over, and each job runs once") {
        constexpr unsigned seed = 20240611, submitters = 8, jobs_each = 12'500 / 4;
        MESSAGE("seed ", seed);
        struct counting : blocking_job {
            unsigned submitter = 0, number = 0;
            std::atomic<int> ran{0};
            std::atomic<bool>* in_order = nullptr;
            unsigned* next_of_submitter = nullptr;  // only with one thread
        };
        const std::pair<unsigned, std::chrono::nanoseconds> pools[] = {
            {1, 0ns}, {1, 20us}, {4, 2us}, {16, 100us}};
        for (const auto& [most, keep] : pools) {
            CAPTURE(most);
            std::vector<std::vector<counting>> jobs;
            for (unsigned i = 0; i < submitters; ++i) jobs.emplace_back(jobs_each);
            std::vector<unsigned> next(submitters, 0);
            std::atomic<bool> in_order{true};
            std::atomic<int> refused{0};
            {
                blocking_pool pool(most, keep);
                std::vector<std::thread> threads;
                for (unsigned s = 0; s < submitters; ++s)
                    threads.emplace_back([&, s] {
                        std::minstd_rand random(seed + s);
                        for (unsigned i = 0; i < jobs_each; ++i) {
                            counting& each = jobs[s][i];
                            each.submitter = s;
                            each.number = i;
                            each.in_order = &in_order;
                            each.next_of_submitter = most == 1 ? next.data() : nullptr;
                            each.call = [](blocking_job* self) noexcept {
                                auto& mine = *static_cast<counting*>(self);
                                if (mine.next_of_submitter &&
                                    mine.next_of_submitter[mine.submitter]++ != mine.number)
                                    *mine.in_order = false;
                                ++mine.ran;
                            };
                            if (!pool.submit(each)) ++refused;
                            if (random() % 4 ==
                                0)  // let the pool run dry, so that its threads are about to leave
                                until([&] { return each.ran != 0; });
                            for (auto turns = random() % 3; turns > 0; --turns)
                                std::this_thread::yield();
                        }
                    });
                for (auto& each : threads) each.join();
                CHECK(pool.threads() <= most);
            }
            CHECK(refused == 0);
            CHECK(in_order);
            bool once = true;
            for (const auto& of_one : jobs)
                for (const auto& each : of_one) once = once && each.ran == 1;
            CHECK(once);
        }
    }
}
