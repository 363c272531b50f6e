// SPDX-License-Identifier: MIT

// Bursts of random size and class, from the main coroutine, from cores and from foreign threads, with pauses in which
// loops park. A watchdog finds a runtime in which tokens are alive and none ends for a long time, says where they are,
// and aborts: a token that nobody serves is a wake-up lost.

#include "support/leaks.hpp"
#include "support/sanitizers.hpp"
#include "support/watchdog.hpp"

#include <tokengate/operation.hpp>
#include <tokengate/runtime.hpp>
#include <tokengate/this_token.hpp>
#include <tokengate/when_all.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <cstdint>
#include <future>
#include <random>
#include <thread>
#include <utility>
#include <vector>

namespace tg = tokengate;
using tg::test::live_slots;

namespace {

constexpr int bursts = tg::test::under_tsan || tg::test::under_asan ? 150 : 1000;

std::atomic<std::uint64_t> ran{0};

std::uint64_t work(std::uint64_t seed, int steps) {
    for (int i = 0; i < steps; ++i) seed = seed * 6364136223846793005U + 1442695040888963407U;
    ++ran;
    return seed;
}

const tg::operation light{{.name = "lost_wakeup_light", .weight = tg::weight::light},
                          [](std::uint64_t n) { return work(n, 10); }};
const tg::operation medium{{.name = "lost_wakeup_medium"},
                           [](std::uint64_t n) { return work(n, 1000); }};
const tg::operation heavy{{.name = "lost_wakeup_heavy", .weight = tg::weight::heavy},
                          [](std::uint64_t n) { return work(n, 20'000); }};
const tg::operation sticky{{.name = "lost_wakeup_sticky"},
                           tg::sticky{"lost_wakeup", [](std::uint64_t n) { return n % 5; }},
                           [](std::uint64_t n) { return work(n, 100); }};
const tg::operation slow{{.name = "lost_wakeup_slow", .storage = tg::storage::slow},
                         [](std::uint64_t n) { return work(n, 100); }};

tg::task<std::uint64_t> lead_body(std::uint64_t n);
const tg::operation lead{
    {.name = "lost_wakeup_lead"}, tg::lead{"lost_wakeup_light", "lost_wakeup_slow"}, lead_body};
tg::task<std::uint64_t> burst_body(std::uint64_t seed, unsigned size);
const tg::operation burst{{.name = "lost_wakeup_burst", .weight = tg::weight::heavy}, burst_body};

tg::token<std::uint64_t> any(std::mt19937_64& random) {
    const std::uint64_t n = random();
    switch (random() % 8) {
        case 0: return heavy(n);
        case 1: return sticky(n);
        case 2: return slow(n);
        case 3: return lead(n);
        case 4: return medium(n);
        default: return light(n);
    }
}

unsigned burst_size(std::mt19937_64& random) {
    return 1 + static_cast<unsigned>(random() % (random() % 4 == 0 ? 300 : 8));
}

tg::task<std::uint64_t> lead_body(std::uint64_t n) {
    std::uint64_t last = co_await light(n);
    if (n % 3 == 0) last = co_await slow(last);
    light(n).admit();  // its own way
    auto [a, b] = co_await tg::when_all(light(last), sticky(last));
    co_return a + b;
}

tg::task<std::uint64_t> burst_body(std::uint64_t seed, unsigned size) {
    std::mt19937_64 random(seed);
    std::vector<tg::token<std::uint64_t>> tokens;
    for (unsigned i = 0; i < size; ++i) {
        auto token = any(random);
        if (random() % 4 == 0) token.admit();  // and dropped, or awaited with the others
        if (random() % 8 != 0) tokens.push_back(std::move(token));
    }
    const auto results = co_await tg::when_all(std::move(tokens));
    co_return results.size();
}

}  // namespace

TEST_SUITE("stress: lost wake-up") {
    TEST_CASE("every token is served, whoever sends it and whoever sleeps") {
        constexpr std::uint64_t seed = 4711;
        MESSAGE("seed " << seed);
        {
            tg::runtime warm{{.cores = 8}};
            warm.run([]() -> tg::task<std::uint64_t> { co_return co_await burst(1, 200); });
        }
        const std::size_t slots = live_slots();
        for (unsigned cores = 1; cores <= 8; ++cores) {
            CAPTURE(cores);
            tg::runtime runtime{
                {.cores = cores,
                 .workers_per_core = cores == 3 ? 2U : 1U,
                 .spill = cores % 2 == 0 ? tg::spill::never : tg::spill::when_saturated,
                 .storage = {.slow = 2},
                 .ring_entries = cores == 5 ? 8U : 256U}};
            const tg::test::watchdog watching(runtime, [] { return ran.load(); });
            std::vector<std::thread> foreign;
            for (std::uint64_t t = 0; t < 3; ++t)
                foreign.emplace_back([&, t] {
                    std::mt19937_64 random(seed + 10 * cores + t);
                    for (int i = 0; i < bursts; ++i) {
                        std::vector<std::future<std::uint64_t>> futures;
                        for (unsigned left = burst_size(random); left > 0; --left)
                            futures.push_back(runtime.submit(any(random)));
                        if (random() % 2 == 0)
                            futures.push_back(runtime.submit(burst(random(), burst_size(random))));
                        if (random() % 4 != 0)
                            for (auto& each : futures) each.get();  // silence, in which loops park
                    }
                });
            runtime.run([&]() -> tg::task<> {
                std::mt19937_64 random(seed + cores);
                for (int i = 0; i < bursts; ++i) {
                    if (random() % 3 == 0) {
                        const std::uint64_t one = co_await light(random());
                        static_cast<void>(one);
                    } else {
                        const std::uint64_t size = co_await burst(random(), burst_size(random));
                        static_cast<void>(size);
                    }
                }
            });
            runtime.start();
            for (std::thread& each : foreign) each.join();
            CHECK(runtime.stop().complete());
            const tg::snapshot now = runtime.snapshot();
            CHECK(now.admitted == now.ended);
            CHECK(now.waiting == 0);
            CHECK(now.domains == 0);
            CHECK(now.pins == 0);
            CHECK(runtime.tokens().empty());
        }
        CHECK(live_slots() == slots);
    }
}
