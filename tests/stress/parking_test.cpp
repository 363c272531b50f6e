// SPDX-License-Identifier: MIT

// Loops that park while what they do on their way to sleep brings their own wake-up: one operation floods the FIFO of its
// class, a foreign thread pauses and resumes it, so that parking cores pull chunks of which everything is held, and bound
// tokens ping the cores meanwhile. And loops that go to sleep while others look through what is lent to them. A watchdog says what hangs. TOKENGATE_STRESS_SECONDS sets how long it goes on for.

#include "support/sanitizers.hpp"
#include "support/watchdog.hpp"

#include <tokengate/gate.hpp>
#include <tokengate/operation.hpp>
#include <tokengate/runtime.hpp>
#include <tokengate/task_token.hpp>
#include <tokengate/time.hpp>
#include <tokengate/when_all.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <random>
#include <thread>
#include <vector>

namespace tg = tokengate;
using namespace std::chrono_literals;

namespace {

std::atomic<std::uint64_t> ran{0};
std::atomic<std::uint64_t> sink{0};

/// Some microseconds, so that a window is a few dozen tokens and a flood fills the FIFO behind it.
void work() {
    std::uint64_t n = ++ran;
    for (int i = 0; i < 2000; ++i) n = n * 6364136223846793005U + 1442695040888963407U;
    sink = n;
}

const tg::operation flood{{.name = "parking_flood", .weight = tg::weight::heavy}, work};
const tg::operation other{{.name = "parking_other", .weight = tg::weight::heavy}, work};

const tg::operation light{{.name = "parking_light", .weight = tg::weight::light}, [] { ++ran; }};

tg::task<> ping() {
    ++ran;
    co_return;
}

std::chrono::milliseconds how_long() {
    if (const char* seconds = std::getenv("TOKENGATE_STRESS_SECONDS"))
        return std::chrono::seconds(std::atoi(seconds));
    return 3s;
}

tg::task<> send_pings(const tg::runtime& runtime, const std::atomic<bool>& over) {
    while (!over) {
        std::vector<tg::token<>> pings;
        for (unsigned core = 0; core < runtime.cores(); ++core)
            pings.push_back(tg::as_token(ping(), core));
        co_await tg::when_all(std::move(pings));
        co_await tg::sleep_for(std::chrono::microseconds(30));
    }
}

tg::task<> send_floods(std::uint64_t seed, const std::atomic<bool>& over) {
    std::mt19937_64 random(seed);
    while (!over) {
        std::vector<tg::token<>> tokens;
        for (std::uint64_t left = 1 + random() % 1500; left > 0; --left)
            tokens.push_back(random() % 16 == 0 ? other() : flood());
        co_await tg::when_all(std::move(tokens));
    }
}

void storm(unsigned cores, std::uint64_t seed, std::chrono::milliseconds how_long) {
    tg::runtime runtime{{.cores = cores, .ring_entries = cores % 2 == 0 ? 8U : 256U}};
    const tg::test::watchdog watching(runtime, [] { return ran.load(); });
    std::atomic<bool> over{false};
    std::thread operator_of_the_gate([&] {
        std::mt19937_64 random(seed);
        const auto until = std::chrono::steady_clock::now() + how_long;
        while (std::chrono::steady_clock::now() < until) {
            runtime.gate().pause("parking_flood");
            std::this_thread::sleep_for(std::chrono::microseconds(random() % 300));
            runtime.gate().resume("parking_flood");
            std::this_thread::sleep_for(std::chrono::microseconds(random() % 300));
        }
        over = true;
    });
    runtime.run([&]() -> tg::task<> {
        co_await tg::when_all(send_pings(runtime, over), send_floods(seed, over),
                              send_floods(seed + 1, over));
    });
    operator_of_the_gate.join();
    const tg::snapshot now = runtime.snapshot();
    CHECK(now.admitted == now.ended);
    CHECK(now.waiting == 0);
}

}  // namespace

TEST_SUITE("stress: parking") {
    TEST_CASE("a loop that meets its own wake-up on the way to sleep does not sleep on its mail") {
        constexpr std::uint64_t seed = 20261130;
        MESSAGE("seed " << seed);
        const std::vector<unsigned> sizes{3, 4, 5, 8};
        for (const unsigned cores : sizes) {
            CAPTURE(cores);
            storm(cores, seed + cores, how_long() / static_cast<int>(sizes.size()));
        }
    }

    TEST_CASE(
        "a loop does not sleep on what somebody is taking back to look whether it may run it") {
        // All go to the last core; the first ones, outside its range, are woken to help and may not yet.
        for (const unsigned cores : {2U, 3U}) {
            CAPTURE(cores);
            tg::runtime runtime{{.cores = cores}};
            const tg::test::watchdog watching(runtime, [] { return ran.load(); });
            const auto until = std::chrono::steady_clock::now() + how_long() / 2;
            runtime.run([&]() -> tg::task<> {
                while (std::chrono::steady_clock::now() < until) {
                    for (int i = 0; i < 100; ++i) co_await light();
                    tg::token<> first = light(), second = light();
                    first.admit();
                    second.admit();
                    co_await first;
                    co_await second;
                }
            });
        }
    }
}
