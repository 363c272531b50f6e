// SPDX-License-Identifier: MIT
#include <tokengate/runtime.hpp>

#include "runtime_core.hpp"
#include "topology.hpp"

#include "support/child.hpp"
#include "support/leaks.hpp"
#include "support/manual_event.hpp"
#include "support/waiting.hpp"

#include <tokengate/operation.hpp>
#include <tokengate/this_token.hpp>
#include <tokengate/when_all.hpp>

#include <doctest/doctest.h>

#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <future>
#include <latch>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace tg = tokengate;
using namespace std::chrono_literals;
using tg::test::counted;
using tg::test::in_child;
using tg::test::live_slots;
using tg::test::manual_event;
using tg::test::refuse;
using tg::test::wait_until;

namespace {

const tg::operation twice{{.name = "runtime_test_twice", .weight = tg::weight::light}, [](int n) { return 2 * n; }};
const tg::operation adds{{.name = "runtime_test_adds"}, [](std::atomic<int>* to) { ++*to; }};
const tg::operation waits{{.name = "runtime_test_waits"}, [](manual_event* event, int result) -> tg::task<int> {
                              co_await *event;
                              co_return result;
                          }};
const tg::operation awaits_waits{{.name = "runtime_test_awaits_waits"},
                                 [](manual_event* event) -> tg::task<int> { co_return co_await waits(event, 3) + 1; }};
const tg::operation slow_waits{{.name = "runtime_test_slow_waits", .storage = tg::storage::slow},
                               [](manual_event* event) -> tg::task<> { co_await *event; }};
const tg::operation sticky_waits{{.name = "runtime_test_sticky_waits"},
                                 tg::sticky{"runtime_test", [](int key, manual_event*) { return key; }},
                                 [](int, manual_event* event) -> tg::task<> { co_await *event; }};
const tg::operation fails{{.name = "runtime_test_fails"},
                          [](std::string text) -> int { throw std::out_of_range(text); }};
const tg::operation fails_oddly{{.name = "runtime_test_fails_oddly"}, [] { throw 42; }};
/// Holds its core until it is let go.
const tg::operation blocks{{.name = "runtime_test_blocks", .weight = tg::weight::heavy},
                           [](std::atomic<bool>* go) { go->wait(false); }};
const tg::operation calls{{.name = "runtime_test_calls"}, [](std::function<void()> what) { what(); }};
/// The same, for what holds its core until others have come too.
const tg::operation meets{{.name = "runtime_test_meets", .weight = tg::weight::heavy},
                          [](std::function<void()> what) { what(); }};
const tg::operation leads{{.name = "runtime_test_leads"},
                          tg::lead{"runtime_test_calls"},
                          [](std::function<void()> what, manual_event* event) -> tg::task<> {
                              what();
                              co_await *event;
                          }};
const tg::operation gives_pointer{{.name = "runtime_test_gives_pointer"},
                                  [](int n) { return std::make_unique<int>(n); }};
int referred = 5;
const tg::operation gives_reference{{.name = "runtime_test_gives_reference"}, []() -> int& { return referred; }};

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

template <class Error, class Call>
std::string what_of(Call call) {
    try {
        call();
    } catch (const Error& thrown) {
        return thrown.what();
    } catch (const std::exception& other) {
        return std::string("another exception: ") + other.what();
    }
    return "nothing was thrown";
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

TEST_SUITE("runtime: run") {
    TEST_CASE("it returns what the main coroutine returns: values, nothing, references, move-only types") {
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
        CHECK(*runtime.run([]() -> tg::task<std::unique_ptr<int>> { co_return co_await gives_pointer(7); }) == 7);
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
        CHECK_THROWS_WITH_AS(runtime.run([]() -> tg::task<int> { co_return co_await fails("later"); }), "later",
                             std::out_of_range);
        CHECK(runtime.run([]() -> tg::task<int> { co_return 1; }) == 1);
    }

    TEST_CASE("it can be called again, also from other threads, one after the other") {
        tg::runtime runtime{{.cores = 2}};
        for (int i = 0; i < 20; ++i) {
            int result = 0;
            const auto run = [&] { result = runtime.run([i]() -> tg::task<int> { co_return co_await twice(i); }); };
            i % 3 == 0 ? run() : std::thread(run).join();
            CHECK(result == 2 * i);
        }
    }

    TEST_CASE("it returns when everything it left detached has ended, whatever that detached in turn") {
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
            CHECK(has(what_of<tg::wrong_thread>([&] { which.run(nothing); }), "event loop's thread"));
            CHECK(has(what_of<tg::wrong_thread>([&] { which.start(); }), "event loop's thread"));
        };
        runtime.run([&]() -> tg::task<> {
            refused(runtime);
            refused(other);
            co_await calls([&] { refused(runtime); });
            std::thread([&] {  // not a loop's thread
                CHECK(has(what_of<tg::wrong_thread>([&] { runtime.run(nothing); }), "running already"));
                CHECK(has(what_of<tg::wrong_thread>([&] { runtime.start(); }), "running already"));
            })
                .join();
        });
        runtime.start();
        CHECK(has(what_of<tg::wrong_thread>([&] { runtime.start(); }), "running already"));
        CHECK(has(what_of<tg::wrong_thread>([&] { runtime.run(nothing); }), "running already"));
    }
}

TEST_SUITE("runtime: start, submit, stop") {
    TEST_CASE("submitted tokens fulfil their futures: values, nothing, references, move-only types, exceptions") {
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
                CHECK_THROWS_AS(static_cast<void>(runtime.submit(std::move(admitted))), tg::already_awaited);
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
                for (int i = 0; i < each_submits; ++i) futures.push_back(runtime.submit(twice(t * each_submits + i)));
                for (int i = 0; i < each_submits; ++i)
                    if (futures[static_cast<std::size_t>(i)].get() != 2 * (t * each_submits + i)) ++wrong;
            });
        for (std::thread& each : all) each.join();
        CHECK(wrong == 0);
        CHECK(runtime.stop().complete());
        CHECK(runtime.snapshot().admitted == threads * each_submits);
        CHECK(runtime.snapshot().ended == threads * each_submits);
    }

    TEST_CASE("submit against stop: each is refused, or its future is fulfilled; nothing hangs, the counts agree") {
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
            CHECK(has(what_of<tg::wrong_thread>([&] { static_cast<void>(runtime.submit(twice(3))); }), "submit"));
            CHECK(has(what_of<tg::wrong_thread>([&] { static_cast<void>(runtime.stop()); }), "stop"));
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
        CHECK(has(what_of<tg::gate_closed>([&] { static_cast<void>(runtime.submit(std::move(token))); }), id));
        CHECK(has(what_of<tg::gate_closed>([&] { runtime.start(); }), "make a new one"));
        CHECK(has(what_of<tg::gate_closed>([&] { runtime.run([]() -> tg::task<> { co_return; }); }), "make a new one"));
        CHECK(runtime.stop().complete());  // again: nothing to do
        CHECK(runtime.stop(0s).complete());
    }

    TEST_CASE(
        "what was submitted before anybody hosted the loop is served: by run, by start, by stop, by the destructor") {
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
            for (int i = 0; i < 100; ++i) CHECK(futures[static_cast<std::size_t>(i)].get() == 2 * i);
        }
    }

    TEST_CASE("a deadline names who has not ended, whoever hosts the loop, and stop may be called again") {
        for (int host = 0; host < 3; ++host) {
            CAPTURE(host);
            manual_event release;
            tg::runtime runtime{{.cores = 2}};
            std::thread runs;
            if (host == 1) runtime.start();
            if (host == 2) {
                runs = std::thread([&] {
                    CHECK(runtime.run([&]() -> tg::task<int> { co_return co_await waits(&release, 5); }) == 5);
                });
                wait_until([&] { return runtime.tokens().size() == 2; });
            }
            auto token = waits(&release, 3);
            const tg::token_id id = token.id();
            std::future<int> result = runtime.submit(std::move(token));
            std::future<int> ends = runtime.submit(twice(2));
            for (int again = 0; again < 2; ++again) {
                const tg::stop_report left = runtime.stop(20ms);
                CHECK_FALSE(left.complete());
                const auto named = std::find_if(left.survivors.begin(), left.survivors.end(),
                                                [&](const tg::token_info& each) { return each.id == id; });
                REQUIRE(named != left.survivors.end());
                CHECK(named->id.operation == "runtime_test_waits");
                CHECK(left.survivors.size() == (host == 2 ? 3 : 1));  // with run: main and what it awaits
            }
            CHECK(ends.get() == 4);
            CHECK_FALSE(fulfilled(result));
            CHECK(has(what_of<tg::gate_closed>([&] { static_cast<void>(runtime.submit(twice(1))); }), "stopping"));
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
                    while (!runtime.stop(t % 2 == 0 ? std::chrono::nanoseconds::max() : 1ms).complete()) {}
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
        for (int i = 0; i < 400; ++i) futures.push_back(all[static_cast<std::size_t>(i) % 4]->submit(twice(i)));
        for (int i = 0; i < 400; ++i) CHECK(futures[static_cast<std::size_t>(i)].get() == 2 * i);

        std::future<int> across;
        all[0]->submit(calls([&] { across = all[1]->submit(twice(9)); })).get();
        CHECK(across.get() == 18);

        manual_event release;
        std::string refused;
        auto lead =
            leads([&] { refused = what_of<tg::wrong_runtime>([&] { static_cast<void>(all[1]->submit(twice(9))); }); },
                  &release);
        auto ended = all[0]->submit(std::move(lead));
        release.set();
        ended.get();
        CHECK(has(refused, "wrong_runtime: runtime_test_twice_"));  // a child of a seed domain belongs to its runtime
        for (const auto& each : all) CHECK(each->stop().complete());
        CHECK(all[0]->snapshot().admitted == 102);  // `calls` and the lead are more
        CHECK(all[3]->snapshot().admitted == 100);
    }
}

TEST_SUITE("runtime: options") {
    std::string refusal(tg::runtime_options options) {
        return what_of<tg::configuration_error>([&] { tg::runtime runtime(std::move(options)); });
    }

    TEST_CASE("a value that cannot be is refused, with its name and what would be right") {
        const auto names = [](const std::string& text, const std::string& option, const std::string& remedy) {
            CAPTURE(text);
            CHECK(has(text, "configuration_error: runtime_options." + option));
            CHECK(has(text, remedy));
        };
        names(refusal({.cores = 0}), "cores is 0", "at least 1");
        names(refusal({.workers_per_core = 0}), "workers_per_core is 0", "at least 1");
        names(refusal({.cpus = {0, 100'000}}), "cpus names CPU 100000", "does not have");
        names(refusal({.storage = {.slow = 0}}), "storage.slow is 0", "at least 1");
        names(refusal({.storage = {.moderate = -1}}), "storage.moderate is -1", "at least 1");
        names(refusal({.storage = {.fast = std::numeric_limits<int>::min()}}), "storage.fast is -2147483648",
              "at least 1");
        names(refusal({.storage = {.insane = 0}}), "storage.insane is 0", "at least 1");
        names(refusal({.spin = -1ns}), "spin is negative", "0 or more");
        for (const unsigned entries : {0U, 1U, 4U, 7U, 9U, 100U, 32767U, 65536U, ~0U})
            names(refusal({.ring_entries = entries}), "ring_entries is " + std::to_string(entries),
                  "power of two from 8 to 32768");
        names(refusal({.cores = 1024}), "cores × workers_per_core is 1024", "at most 1023");
        names(refusal({.cores = 2, .workers_per_core = 512}), "cores × workers_per_core is 1024", "at most 1023");
        names(refusal({.cores = ~0U, .workers_per_core = ~0U}), "cores × workers_per_core is", "at most 1023");
        names(refusal({.spill = static_cast<tg::spill>(9)}), "spill does not exist", "when_saturated or never");
        names(refusal({.digest = static_cast<tg::digest_policy>(9)}), "digest does not exist",
              "full, short_ or minimal");
    }

    TEST_CASE("by default there is a core for every CPU that may be used") {
        tg::runtime runtime;
        CHECK(runtime.cores() ==
              tg::detail::usable_cores(tg::detail::affinity_cpus().size(), tg::detail::cgroup_cpu_quota()));
        CHECK(runtime.executors() == runtime.cores());
    }

    TEST_CASE("the affinity mask is honoured") {
        const auto child = in_child([] {
            const std::vector<unsigned> cpus = tg::detail::affinity_cpus();
            if (!tg::detail::pin_this_thread(cpus.back())) return std::string("could not pin");
            tg::runtime runtime;
            return std::to_string(runtime.cores());
        });
        CHECK(child.said == "1");
    }

    TEST_CASE("by default there are no more cores than the cgroup's quota pays for; who says a number gets it") {
        namespace fs = std::filesystem;
        std::string tree = fs::temp_directory_path() / "runtime_test_XXXXXX";
        REQUIRE(::mkdtemp(tree.data()) != nullptr);
        fs::create_directory(tree + "/app");
        std::ofstream(tree + "/groups") << "0::/app\n";
        const auto child = in_child([&]() -> std::string {
            // Our own tree of cgroups and our own place in it, in a mount namespace of our own; that takes root.
            const std::string groups = tree + "/groups";
            const bool mounted = ::unshare(CLONE_NEWNS) == 0 &&
                                 ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
                                 ::mount(groups.c_str(), "/proc/self/cgroup", nullptr, MS_BIND, nullptr) == 0 &&
                                 ::mount(tree.c_str(), "/sys/fs/cgroup", nullptr, MS_BIND, nullptr) == 0;
            if (!mounted && (errno == EPERM || errno == EACCES)) return "cannot";
            if (!mounted) throw std::system_error(errno, std::system_category(), "mount");
            const auto cores = [](const char* quota, std::optional<unsigned> chosen = {}) {
                std::ofstream("/sys/fs/cgroup/app/cpu.max") << quota << " 100000\n";
                return std::to_string(tg::runtime{{.cores = chosen}}.cores());
            };
            return cores("max") + ' ' + cores("100000") + ' ' + cores("100000", 2);
        });
        fs::remove_all(tree);
        if (child.said == "cannot") {
            MESSAGE("skipped: no private mounts here");
            return;
        }
        CHECK(child.ended);
        CHECK(child.said == std::to_string(tg::detail::affinity_cpus().size()) + " 1 2");
    }

    TEST_CASE("more cores than CPUs: each is a thread of its own") {
        constexpr unsigned cores = 8;
        tg::runtime runtime{{.cores = cores}};
        CHECK(runtime.cores() == cores);
        CHECK(runtime.executors() == cores);
        CHECK(runtime.snapshot().busy_ns.size() == cores);
        runtime.start();
        std::latch all(cores);
        std::mutex mutex;
        std::set<unsigned> seen;
        std::set<std::thread::id> threads;
        std::vector<std::future<void>> futures;
        for (unsigned i = 0; i < cores; ++i)
            futures.push_back(runtime.submit(meets([&] {
                all.arrive_and_wait();  // all at once, or never
                const std::scoped_lock lock(mutex);
                seen.insert(tg::this_token::core());
                threads.insert(std::this_thread::get_id());
            })));
        for (auto& each : futures) each.get();
        CHECK(seen.size() == cores);
        CHECK(*seen.rbegin() == cores - 1);
        CHECK(threads.size() == cores);
    }

    TEST_CASE("core c is pinned to CPU c modulo their number, in the order they are named; its workers share it") {
        const std::vector<unsigned> usable = tg::detail::affinity_cpus();
        if (usable.size() < 2) MESSAGE("one CPU only: every core is on it");
        constexpr unsigned cores = 4;
        for (const std::vector<unsigned>& named :
             {std::vector<unsigned>{}, std::vector(usable.rbegin(), usable.rend()), std::vector{usable.back()}})
            for (const unsigned workers : {1U, 2U}) {
                CAPTURE(workers);
                CAPTURE(named.size());
                const std::vector<unsigned>& cpus = named.empty() ? usable : named;
                tg::runtime runtime{{.cores = cores, .workers_per_core = workers, .cpus = named}};
                REQUIRE(runtime.executors() == cores * workers);
                runtime.start();
                std::latch all(runtime.executors());
                std::vector<std::vector<unsigned>> where(runtime.executors());
                std::vector<unsigned> core(runtime.executors(), tg::control_core);
                std::vector<std::future<void>> futures;
                for (unsigned i = 0; i < runtime.executors(); ++i)
                    futures.push_back(runtime.submit(meets([&] {
                        all.arrive_and_wait();  // so that each executor has one
                        where[tg::this_token::executor()] = tg::detail::affinity_cpus();
                        core[tg::this_token::executor()] = tg::this_token::core();
                    })));
                for (auto& each : futures) each.get();
                for (unsigned i = 0; i < runtime.executors(); ++i) {
                    CAPTURE(i);
                    CHECK(core[i] == i / workers);
                    CHECK(where[i] == std::vector<unsigned>{cpus[i / workers % cpus.size()]});
                }
            }
    }

    TEST_CASE("a pin that fails warns and runs on") {
        const auto child = in_child([] {
            std::string warned;
            std::mutex mutex;
            const auto warning = [&](std::string_view text) {
                const std::scoped_lock lock(mutex);
                warned += std::string(text) + '\n';
            };
            const unsigned cpu = tg::detail::affinity_cpus().front();
            refuse(SYS_sched_setaffinity, EPERM);
            tg::runtime runtime{{.cores = 2, .cpus = {cpu}, .on_warning = warning}};
            const int result = runtime.run([]() -> tg::task<int> { co_return co_await twice(4); });
            const std::scoped_lock lock(mutex);
            return warned + std::to_string(result);
        });
        CHECK(child.ended);
        CAPTURE(child.said);
        CHECK(has(child.said, "executor 0 could not be pinned to CPU "));
        CHECK(has(child.said, "executor 1 could not be pinned to CPU "));
        CHECK(has(child.said, "runs unpinned: Operation not permitted"));
        CHECK(has(child.said, "\n8"));
        CHECK(child.complained == "");
    }

    TEST_CASE("without a handler a warning is a line on stderr; one that throws does no harm") {
        for (const bool handler_throws : {false, true}) {
            const auto child = in_child([&] {
                refuse(SYS_sched_setaffinity, EINVAL);
                tg::runtime_options options{.cores = 1};
                if (handler_throws) options.on_warning = [](std::string_view) { throw 1; };
                tg::runtime runtime(std::move(options));
                return std::to_string(runtime.run([]() -> tg::task<int> { co_return co_await twice(4); }));
            });
            CHECK(child.ended);
            CHECK(child.said == "8");
            CHECK(has(child.complained, "tokengate: executor 0 could not be pinned"));
            CHECK(has(child.complained, "handler itself threw") == handler_throws);
        }
    }

    TEST_CASE("threads that cannot be had, the first or a later one: an error, not the end of the process") {
        const auto make = [] {
            return what_of<std::system_error>([] {
                tg::runtime runtime{{.cores = 4}};
                runtime.start();
            });
        };
        const auto none = in_child([&] {
            refuse(SYS_clone3, EAGAIN);
            refuse(SYS_clone, EAGAIN);
            return make();
        });
        CHECK(none.ended);
        CHECK(has(none.said, "Resource temporarily unavailable"));
        for (rlim_t threads = 1; threads < 8; ++threads) {
            CAPTURE(threads);
            const auto child = in_child([&]() -> std::string {
                // A user of its own, whom the limit binds, and whose threads nobody else's add to.
                const uid_t nobody_else = 60'000 + static_cast<uid_t>(::getpid()) % 4000;
                if (::setresuid(nobody_else, nobody_else, nobody_else) != 0) return "cannot";
                const rlimit limit{threads, threads};
                ::setrlimit(RLIMIT_NPROC, &limit);
                return make();
            });
            if (child.said == "cannot") {
                MESSAGE("skipped: not root");
                return;
            }
            CHECK(child.ended);
            CHECK(child.complained == "");
            CHECK((child.said == "nothing was thrown" || has(child.said, "Resource temporarily unavailable")));
        }
    }
}

TEST_SUITE("runtime: looking") {
    TEST_CASE("tokens that wait, are admitted and execute are listed with operation, core, age and who awaits them") {
        manual_event release;
        std::atomic<bool> go{false};
        tg::runtime runtime{{.cores = 1, .storage = {.slow = 1}}};
        runtime.start();
        CHECK(runtime.tokens().empty());

        // Two want the one permit.
        auto first = slow_waits(&release), second = slow_waits(&release);
        const tg::token_id runs = first.id(), waits_for_permit = second.id();
        auto first_ended = runtime.submit(std::move(first));
        auto second_ended = runtime.submit(std::move(second));
        // One awaits another.
        auto outer = awaits_waits(&release);
        const tg::token_id outer_id = outer.id();
        auto outer_ended = runtime.submit(std::move(outer));
        wait_until([&] {
            const auto now = runtime.tokens();
            return std::count_if(now.begin(), now.end(),
                                 [](const auto& t) { return t.state == tg::token_state::executing; }) == 3 &&
                   now.size() == 4;
        });
        for (const tg::token_info& each : runtime.tokens()) {
            CAPTURE(each.id.text());
            CHECK(each.age > 0ns);
            CHECK(each.age < std::chrono::hours(1));
            CHECK(each.core == (each.state == tg::token_state::waiting ? tg::control_core : 0));
            if (each.id == runs) CHECK(each.state == tg::token_state::executing);
            if (each.id == waits_for_permit) CHECK(each.state == tg::token_state::waiting);
            if (each.id.operation == "runtime_test_waits") {
                CHECK(each.awaited_by_sequence == outer_id.sequence);
            } else {
                CHECK(each.awaited_by_sequence == 0);
            }
        }

        // One holds the core: others are routed to it, up to its window, and the rest waits at the gate.
        auto blocker = blocks(&go);
        const tg::token_id blocker_id = blocker.id();
        auto blocker_ended = runtime.submit(std::move(blocker));
        wait_until([&] {
            const auto found = find(runtime, blocker_id);
            return found && found->state == tg::token_state::executing;
        });
        std::atomic<int> ran{0};
        std::vector<std::future<void>> more;
        for (int i = 0; i < 3000; ++i) more.push_back(runtime.submit(adds(&ran)));
        const auto count = [&](tg::token_state state) {
            const auto now = runtime.tokens();
            return std::count_if(now.begin(), now.end(), [&](const auto& t) {
                return t.state == state && t.id.operation == "runtime_test_adds";
            });
        };
        wait_until([&] { return count(tg::token_state::waiting) + count(tg::token_state::admitted) == 3000; });
        CHECK(count(tg::token_state::admitted) > 0);
        CHECK(count(tg::token_state::waiting) > 0);
        wait_until([&] {
            return runtime.snapshot().waiting == static_cast<std::uint64_t>(count(tg::token_state::waiting));
        });
        CHECK(ran == 0);

        go = true;
        go.notify_all();
        release.set();
        for (auto& each : more) each.get();
        first_ended.get();
        second_ended.get();
        CHECK(outer_ended.get() == 4);
        blocker_ended.get();
        CHECK(runtime.stop().complete());
        CHECK(runtime.tokens().empty());
        CHECK(ran == 3000);
    }

    TEST_CASE("a snapshot's counts are exact when nothing moves") {
        manual_event release;
        tg::runtime runtime{{.cores = 2}};
        runtime.start();
        std::vector<std::future<void>> held;
        for (int i = 0; i < 4; ++i)
            held.push_back(runtime.submit(sticky_waits(i % 2, &release)));  // two keys, twice each
        held.push_back(runtime.submit(leads([&] { sticky_waits(9, &release).admit(); },
                                            &release)));  // bypasses its key
        const auto executing = [&] {
            const auto now = runtime.tokens();
            return std::count_if(now.begin(), now.end(),
                                 [](const auto& t) { return t.state == tg::token_state::executing; });
        };
        wait_until([&] { return executing() == 6; });
        tg::snapshot now = runtime.snapshot();
        CHECK(now.admitted == 6);
        CHECK(now.ended == 0);
        CHECK(now.waiting == 0);
        CHECK(now.domains == 1);
        CHECK(now.pins == 2);
        CHECK(now.redirections == 2);
        CHECK(now.sticky_bypassed == 1);
        CHECK(now.busy_ns.size() == 2);
        release.set();
        CHECK(runtime.stop().complete());
        now = runtime.snapshot();
        CHECK(now.admitted == 6);
        CHECK(now.ended == 6);
        CHECK(now.domains == 0);
        CHECK(now.pins == 0);
        CHECK(now.redirections == 2);
        CHECK(std::max(now.busy_ns[0], now.busy_ns[1]) > 0);
    }

    TEST_CASE("tokens and snapshot may be asked from any thread while all is moving") {
        tg::runtime runtime{{.cores = 3}};
        std::atomic<bool> done{false};
        std::vector<std::thread> lookers;
        for (int i = 0; i < 2; ++i)
            lookers.emplace_back([&] {
                while (!done) {
                    for (const tg::token_info& each : runtime.tokens()) {
                        CHECK(each.state != tg::token_state::none);
                        CHECK_FALSE(each.id.operation.empty());
                    }
                    const tg::snapshot now = runtime.snapshot();
                    CHECK(now.ended <= now.admitted);
                }
            });
        runtime.run([]() -> tg::task<> {
            for (int round = 0; round < 50; ++round) {
                std::vector<tg::token<int>> tokens;
                for (int i = 0; i < 100; ++i) tokens.push_back(twice(i));
                auto all = tg::when_all(std::move(tokens));
                co_await std::move(all);
            }
        });
        done = true;
        for (std::thread& each : lookers) each.join();
    }

    TEST_CASE("a failure that nobody can hear goes to the handler") {
        std::mutex mutex;
        std::vector<std::string> heard;
        {
            tg::runtime runtime{{.cores = 2, .on_failure = [&](const tg::failure& failed) {
                                     try {
                                         std::rethrow_exception(failed.error);
                                     } catch (const std::exception& thrown) {
                                         const std::scoped_lock lock(mutex);
                                         heard.push_back(std::string(failed.id.operation) + ": " + thrown.what());
                                     }
                                 }}};
            runtime.run([]() -> tg::task<> {
                fails("detached").admit();
                co_return;
            });
        }
        CHECK(heard == std::vector<std::string>{"runtime_test_fails: detached"});
    }

    TEST_CASE("without a handler it is a line on stderr, also for what is no std::exception") {
        const auto child = in_child([] {
            tg::runtime runtime{{.cores = 1}};
            runtime.run([]() -> tg::task<> {
                fails("the reason").admit();
                fails_oddly().admit();
                co_return;
            });
            return std::string("ran on");
        });
        CHECK(child.ended);
        CHECK(child.said == "ran on");
        CHECK(has(child.complained, "tokengate: runtime_test_fails_"));
        CHECK(has(child.complained, "failed and nobody awaits it: the reason\n"));
        CHECK(has(child.complained, "tokengate: runtime_test_fails_oddly_"));
    }

    TEST_CASE("a handler that throws does not end the process, and the failure is still told") {
        const auto child = in_child([] {
            tg::runtime runtime{
                {.cores = 1, .on_failure = [](const tg::failure&) { throw std::runtime_error("the handler's"); }}};
            return std::to_string(runtime.run([]() -> tg::task<int> {
                fails("the reason").admit();
                co_return co_await twice(4);
            }));
        });
        CHECK(child.ended);
        CHECK(child.said == "8");
        CHECK(has(child.complained, "the failure handler itself threw"));
        CHECK(has(child.complained, "the reason"));
    }
}
