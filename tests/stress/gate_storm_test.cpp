// SPDX-License-Identifier: MIT

#include "support/leaks.hpp"
#include "support/log_book.hpp"
#include "support/sanitizers.hpp"
#include "support/settled.hpp"
#include "support/waiting.hpp"

#include <tokengate/tokengate.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

// A million tokens, of every kind, while eight threads pause, resume, drain and kill at random.

namespace tg = tokengate;
using namespace std::chrono_literals;

namespace {

constexpr std::uint64_t seed = 20'261'121;
constexpr std::size_t all = tg::test::under_tsan || tg::test::under_asan ? 20'000 : 1'000'000;
constexpr std::size_t at_a_time = 10'000;
constexpr std::size_t at_first = 1000;  // fewer than the backlog's limit: all of them can be held

std::vector<std::atomic<std::uint8_t>> begun(all), heard(all);  // how often each token was

struct counts {
    std::atomic<std::uint64_t> completed{0}, failed{0}, killed{0}, timed_out{0}, other{0};
    std::atomic<std::uint64_t> not_run{0};  // completed without having been run exactly once
    std::atomic<std::uint64_t> held{0},
        drained{0};  // looks that found some held, drains that were complete
};
counts counted;

constexpr unsigned attempts = 3;
constexpr bool fails_at_each_attempt(int n) { return n % 4 == 1; }

const tg::operation plain{{.name = "gate_storm_plain", .weight = tg::weight::light}, [](int n) {
                              ++begun[static_cast<std::size_t>(n)];
                              return n;
                          }};
const tg::operation stores{{.name = "gate_storm_stores", .storage = tg::storage::fast},
                           [](int n) -> tg::task<int> {
                               ++begun[static_cast<std::size_t>(n)];
                               co_await tg::yield();
                               co_return n;
                           }};
const tg::operation child{{.name = "gate_storm_child"}, [](int n) { return n; }};
const tg::operation lead{
    {.name = "gate_storm_lead"}, tg::lead{"gate_storm_child"}, [](int n) -> tg::task<int> {
        ++begun[static_cast<std::size_t>(n)];
        const int a = co_await child(n);
        co_await tg::yield();
        co_return co_await child(a);
    }};
const tg::operation pinned{{.name = "gate_storm_pinned"},
                           tg::sticky{"gate_storm", [](int n) { return n % 64; }},
                           [](int n) {
                               ++begun[static_cast<std::size_t>(n)];
                               return n;
                           }};
const tg::operation fails{{.name = "gate_storm_fails"}, [](int n) -> int {
                              ++begun[static_cast<std::size_t>(n)];
                              throw std::runtime_error(std::to_string(n));
                          }};
const tg::operation sleeps{{.name = "gate_storm_sleeps", .timeout = 200us},
                           [](int n) -> tg::task<int> {
                               ++begun[static_cast<std::size_t>(n)];
                               co_await tg::sleep_for(n % 2 == 0 ? 50us : 10ms);
                               co_return n;
                           }};
const tg::operation retried{
    {.name = "gate_storm_retried", .retry = {.attempts = attempts, .backoff = 10us}},
    [](int n) -> int {
        ++begun[static_cast<std::size_t>(n)];
        if (fails_at_each_attempt(n)) throw std::runtime_error("again");
        return n;
    }};
constexpr std::array names{"gate_storm_plain",  "gate_storm_stores", "gate_storm_child",
                           "gate_storm_lead",   "gate_storm_pinned", "gate_storm_fails",
                           "gate_storm_sleeps", "gate_storm_retried"};

tg::token<int> any_token(int n) {
    switch (n % 7) {
        case 0: return plain(n);
        case 1: return stores(n);
        case 2: return lead(n);
        case 3: return pinned(n);
        case 4: return fails(n);
        case 5: return retried(n);
        default: return sleeps(n);
    }
}

/// How often a token may have begun: each attempt is a run of its own.
unsigned most_runs(int n) { return n % 7 == 5 && fails_at_each_attempt(n) ? attempts : 1; }

tg::task<> hear(tg::token<int> token, int n) {
    const auto number = static_cast<std::size_t>(n);
    try {
        const int result = co_await std::move(token);
        if (result == n) ++counted.completed;
        if (begun[number] != 1) ++counted.not_run;
    } catch (const tg::token_killed&) {
        ++counted.killed;
    } catch (const tg::token_timeout&) {
        ++counted.timed_out;
    } catch (const std::runtime_error&) {  // also refused
        ++counted.failed;
    } catch (...) {
        ++counted.other;
    }
    ++heard[number];
}

/// All that comes first has been held; of that some is let end, and some killed. Nobody else says anything meanwhile.
void open_storm(tg::runtime& runtime) {
    tg::gate_control gate = runtime.gate();
    constexpr std::size_t without_those_that_time_out = at_first - at_first / 7;
    tg::test::wait_until([&] { return runtime.snapshot().held >= without_those_that_time_out; });
    ++counted.held;
    counted.drained += gate.wait_drained("gate_storm_plain").complete();
    counted.drained += gate.wait_drained("gate_storm_fails").complete();
    gate.kill("gate_storm_pinned", "storm");
}

void operate(tg::runtime& runtime, std::uint64_t number, std::atomic<bool>& open,
             std::atomic<bool>& over) {
    std::mt19937_64 random(seed + number);
    if (number == 0) {
        open_storm(runtime);
        open = true;
        open.notify_all();
    }
    open.wait(false);
    tg::gate_control gate = runtime.gate();
    const auto any_name = [&] { return names[random() % names.size()]; };
    while (!over) {
        switch (random() % 9) {
            case 0: gate.pause(any_name()); break;
            case 1: gate.pause(); break;
            case 2: gate.kill(any_name(), "storm"); break;
            case 3: counted.drained += gate.wait_drained(any_name(), 2ms).complete(); break;
            case 4: {
                const std::vector<tg::token_info> alive = runtime.tokens();
                for (std::size_t i = 0; i < alive.size() && i < 4; ++i) {
                    const tg::token_info& victim = alive[random() % alive.size()];
                    if (victim.id.operation.starts_with("gate_storm"))
                        gate.kill(victim.id, "storm");
                }
                break;
            }
            case 5: {
                const std::vector<tg::token_info> alive = runtime.tokens();
                for (const tg::token_info& info : alive)
                    if (!info.domain.operation.empty()) {
                        gate.kill(tg::chain_of{info.domain}, "storm");
                        break;
                    }
                break;
            }
            case 6: gate.resume(any_name()); break;
            case 7: counted.drained += gate.wait_drained({}, 2ms).complete(); break;
            default: gate.resume(); break;
        }
        std::this_thread::sleep_for(std::chrono::microseconds(random() % 5000));
        counted.held += runtime.snapshot().held > 0;
        gate.resume();  // so that the storm goes on
    }
}

void storm(tg::runtime_options options, std::size_t tokens) {
    MESSAGE("seed " << seed << ", " << tokens << " tokens");
    for (auto* each : {&counted.completed, &counted.failed, &counted.killed, &counted.timed_out,
                       &counted.other, &counted.not_run, &counted.held, &counted.drained})
        *each = 0;
    const std::size_t before = tg::test::live_slots();
    {
        tg::runtime runtime(std::move(options));
        std::atomic<bool> open{false}, over{false};
        for (const char* name : names) runtime.gate().pause(name);  // until the storm has opened
        std::vector<std::thread> operators;
        for (std::uint64_t number = 0; number < 8; ++number)
            operators.emplace_back([&, number] { operate(runtime, number, open, over); });
        runtime.run([&]() -> tg::task<> {
            for (std::size_t n = 0, end = at_first; n < tokens;
                 n = end, end = std::min(n + at_a_time, tokens)) {
                std::vector<tg::task<>> batch;
                for (std::size_t i = n; i < end; ++i)
                    batch.push_back(hear(any_token(static_cast<int>(i)), static_cast<int>(i)));
                co_await tg::when_all(std::move(batch));
            }
        });
        over = true;
        for (std::thread& each : operators) each.join();
        CHECK(counted.completed + counted.failed + counted.killed + counted.timed_out == tokens);
        MESSAGE(counted.held.load()
                << " looks found some held, " << counted.drained.load() << " drains were complete");
        CHECK(counted.other == 0);
        CHECK(counted.killed > 0);
        CHECK(counted.completed > 0);
        CHECK(counted.failed > 0);
        CHECK(counted.not_run == 0);
        CHECK(counted.held > 0);
        CHECK(counted.drained >= 2);  // nobody is in the way of the first two
        std::size_t too_often = 0, not_heard_once = 0;
        for (std::size_t n = 0; n < tokens; ++n) {
            too_often += begun[n].exchange(0) > most_runs(static_cast<int>(n));
            not_heard_once += heard[n].exchange(0) != 1;
        }
        CHECK(too_often == 0);
        CHECK(not_heard_once == 0);
        tg::test::check_settled(runtime);
        CHECK(runtime.snapshot().held == 0);
        CHECK(runtime.stop(10s).complete());
    }
    CHECK(tg::test::live_slots() == before);
}

}  // namespace

TEST_SUITE("gate storm") {
    TEST_CASE("every token ends exactly once, counts add up, no domain and no pin is left") {
        storm({.cores = 2, .backlog = {.limit = 3000, .policy = tg::backlog_policy::shed_oldest}},
              all);
    }
    TEST_CASE("the same with everything watched") {
        constexpr std::size_t tokens = std::max(all / 10, at_a_time);
        tg::test::log_book book;
        storm({.cores = 3,
               .timing = tg::timing::full,
               .observer = book.observer(),
               .trace_events = 4096,
               .metrics = true},
              tokens);
        CHECK(book.legal());  // and each has ended exactly once
        CHECK(book.steps.size() >= 2 * tokens);
        CHECK(book.ways("task") ==
              tg::test::log_book::counts{{"created waiting admitted executing completed",
                                          static_cast<int>(tokens)}});  // nobody meant them
    }
}
