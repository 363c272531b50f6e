// SPDX-License-Identifier: MIT

// Stops, completions and timeouts race over whatever can be waited for: sleeps, reads of pipes and sockets, groups, scopes,
// queues of the gate. Each token ends exactly once, nothing is lost, nothing leaks.

#include "support/child.hpp"
#include "support/leaks.hpp"
#include "support/sanitizers.hpp"

#include <tokengate/detail/io_wait.hpp>
#include <tokengate/error.hpp>
#include <tokengate/operation.hpp>
#include <tokengate/runtime.hpp>
#include <tokengate/scope.hpp>
#include <tokengate/stop.hpp>
#include <tokengate/task_token.hpp>
#include <tokengate/time.hpp>
#include <tokengate/when_all.hpp>
#include <tokengate/when_any.hpp>

#include <doctest/doctest.h>

#include <fcntl.h>
#include <liburing.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <future>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace tg = tokengate;
using namespace std::chrono_literals;
using std::chrono::microseconds;
using tg::test::live_slots;
using tg::test::open_descriptors;

namespace {

constexpr std::uint64_t races = tg::test::under_tsan   ? 100'000
                                : tg::test::under_asan ? 250'000
                                                       : 1'000'000;

std::atomic<std::uint64_t> entered{0}, left{0}, values{0}, stopped{0}, timeouts{0}, failures{0},
    wrong{0}, lost{0};

/// In every body: it is entered and left, each once.
struct passage {
    passage() { ++entered; }
    passage(const passage&) = delete;
    passage& operator=(const passage&) = delete;
    ~passage() { ++left; }
};

/// One byte from a pipe or socket.
class reading : public tg::detail::io_wait {
public:
    reading(int descriptor, char* into) : io_wait("read a byte") {
        io_uring_prep_read(sqe(), descriptor, into, 1, 0);
    }
    int await_resume() { return finished(); }
};

/// Two ends; for the time of one race.
struct channel {
    explicit channel(bool socket) {
        if ((socket ? ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends)
                    : ::pipe2(ends, O_CLOEXEC)) != 0)
            throw std::runtime_error("no descriptors");
    }
    channel(const channel&) = delete;
    channel& operator=(const channel&) = delete;
    ~channel() {
        ::close(ends[0]);
        ::close(ends[1]);
    }
    void put() const {
        const char byte = 'x';
        if (::write(ends[1], &byte, 1) != 1) ++wrong;
    }
    int ends[2];
};

/// Numbers small enough for an argument.
struct dice {
    std::uint64_t state;
    std::uint64_t operator()(std::uint64_t below) noexcept {
        state = state * 6364136223846793005U + 1442695040888963407U;
        return (state >> 33) % below;
    }
    microseconds delay() noexcept {
        return microseconds((*this)(4) == 0 ? (*this)(300) : (*this)(20));
    }
};

tg::task<int> sleeps_body(std::uint64_t seed) {
    const passage here;
    dice roll{seed};
    co_await tg::sleep_for(roll.delay());
    if (roll(4) == 0) co_await tg::yield();
    co_return 1;
}
const tg::operation sleeps{{.name = "cancel_sleeps", .weight = tg::weight::light}, sleeps_body};
const tg::operation sleeps_heavy{{.name = "cancel_sleeps_heavy", .weight = tg::weight::heavy},
                                 sleeps_body};
const tg::operation sleeps_sticky{{.name = "cancel_sleeps_sticky"},
                                  tg::sticky{"cancel", [](std::uint64_t seed) { return seed % 3; }},
                                  sleeps_body};
const tg::operation sleeps_slow{{.name = "cancel_sleeps_slow", .storage = tg::storage::slow},
                                sleeps_body};
const tg::operation sleeps_limited{{.name = "cancel_sleeps_limited", .timeout = 30us}, sleeps_body};
const tg::operation conducted{{.name = "cancel_conducted"}, sleeps_body};
const tg::operation computes{{.name = "cancel_computes", .weight = tg::weight::light},
                             [](std::uint64_t seed) {
                                 const passage here;
                                 dice roll{seed};
                                 for (std::uint64_t steps = roll(2000);
                                      steps > 0 && !tg::this_token::stop_requested(); --steps)
                                     roll(2);
                                 return 1;
                             }};
const tg::operation fails{{.name = "cancel_fails"}, [](std::uint64_t) -> int {
                              const passage here;
                              throw std::out_of_range("meant to");
                          }};
const tg::operation reads{{.name = "cancel_reads"}, [](int descriptor) -> tg::task<int> {
                              const passage here;
                              char byte = 0;
                              const int result = co_await reading(descriptor, &byte);
                              if (result != 1 || byte != 'x') ++wrong;
                              co_return 1;
                          }};

tg::token<int> any_leaf(dice& roll) {
    const std::uint64_t seed = roll(1U << 30);
    switch (roll(9)) {
        case 0: return sleeps_heavy(seed);
        case 1: return sleeps_sticky(seed);
        case 2: return sleeps_slow(seed);
        case 3: return sleeps_limited(seed);
        case 4: return computes(seed);
        case 5: return tg::as_token(sleeps_body(seed));
        default: return sleeps(seed);
    }
}

tg::task<int> lead_body(std::uint64_t seed) {
    const passage here;
    dice roll{seed};
    int sum = 0;
    for (std::uint64_t i = roll(3); i > 0; --i) sum += co_await conducted(roll(1000));
    if (roll(2) == 0) {
        const auto [a, b] =
            co_await tg::when_all(conducted(roll(1000)), tg::as_token(sleeps_body(roll(1000))));
        sum += a + b;
    } else {
        sum += co_await tg::with_timeout(conducted(roll(1000)), roll.delay());
    }
    co_return sum;
}
const tg::operation lead{{.name = "cancel_lead"}, tg::lead{"cancel_conducted"}, lead_body};

tg::task<int> any_body(std::uint64_t seed) {
    const passage here;
    dice roll{seed};
    std::vector<tg::token<int>> several;
    for (std::uint64_t i = 1 + roll(4); i > 0; --i) {
        several.push_back(any_leaf(roll));
        if (roll(4) == 0) several.back().admit();
    }
    const auto first = co_await tg::when_any(std::move(several));
    co_return first.value;
}
const tg::operation any{{.name = "cancel_any"}, any_body};

tg::task<int> all_body(std::uint64_t seed) {
    const passage here;
    dice roll{seed};
    std::vector<tg::token<int>> several;
    for (std::uint64_t i = 1 + roll(4); i > 0; --i) several.push_back(any_leaf(roll));
    const auto all = co_await tg::when_all(std::move(several));
    co_return static_cast<int>(all.size());
}
const tg::operation all{{.name = "cancel_all"}, all_body};

tg::task<int> scope_body(std::uint64_t seed) {
    const passage here;
    dice roll{seed};
    const std::size_t limit = 1 + roll(4);
    const auto body = [roll](tg::scope& jobs) mutable -> tg::task<int> {
        const passage inside;
        for (std::uint64_t i = roll(6); i > 0; --i) {
            tg::token<int> child =
                roll(12) == 0 ? fails(0) : any_leaf(roll);  // named: a g++ 12 trap otherwise
            co_await jobs.spawn(std::move(child));
            if (roll(8) == 0) co_await tg::yield();
            if (roll(16) == 0) jobs.request_stop();
        }
        co_return 1;
    };
    co_return co_await tg::with_scope({.limit = limit}, body);
}
const tg::operation scoped{{.name = "cancel_scoped"}, scope_body};

tg::task<int> shielded_body(std::uint64_t seed) {
    const passage here;
    dice roll{seed};
    const int inside = co_await tg::shield(sleeps_body(roll(1000)));
    co_await tg::sleep_for(roll.delay());
    co_return inside;
}
const tg::operation shielded{{.name = "cancel_shielded"}, shielded_body};

tg::task<int> called_back_body(std::uint64_t seed) {
    const passage here;
    dice roll{seed};
    int called = 0;
    {
        tg::stop_callback one{tg::this_token::stop(), [&called] { ++called; }};
        tg::stop_callback two{tg::this_token::stop(), [&called] { ++called; }};
        try {
            co_await tg::sleep_for(roll.delay());
        } catch (const tg::token_stopped&) {
            if (called != 2) ++wrong;  // before anything else hears of it
            throw;
        }
    }
    co_return 1;
}
const tg::operation called_back{{.name = "cancel_called_back"}, called_back_body};

tg::token<int> any_work(dice& roll) {
    const std::uint64_t seed = roll(1U << 30);
    switch (roll(8)) {
        case 0: return any(seed);
        case 1: return all(seed);
        case 2: return scoped(seed);
        case 3: return lead(seed);
        case 4: return shielded(seed);
        case 5: return called_back(seed);
        default: return any_leaf(roll);
    }
}

/// Awaits it, and counts how it ended.
tg::task<> conclude(tg::token<int> work, std::int64_t limit_us) {
    bool counted = false;
    try {
        if (limit_us >= 0)
            co_await tg::with_timeout(std::move(work), microseconds(limit_us));
        else
            co_await work;
        counted = true;
        ++values;
    } catch (const tg::token_timeout&) {
        ++timeouts;
        counted = true;
    } catch (const tg::token_stopped&) {
        ++stopped;
        counted = true;
    } catch (const std::out_of_range&) {
        ++failures;
        counted = true;
    } catch (const std::exception& other) {
        MESSAGE(std::string(other.what()));
    }
    if (!counted) ++wrong;
}

tg::task<> pause(std::uint64_t kind, microseconds how_long) {
    if (kind == 0) co_await tg::sleep_for(how_long);
    if (kind == 1) co_await tg::yield();
}

/// A byte arrives, the reader is stopped, its time is over: in whatever order. A byte that nobody read is still there.
tg::task<> race_a_read(dice roll) {
    const channel between(roll(2) == 0);
    tg::token<int> reader = reads(between.ends[0]);
    bool written = false;
    if (roll(3) == 0) {
        between.put();
        written = true;
    }
    bool got = false;
    std::int64_t limit = -1;
    if (roll(2) == 0) {
        limit = static_cast<std::int64_t>(roll(60));
    } else {
        reader.admit();
        co_await pause(roll(4), roll.delay());
        if (!written && roll(2) == 0) {
            between.put();
            written = true;
        }
        co_await pause(roll(4), roll.delay());
        if (!written || roll(2) == 0) reader.request_stop();
    }
    try {
        if (limit >= 0)
            co_await tg::with_timeout(std::move(reader), microseconds(limit));
        else
            co_await reader;
        got = true;
        ++values;
    } catch (const tg::token_timeout&) {
        ++timeouts;
    } catch (const tg::token_stopped&) {
        ++stopped;
    }
    if (got && !written) ++wrong;
    ::fcntl(between.ends[0], F_SETFL, O_NONBLOCK);
    char byte = 0;
    const bool there = ::read(between.ends[0], &byte, 1) == 1;
    if (there != (written && !got)) ++lost;
}

tg::task<> race(dice roll) {
    tg::token<int> work = any_work(roll);
    const std::int64_t limit = roll(3) == 0 ? static_cast<std::int64_t>(roll(100)) - 5 : -1;
    const std::uint64_t way = roll(5);
    if (way == 0) {
        work.request_stop();
    } else if (way != 1) {
        work.admit();
        co_await pause(roll(5), roll.delay());
        if (way == 2) work.request_stop();
        if (way == 3) {
            std::vector<tg::token<int>> together;
            together.push_back(std::move(work));
            together.push_back(any_leaf(roll));
            const auto either = [](std::vector<tg::token<int>> tokens) -> tg::task<int> {
                const auto first = co_await tg::when_any(std::move(tokens));
                co_return first.value;
            };
            work = tg::as_token(either(std::move(together)));
        }
    }
    co_await conclude(std::move(work), limit);
}

tg::task<> racer_body(std::uint64_t seed, std::uint64_t count) {
    dice roll{seed};
    for (; count > 0; --count) {
        const dice own{roll(1U << 30)};
        if (roll(4) == 0)
            co_await race_a_read(own);
        else
            co_await race(own);
    }
}
const tg::operation racer{{.name = "cancel_racer", .weight = tg::weight::heavy}, racer_body};

}  // namespace

TEST_SUITE("stress: cancel") {
    TEST_CASE(
        "stops, completions and timeouts race: each token ends once, nothing is lost or left") {
        constexpr std::uint64_t seed = 4711;
        MESSAGE("seed " << seed);
        const std::size_t slots = live_slots();
        const std::size_t descriptors = open_descriptors();
        std::atomic<int> reported{0};
        {
            tg::runtime runtime{
                {.cores = 4, .storage = {.slow = 3}, .on_failure = [&](const tg::failure& heard) {
                     // What a group or scope has no place for: our own failures, timeouts, and a scope
                     // that was stopped by its own body, for that token was not asked itself.
                     try {
                         std::rethrow_exception(heard.error);
                     } catch (const std::out_of_range&) {
                         ++reported;
                     } catch (const tg::token_timeout&) {
                         ++reported;
                     } catch (const std::exception& other) {
                         const bool stopped_itself =
                             std::string_view(heard.id.operation) == "cancel_scoped" &&
                             dynamic_cast<const tg::token_stopped*>(&other);
                         if (stopped_itself) return;
                         MESSAGE(heard.id.text() << ": " << std::string(other.what()));
                         ++wrong;
                     }
                 }}};
            runtime.run([&]() -> tg::task<> {
                constexpr std::uint64_t racers = 64;
                std::vector<tg::token<void>> all_of_them;
                for (std::uint64_t i = 0; i < racers; ++i)
                    all_of_them.push_back(i % 16 == 0
                                              ? tg::as_token(racer_body(seed + i, races / racers))
                                              : racer(seed + i, races / racers));
                co_await tg::when_all(std::move(all_of_them));
            });
            const tg::snapshot now = runtime.snapshot();
            CHECK(now.admitted == now.ended);
            CHECK(now.waiting == 0);
            CHECK(now.domains == 0);
            CHECK(now.pins == 0);
            CHECK(runtime.tokens().empty());
        }
        CHECK(entered == left);
        CHECK(values + stopped + timeouts + failures == races / 64 * 64);
        CHECK(values > 0);
        CHECK(stopped > 0);
        CHECK(timeouts > 0);
        CHECK(wrong == 0);
        CHECK(lost == 0);
        CHECK(live_slots() == slots);
        CHECK(open_descriptors() == descriptors);
    }

    TEST_CASE("a runtime that is stopped in the midst of it ends") {
        const std::size_t slots = live_slots();
        const std::size_t descriptors = open_descriptors();
        entered = left = 0;
        for (int round = 0; round < 30; ++round) {
            tg::runtime runtime{
                {.cores = 4, .storage = {.slow = 3}, .on_failure = [](const tg::failure&) {}}};
            runtime.start();
            std::vector<std::future<void>> all_of_them;
            for (std::uint64_t i = 0; i < 64; ++i)
                all_of_them.push_back(i % 16 == 0
                                          ? runtime.submit(tg::as_token(racer_body(i, 1'000'000)))
                                          : runtime.submit(racer(i, 1'000'000)));
            std::this_thread::sleep_for(microseconds(500 * round));
            CHECK(runtime.stop(1min, 0s).complete());
            for (auto& each : all_of_them) CHECK_THROWS_AS(each.get(), tg::token_stopped);
            const tg::snapshot now = runtime.snapshot();
            CHECK(now.admitted == now.ended);
        }
        CHECK(entered == left);
        CHECK(live_slots() == slots);
        CHECK(open_descriptors() == descriptors);
    }
}
