// SPDX-License-Identifier: MIT
#include <tokengate/signal.hpp>

#include "support/child.hpp"
#include "support/manual_event.hpp"

#include <tokengate/error.hpp>
#include <tokengate/operation.hpp>
#include <tokengate/runtime.hpp>
#include <tokengate/stop.hpp>
#include <tokengate/this_token.hpp>
#include <tokengate/time.hpp>
#include <tokengate/when_all.hpp>

#include <doctest/doctest.h>

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <coroutine>
#include <functional>
#include <future>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace tg = tokengate;
using namespace std::chrono_literals;
using tg::test::in_child;

namespace {

using handler = void (*)(int);

std::atomic<int> heard_by_host{0};
void host_handler(int) { ++heard_by_host; }
void other_handler(int) {}

bool does(int signal, handler what) {
    struct sigaction now{};
    ::sigaction(signal, nullptr, &now);
    return now.sa_handler == what;
}

/// What a signal does, for as long as it lives.
class disposed {
public:
    disposed(int signal, handler to) : signal_(signal) {
        struct sigaction wanted{};
        wanted.sa_handler = to;
        ::sigaction(signal, &wanted, &before_);
    }
    ~disposed() { ::sigaction(signal_, &before_, nullptr); }
    disposed(const disposed&) = delete;
    disposed& operator=(const disposed&) = delete;

private:
    int signal_;
    struct sigaction before_{};
};

const tg::operation hears{{.name = "signal_test_hears"}, [](int one) -> tg::task<int> {
                              const unsigned core = tg::this_token::core();
                              const std::thread::id thread = std::this_thread::get_id();
                              const int which = co_await tg::signal(one);
                              CHECK(tg::this_token::core() == core);
                              CHECK(std::this_thread::get_id() == thread);
                              co_return which;
                          }};
const tg::operation hears_either{{.name = "signal_test_hears_either"},
                                 [](int one, int other) -> tg::task<int> {
                                     const int which = co_await tg::signal(one, other);
                                     co_return which;
                                 }};
const tg::operation nothing{{.name = "signal_test_nothing"}, [] {}};

/// On a runtime of one core: `t` is admitted, and its wait has begun.
template <class T>
tg::task<> begin(tg::token<T>& t) {
    t.admit();
    co_await nothing();  // behind it
}

bool stopped(std::future<int>& wait) {
    try {
        wait.get();
    } catch (const tg::token_stopped&) {
        return true;
    }
    return false;
}

}  // namespace

TEST_SUITE("signal") {
    TEST_CASE("raised here, sent to the process, sent to another thread") {
        tg::runtime runtime{{.cores = 1}};
        runtime.run([&]() -> tg::task<> {
            auto from_another_thread = [] { std::thread([] { ::raise(SIGUSR1); }).join(); };
            std::vector<std::function<void()>> ways{
                [] { ::raise(SIGUSR1); }, [] { ::kill(::getpid(), SIGUSR1); }, from_another_thread};
            for (auto& send : ways) {
                tg::token<int> t = hears(SIGUSR1);
                co_await begin(t);
                CHECK(!does(SIGUSR1, SIG_DFL));
                send();
                const int which = co_await std::move(t);
                CHECK(which == SIGUSR1);
                CHECK(does(SIGUSR1, SIG_DFL));
            }
        });
    }

    TEST_CASE("the main coroutine may wait") {
        tg::runtime runtime{{.cores = 1}};
        runtime.run([]() -> tg::task<> {
            const tg::operation sends{{.name = "signal_test_sends"}, []() -> tg::task<> {
                                          while (does(SIGUSR1, SIG_DFL))
                                              co_await tg::yield();  // until it waits
                                          ::raise(SIGUSR1);
                                      }};
            tg::token<> t = sends();
            t.admit();
            const int which = co_await tg::signal(SIGUSR1);
            CHECK(which == SIGUSR1);
            co_await std::move(t);
        });
    }

    TEST_CASE("whichever of several comes first; also one of real time") {
        tg::runtime runtime{{.cores = 1}};
        runtime.run([]() -> tg::task<> {
            for (const int sent : {SIGUSR2, SIGUSR1, SIGRTMAX}) {
                tg::token<int> t = hears_either(sent, sent == SIGUSR1 ? SIGUSR2 : SIGUSR1);
                co_await begin(t);
                ::raise(sent);
                const int which = co_await std::move(t);
                CHECK(which == sent);
            }
            tg::token<int> both = hears_either(SIGUSR1, SIGUSR2);
            co_await begin(both);
            ::raise(SIGUSR2);  // this is the control loop, which will look later
            ::raise(SIGUSR1);
            ::raise(SIGUSR1);
            const int which = co_await std::move(both);
            CHECK(which == SIGUSR2);
        });
    }

    TEST_CASE("all who wait hear it") {
        const disposed ignored(SIGUSR1, SIG_IGN);
        tg::runtime runtime{{.cores = 1}};
        runtime.run([]() -> tg::task<> {
            std::vector<tg::token<int>> all;
            for (int i = 0; i < 100; ++i) {
                all.push_back(i % 2 == 0 ? hears(SIGUSR1) : hears_either(SIGUSR2, SIGUSR1));
                all.back().admit();
            }
            tg::token<int> not_this = hears(SIGUSR2);
            co_await begin(not_this);
            ::raise(SIGUSR1);
            for (const int which : co_await tg::when_all(std::move(all))) CHECK(which == SIGUSR1);
            CHECK(does(SIGUSR1, SIG_IGN));
            CHECK(!does(SIGUSR2, SIG_DFL));
            ::raise(SIGUSR2);
            const int which = co_await std::move(not_this);
            CHECK(which == SIGUSR2);
            CHECK(does(SIGUSR2, SIG_DFL));
        });
    }

    TEST_CASE("what the signal did before happens before and after, and not meanwhile") {
        const disposed ours(SIGUSR1, host_handler);
        heard_by_host = 0;
        tg::runtime runtime{{.cores = 1}};
        runtime.run([]() -> tg::task<> {
            ::raise(SIGUSR1);
            CHECK(heard_by_host == 1);
            tg::token<int> t = hears(SIGUSR1);
            co_await begin(t);  // does not hear the first
            CHECK(!does(SIGUSR1, &host_handler));
            ::raise(SIGUSR1);
            co_await std::move(t);
            CHECK(heard_by_host == 1);
            ::raise(SIGUSR1);
            CHECK(heard_by_host == 2);
        });
    }

    TEST_CASE("the default action comes back: it ends the process") {
        const auto child = in_child([]() -> std::string {
            tg::runtime runtime{{.cores = 1}};
            runtime.run([]() -> tg::task<> {
                tg::token<int> t = hears(SIGTERM);
                co_await begin(t);
                ::kill(::getpid(), SIGTERM);
                co_await std::move(t);
                const std::string alive = "alive\n";
                static_cast<void>(!::write(STDERR_FILENO, alive.data(), alive.size()));
                ::kill(::getpid(), SIGTERM);
                co_await tg::sleep_for(1h);
            });
            return "not reached";
        });
        CHECK(!child.ended);
        CHECK(child.said == "");
        CHECK(child.complained == "alive\n");
    }

    TEST_CASE("what somebody else has set meanwhile is left alone") {
        const disposed ours(SIGUSR1, host_handler);
        tg::runtime runtime{{.cores = 1}};
        runtime.run([]() -> tg::task<> {
            tg::token<int> t = hears(SIGUSR1);
            co_await begin(t);
            const disposed theirs(SIGUSR1, other_handler);
            t.request_stop();
            bool was_stopped = false;
            try {
                co_await std::move(t);
            } catch (const tg::token_stopped&) {
                was_stopped = true;
            }
            CHECK(was_stopped);
            CHECK(does(SIGUSR1, &other_handler));
        });
    }

    TEST_CASE("a call that is interrupted goes on, and errno is nobody's") {
        tg::runtime runtime{{.cores = 1}};
        runtime.run([]() -> tg::task<> {
            tg::token<int> t = hears(SIGUSR1);
            co_await begin(t);
            int pipe_of[2];
            REQUIRE(::pipe(pipe_of) == 0);
            std::atomic<bool> reads{false};
            ssize_t got = 0;
            std::thread reader([&] {
                char c;
                reads = true;
                got = ::read(pipe_of[0], &c, 1);
            });
            while (!reads) std::this_thread::yield();
            errno = 77;
            ::raise(SIGUSR1);
            CHECK(errno == 77);
            ::pthread_kill(reader.native_handle(), SIGUSR1);
            CHECK(::write(pipe_of[1], "x", 1) == 1);
            reader.join();
            CHECK(got == 1);
            ::close(pipe_of[0]);
            ::close(pipe_of[1]);
            co_await std::move(t);
        });
    }

    TEST_CASE("stopped while waiting, and before") {
        tg::runtime runtime{{.cores = 1}};
        std::string heard;
        runtime.run([&]() -> tg::task<> {
            tg::token<int> first = hears(SIGUSR1), second = hears(SIGUSR1);
            co_await begin(first);
            co_await begin(second);
            first.request_stop();
            try {
                co_await std::move(first);
            } catch (const tg::token_stopped& error) {
                heard = error.what();
            }
            CHECK(!does(SIGUSR1, SIG_DFL));  // the other waits
            ::raise(SIGUSR1);
            const int which = co_await std::move(second);
            CHECK(which == SIGUSR1);
            CHECK(does(SIGUSR1, SIG_DFL));

            const tg::operation too_late{{.name = "signal_test_too_late"}, []() -> tg::task<> {
                                             try {
                                                 co_await tg::signal(SIGUSR1);
                                             } catch (const tg::token_stopped&) {}
                                             co_await tg::signal(SIGUSR1);
                                         }};
            tg::token<> t = too_late();
            co_await begin(t);
            t.request_stop();
            bool was_stopped = false;
            try {
                co_await std::move(t);
            } catch (const tg::token_stopped&) {
                was_stopped = true;
            }
            CHECK(was_stopped);
            CHECK(does(SIGUSR1, SIG_DFL));
        });
        CHECK(heard.ends_with("was asked to stop: it did not wait for a signal"));
    }

    TEST_CASE("within a timeout") {
        tg::runtime runtime{{.cores = 1}};
        runtime.run([]() -> tg::task<> {
            bool over = false;
            try {
                co_await tg::with_timeout(hears(SIGUSR1), 1ms);
            } catch (const tg::token_timeout&) {
                over = true;
            }
            CHECK(over);
            CHECK(does(SIGUSR1, SIG_DFL));
        });
    }

    TEST_CASE("two runtimes hear it, and the end of one is nothing to the other") {
        const disposed ignored(SIGUSR1, SIG_IGN);
        tg::runtime one{{.cores = 1}};
        std::optional<tg::runtime> two(tg::runtime_options{.cores = 1});
        one.start();
        two->start();
        for (int round = 0; round < 20; ++round) {
            auto first = one.submit(hears(SIGUSR1));
            auto second = two->submit(hears(SIGUSR1));
            // Ignored until they wait; one may begin after the other has heard.
            while (first.wait_for(0s) != std::future_status::ready ||
                   second.wait_for(0s) != std::future_status::ready) {
                ::kill(::getpid(), SIGUSR1);
                std::this_thread::yield();
            }
            CHECK(first.get() == SIGUSR1);
            CHECK(second.get() == SIGUSR1);
        }
        auto left = two->submit(hears(SIGUSR1));
        CHECK(two->stop(std::chrono::hours(1), 0ns).complete());
        CHECK(stopped(left));
        two.reset();
        auto last = one.submit(hears(SIGUSR1));
        while (last.wait_for(0s) != std::future_status::ready) {
            ::kill(::getpid(), SIGUSR1);
            std::this_thread::yield();
        }
        CHECK(last.get() == SIGUSR1);
        CHECK(one.stop().complete());
        CHECK(does(SIGUSR1, SIG_IGN));
    }

    TEST_CASE("signals that nobody can wait for") {
        const auto refusal = [](int signal) {
            try {
                static_cast<void>(tg::signal(SIGUSR1, signal));
            } catch (const tg::configuration_error& error) {
                return std::string(error.what());
            }
            return std::string();
        };
        for (const int none : {0, -1, 32, 33, 65, 1 << 20}) {
            CAPTURE(none);
            CHECK(refusal(none) ==
                  "configuration_error: tg::signal: there is no signal " + std::to_string(none));
        }
        for (const int never : {SIGKILL, SIGSTOP, SIGSEGV, SIGBUS, SIGFPE, SIGILL}) {
            CAPTURE(never);
            CHECK(refusal(never) == "configuration_error: tg::signal: nobody can wait for signal " +
                                        std::to_string(never) +
                                        ": it cannot be caught, or a fault raises it");
        }
    }

    TEST_CASE("outside of a loop: wrong_thread") {
        auto wait = tg::signal(SIGUSR1);
        CHECK_THROWS_AS(wait.await_suspend(std::noop_coroutine()), tg::wrong_thread);
        CHECK(does(SIGUSR1, SIG_DFL));
    }

    TEST_CASE("stress: waits, stops and runtimes come and go under a rain of signals") {
        constexpr unsigned seed = 20250714;
        MESSAGE("seed " << seed);
        const disposed ignored(SIGUSR1, SIG_IGN), ignored_too(SIGUSR2, SIG_IGN);
        std::atomic<bool> enough{false};
        std::atomic<unsigned> heard{0}, ended_by_stop{0}, wrong{0};
        const tg::operation hears_some{
            {.name = "signal_test_hears_some"}, [&](unsigned kind) -> tg::task<> {
                const unsigned core = tg::this_token::core();
                for (int i = 0; i < 5; ++i) {
                    int which = 0;
                    if (kind == 0)
                        which = co_await tg::signal(SIGUSR1);
                    else if (kind == 1)
                        which = co_await tg::signal(SIGUSR2);
                    else
                        which = co_await tg::signal(SIGUSR1, SIGUSR2);
                    ++heard;
                    if (kind < 2 && which != (kind == 0 ? SIGUSR1 : SIGUSR2)) ++wrong;
                    if (tg::this_token::core() != core) ++wrong;
                }
            }};
        std::vector<std::thread> rain;
        for (const int each : {SIGUSR1, SIGUSR2})
            rain.emplace_back([&enough, each] {
                for (bool here = false; !enough; here = !here) {
                    here ? ::raise(each) : ::kill(::getpid(), each);
                    std::this_thread::yield();
                }
            });
        std::vector<std::thread> users;
        for (unsigned user = 0; user < 2; ++user)
            users.emplace_back([&, user] {
                std::minstd_rand random(seed + user);
                for (int round = 0; round < 10; ++round) {
                    tg::runtime runtime{{.cores = 2}};
                    runtime.run([&]() -> tg::task<> {
                        std::vector<tg::token<>> all;
                        for (int i = 0; i < 40; ++i) {
                            all.push_back(hears_some(static_cast<unsigned>(random() % 3)));
                            all.back().admit();
                        }
                        for (auto& each : all) {
                            if (random() % 4 == 0) each.request_stop();
                            try {
                                co_await std::move(each);
                            } catch (const tg::token_stopped&) {
                                ++ended_by_stop;
                            }
                        }
                    });
                }
            });
        for (auto& each : users) each.join();
        enough = true;
        for (auto& each : rain) each.join();
        CHECK(wrong == 0);
        CHECK(heard > 0);
        CHECK(does(SIGUSR1, SIG_IGN));
        CHECK(does(SIGUSR2, SIG_IGN));
    }
}
