// SPDX-License-Identifier: MIT
#include "base/topology.hpp"
#include "lifecycle/runtime_core.hpp"

#include "support/child.hpp"
#include "support/thrown.hpp"

#include <tokengate/operation.hpp>
#include <tokengate/runtime.hpp>
#include <tokengate/this_token.hpp>

#include <doctest/doctest.h>

#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <future>
#include <latch>
#include <limits>
#include <mutex>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace tg = tokengate;
using namespace std::chrono_literals;
using tg::test::in_child;
using tg::test::refuse;
using tg::test::what_of;

namespace {

const tg::operation twice{{.name = "options_test_twice", .weight = tg::weight::light},
                          [](int n) { return 2 * n; }};
const tg::operation fails{{.name = "options_test_fails"},
                          [](std::string text) -> int { throw std::out_of_range(text); }};
/// The same, for what holds its core until others have come too.
const tg::operation meets{{.name = "options_test_meets", .weight = tg::weight::heavy},
                          [](std::function<void()> what) { what(); }};

bool has(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

}  // namespace

TEST_SUITE("options") {
    std::string refusal(tg::runtime_options options) {
        return what_of<tg::configuration_error>([&] { tg::runtime runtime(std::move(options)); });
    }

    TEST_CASE("a value that cannot be is refused, with its name and what would be right") {
        const auto names = [](const std::string& text, const std::string& option,
                              const std::string& remedy) {
            CAPTURE(text);
            CHECK(has(text, "configuration_error: runtime_options." + option));
            CHECK(has(text, remedy));
        };
        names(refusal({.cores = 0}), "cores is 0", "at least 1");
        names(refusal({.workers_per_core = 0}), "workers_per_core is 0", "at least 1");
        names(refusal({.cpus = {0, 100'000}}), "cpus names CPU 100000", "does not have");
        names(refusal({.storage = {.slow = 0}}), "storage.slow is 0", "at least 1");
        names(refusal({.storage = {.moderate = -1}}), "storage.moderate is -1", "at least 1");
        names(refusal({.storage = {.fast = std::numeric_limits<int>::min()}}),
              "storage.fast is -2147483648", "at least 1");
        names(refusal({.storage = {.insane = 0}}), "storage.insane is 0", "at least 1");
        names(refusal({.spin = -1ns}), "spin is negative", "0 or more");
        for (const unsigned entries : {0U, 1U, 4U, 7U, 9U, 100U, 32767U, 65536U, ~0U})
            names(refusal({.ring_entries = entries}), "ring_entries is " + std::to_string(entries),
                  "power of two from 8 to 32768");
        names(refusal({.cores = 1024}), "cores × workers_per_core is 1024", "at most 1023");
        names(refusal({.cores = 2, .workers_per_core = 512}), "cores × workers_per_core is 1024",
              "at most 1023");
        names(refusal({.cores = ~0U, .workers_per_core = ~0U}), "cores × workers_per_core is",
              "at most 1023");
        names(refusal({.spill = static_cast<tg::spill>(9)}), "spill does not exist",
              "when_saturated or never");
        names(refusal({.digest = static_cast<tg::digest_policy>(9)}), "digest does not exist",
              "full, short_ or minimal");
    }

    TEST_CASE("by default there is a core for every CPU that may be used") {
        tg::runtime runtime;
        CHECK(runtime.cores() == tg::detail::usable_cores(tg::detail::affinity_cpus().size(),
                                                          tg::detail::cgroup_cpu_quota()));
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

    TEST_CASE(
        "by default there are no more cores than the cgroup's quota pays for; who says a number "
        "gets it") {
        namespace fs = std::filesystem;
        std::string tree = fs::temp_directory_path() / "options_test_XXXXXX";
        REQUIRE(::mkdtemp(tree.data()) != nullptr);
        fs::create_directory(tree + "/app");
        std::ofstream(tree + "/groups") << "0::/app\n";
        const auto child = in_child([&]() -> std::string {
            // Our own tree of cgroups and our own place in it, in a mount namespace of our own; that takes root.
            const std::string groups = tree + "/groups";
            const bool mounted =
                ::unshare(CLONE_NEWNS) == 0 &&
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

    TEST_CASE(
        "core c is pinned to CPU c modulo their number, in the order they are named; its workers "
        "share it") {
        const std::vector<unsigned> usable = tg::detail::affinity_cpus();
        if (usable.size() < 2) MESSAGE("one CPU only: every core is on it");
        constexpr unsigned cores = 4;
        for (const std::vector<unsigned>& named :
             {std::vector<unsigned>{}, std::vector(usable.rbegin(), usable.rend()),
              std::vector{usable.back()}})
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
                return std::to_string(runtime.run([]() -> tg::task<int> {
                    co_return co_await twice(4);
                }));
            });
            CHECK(child.ended);
            CHECK(child.said == "8");
            CHECK(has(child.complained, "tokengate: executor 0 could not be pinned"));
            CHECK(has(child.complained, "handler itself threw") == handler_throws);
        }
    }

    TEST_CASE(
        "threads that cannot be had, the first or a later one: an error, not the end of the "
        "process") {
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
            CHECK((child.said == "nothing was thrown" ||
                   has(child.said, "Resource temporarily unavailable")));
        }
    }
}
