// SPDX-License-Identifier: MIT

// Retries: the attempts of one call, what each of them gets, and when there is no other.

#include "support/child.hpp"
#include "support/leaks.hpp"
#include "support/settled.hpp"
#include "support/waiting.hpp"

#include <tokengate/detail/retry.hpp>
#include <tokengate/error.hpp>
#include <tokengate/operation.hpp>
#include <tokengate/runtime.hpp>
#include <tokengate/stop.hpp>
#include <tokengate/this_token.hpp>
#include <tokengate/time.hpp>
#include <tokengate/when_all.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <exception>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

namespace tg = tokengate;
using namespace std::chrono_literals;
using tg::detail::copyable;
using tg::test::check_settled;
using tg::test::counted;
using tg::test::live_slots;
using tg::test::until;

namespace {

// What the attempts of an operation leave behind: tests run one after another, and attempts one after the other.
struct journal {
    std::vector<std::uint64_t> sequences;
    std::vector<unsigned> cores;
    std::vector<std::string> seeds;
    std::vector<std::string> texts;
    std::vector<std::string> names;

    unsigned note() {
        sequences.push_back(tg::this_token::id().sequence);
        cores.push_back(tg::this_token::core());
        seeds.emplace_back(tg::this_token::seed());
        names.emplace_back(tg::this_token::operation());
        return static_cast<unsigned>(sequences.size());
    }
    [[nodiscard]] std::size_t attempts() const { return sequences.size(); }
    [[nodiscard]] std::size_t different_tokens() const {
        return std::set<std::uint64_t>(sequences.begin(), sequences.end()).size();
    }
    [[nodiscard]] std::size_t different_cores() const {
        return std::set<unsigned>(cores.begin(), cores.end()).size();
    }
};

journal noted;

struct numbered : std::runtime_error {
    explicit numbered(unsigned attempt)
        : std::runtime_error("attempt " + std::to_string(attempt)), attempt(attempt) {}
    unsigned attempt;
};
struct hopeless : numbered {
    using numbered::numbered;
};

/// Throws at all attempts before that one.
unsigned succeed_at(unsigned attempt) {
    const unsigned now = noted.note();
    if (now < attempt) throw numbered(now);
    return now;
}

std::atomic<int> sulked{0};
std::atomic<bool> backs_off{false};
/// Whoever stops it hears of something else.
const tg::operation defies{
    {.name = "operation_retry_test_defies", .retry = {.attempts = 3, .backoff = 1us}},
    []() -> tg::task<> {
        ++sulked;
        try {
            co_await tg::sleep_for(1h);
        } catch (const tg::token_stopped&) {}
        throw std::runtime_error("sulking");
    }};
const tg::operation fails_for_long{
    {.name = "operation_retry_test_fails_for_long",
     .retry = {.attempts = 3,
               .backoff = 1h,
               .max_backoff = 1h,
               .retry_if = [](const std::exception_ptr&) { return backs_off = true; }}},
    [] {
        ++sulked;
        throw std::runtime_error("sulking");
    }};
const tg::operation third{
    {.name = "operation_retry_test_third", .retry = {.attempts = 4, .backoff = 1us}},
    [](counted) { return std::make_unique<unsigned>(succeed_at(3)); }};
const tg::operation third_routine{
    {.name = "operation_retry_test_third_routine", .retry = {.attempts = 4, .backoff = 1us}},
    [](counted) -> tg::task<> {
        co_await tg::yield();
        succeed_at(3);
    }};
const tg::operation third_refers{
    {.name = "operation_retry_test_third_refers", .retry = {.attempts = 4, .backoff = 0ms}},
    [](int& place) -> int& {
        succeed_at(3);
        return place;
    }};
const tg::operation never{
    {.name = "operation_retry_test_never", .retry = {.attempts = 3, .backoff = 0ms}},
    [] { succeed_at(100); }};
const tg::operation waits_long{
    {.name = "operation_retry_test_waits_long",
     .retry = {.attempts = 3,
               .backoff = 1h,
               .max_backoff = 1h,
               .retry_if = [](const std::exception_ptr&) { return backs_off = true; }}},
    [](counted) { succeed_at(100); }};
const tg::operation sometimes{{.name = "operation_retry_test_sometimes",
                               .retry = {.attempts = 100,
                                         .backoff = 0ms,
                                         .retry_if =
                                             [](const std::exception_ptr& failure) {
                                                 return !tg::retry_on<hopeless>(failure);
                                             }}},
                              [] {
                                  const unsigned attempt = noted.note();
                                  if (attempt == 4) throw hopeless(attempt);
                                  throw numbered(attempt);
                              }};
const tg::operation throws_it{
    {.name = "operation_retry_test_throws_it", .retry = {.attempts = 5, .backoff = 0ms}},
    [](std::exception_ptr what) {
        noted.note();
        std::rethrow_exception(what);
    }};
const tg::operation late{
    {.name = "operation_retry_test_late", .retry = {.attempts = 3, .backoff = 0ms}, .timeout = 2ms},
    [](counted) -> tg::task<> {
        noted.note();
        co_await tg::sleep_for(1h);
    }};
const tg::operation eager{
    {.name = "operation_retry_test_eager", .retry = {.attempts = 3, .backoff = 1us}},
    [](std::string text, std::string&& moved, const std::string& seen) -> unsigned {
        const std::string taken = std::move(text) + std::move(moved) + seen;
        noted.texts.push_back(taken);
        return succeed_at(3);
    }};
const tg::operation conducted{
    {.name = "operation_retry_test_conducted", .retry = {.attempts = 4, .backoff = 1us}},
    [] { return succeed_at(4); }};
const tg::operation lead{{.name = "operation_retry_test_lead"},
                         tg::lead{"operation_retry_test_conducted"},
                         []() -> tg::task<std::pair<unsigned, std::string>> {
                             co_await conducted();
                             co_return std::pair(tg::this_token::core(),
                                                 std::string(tg::this_token::seed()));
                         }};
const tg::operation leads_again{
    {.name = "operation_retry_test_leads_again", .retry = {.attempts = 3, .backoff = 0ms}},
    tg::lead{"operation_retry_test_conducted"},
    [] { return succeed_at(3); }};
const tg::operation sticky{
    {.name = "operation_retry_test_sticky", .retry = {.attempts = 10, .backoff = 1us}},
    tg::sticky{"operation_retry_test", [](int key) { return key; }},
    [](int) { return succeed_at(10); }};
const tg::operation sticky_waits{
    {.name = "operation_retry_test_sticky_waits",
     .retry = {.attempts = 2, .backoff = 1h, .max_backoff = 1h}},
    tg::sticky{"operation_retry_test_waits", [](int key) { return key; }},
    [](int) { succeed_at(2); }};
const tg::operation slow{{.name = "operation_retry_test_slow",
                          .storage = tg::storage::slow,
                          .retry = {.attempts = 2, .backoff = 1h, .max_backoff = 1h}},
                         [] { succeed_at(2); }};

const tg::operation good{{.name = "operation_retry_test_good"}, [] {}};
const tg::operation decides_badly{{.name = "operation_retry_test_decides_badly",
                                   .retry = {.attempts = 3,
                                             .backoff = 0ms,
                                             .retry_if = [](const std::exception_ptr&) -> bool {
                                                 throw std::logic_error("own");
                                             }}},
                                  [] { succeed_at(100); }};
const tg::operation late_at_first{{.name = "operation_retry_test_late_at_first",
                                   .retry = {.attempts = 3, .backoff = 0ms},
                                   .timeout = 1h},
                                  []() -> tg::task<unsigned> {
                                      const unsigned attempt = noted.note();
                                      if (attempt < 3)
                                          co_await tg::with_timeout(tg::sleep_for(1h), 1ms);
                                      co_return attempt;
                                  }};
std::atomic<bool> sulking{false};
const tg::operation sulks{
    {.name = "operation_retry_test_sulks", .retry = {.attempts = 3, .backoff = 0ms}},
    []() -> tg::task<> {
        const unsigned attempt = noted.note();
        sulking = true;
        try {
            co_await tg::sleep_for(1h);
        } catch (const tg::token_stopped&) {
            throw numbered(attempt);
        }
    }};
const tg::operation lead_of_sticky{{.name = "operation_retry_test_lead_of_sticky"},
                                   tg::lead{"operation_retry_test_sticky"},
                                   []() -> tg::task<unsigned> {
                                       co_await sticky(1);
                                       co_return tg::this_token::core();
                                   }};
const tg::operation drops{{.name = "operation_retry_test_drops"},
                          [] { const auto dropped = third(counted(1)); }};

// What runs on one core, in order: attempts, and others.
std::string order;
const tg::operation fails_in_a_crowd{
    {.name = "operation_retry_test_in_a_crowd", .retry = {.attempts = 4, .backoff = 0ms}}, [] {
        order += 'a';
        throw numbered(1);
    }};
const tg::operation other{{.name = "operation_retry_test_other"}, []() -> tg::task<> {
                              for (int i = 0; i < 100; ++i) {
                                  order += 'o';
                                  co_await tg::yield();
                              }
                          }};
tg::task<> be_a_crowd() {
    CHECK_THROWS_AS(co_await tg::when_all(fails_in_a_crowd(), other(), other()), numbered);
}
const tg::operation crowd{{.name = "operation_retry_test_crowd"}, be_a_crowd};
const tg::operation chained_crowd{
    {.name = "operation_retry_test_chained_crowd"},
    tg::lead{"operation_retry_test_in_a_crowd", "operation_retry_test_other"},
    be_a_crowd};

/// Until the token, which runs on this loop, waits to be attempted again.
tg::task<> backing_off(const tg::token<void>& token) {
    const auto& record = tg::detail::token_access::record(token);
    while (record.state.load() < tg::token_state::executing || !record.waits_at())
        co_await tg::yield();
}

struct settled {
    explicit settled(const tg::runtime& of) : runtime(of) { noted = {}; }
    ~settled() { check_settled(runtime); }
    const tg::runtime& runtime;
};

/// The number of the attempt whose failure the token ends with.
template <class Token>
tg::task<unsigned> failed_attempt(Token token) {
    try {
        co_await token;
    } catch (const numbered& failure) {
        co_return failure.attempt;
    }
    co_return 0;
}

template <class... Arguments>
std::string refusal_of(Arguments&&... arguments) {
    try {
        const tg::operation refused(std::forward<Arguments>(arguments)...);
    } catch (const tg::configuration_error& said) {
        return said.what();
    }
    return {};
}

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

}  // namespace

TEST_SUITE("operation retry") {
    TEST_CASE("until it succeeds: each attempt is a token of its own; results of any kind") {
        counted::reset();
        const std::size_t before = live_slots();
        {
            tg::runtime runtime{{.cores = 2}};
            const settled check(runtime);
            runtime.run([]() -> tg::task<> {
                const auto owned = co_await third(counted(1));
                CHECK(*owned == 3);
                CHECK(noted.attempts() == 3);
                CHECK(noted.different_tokens() == 3);
                CHECK(noted.names == std::vector<std::string>(3, "operation_retry_test_third"));
                noted = {};
                co_await third_routine(counted(1));
                CHECK(noted.different_tokens() == 3);
                noted = {};
                int place = 1;
                int& referred = co_await third_refers(std::ref(place));
                CHECK(&referred == &place);
                CHECK(noted.different_tokens() == 3);
            });
            CHECK(runtime.snapshot().retries == 6);
            CHECK(counted::alive() == 0);
            CHECK(counted::wrongly_destroyed() == 0);
        }
        CHECK(live_slots() == before);
    }

    TEST_CASE("one that succeeds at once is attempted once") {
        tg::runtime runtime{{.cores = 2}};
        const settled check(runtime);
        const tg::operation first{{.name = "operation_retry_test_first", .retry = {.attempts = 3}},
                                  [] { return succeed_at(1); }};
        CHECK(runtime.run([&]() -> tg::task<unsigned> { co_return co_await first(); }) == 1);
        CHECK(runtime.snapshot().retries == 0);
    }

    TEST_CASE(
        "the last failure is the awaiter's, also in a group; a detached one's is the handler's") {
        std::atomic<unsigned> heard{0};
        {
            tg::runtime runtime{{.cores = 2, .on_failure = [&](const tg::failure& failed) {
                                     try {
                                         std::rethrow_exception(failed.error);
                                     } catch (const numbered& failure) {
                                         heard = failure.attempt;
                                     }
                                 }}};
            const settled check(runtime);
            runtime.run([]() -> tg::task<> {
                CHECK(co_await failed_attempt(never()) == 3);
                CHECK(noted.attempts() == 3);
                noted = {};
                CHECK_THROWS_AS(co_await tg::when_all(never(), good()), numbered);
                CHECK(noted.attempts() == 3);
                noted = {};
                never().admit();
            });
            CHECK(noted.attempts() == 3);
        }
        CHECK(heard == 3);
    }

    TEST_CASE("retry_if has the last word; what it throws is the failure") {
        tg::runtime runtime{{.cores = 2}};
        const settled check(runtime);
        runtime.run([]() -> tg::task<> {
            CHECK_THROWS_AS(co_await sometimes(), hopeless);
            CHECK(noted.attempts() == 4);
            noted = {};
            CHECK_THROWS_AS(co_await decides_badly(), std::logic_error);
            CHECK(noted.attempts() == 1);
        });
    }

    TEST_CASE("retry_on: these types and what is derived from them") {
        const auto of = [](auto failure) { return std::make_exception_ptr(failure); };
        CHECK(tg::retry_on<numbered>(of(numbered(1))));
        CHECK(tg::retry_on<numbered>(of(hopeless(1))));
        CHECK_FALSE(tg::retry_on<hopeless>(of(numbered(1))));
        CHECK(tg::retry_on<hopeless, int>(of(1)));
        CHECK_FALSE(tg::retry_on<hopeless, int>(of(1L)));
        CHECK_FALSE(tg::retry_on<>(of(1)));
    }

    TEST_CASE("what was stopped, killed or refused is not attempted again") {
        tg::runtime runtime{{.cores = 2}};
        const settled check(runtime);
        runtime.run([]() -> tg::task<> {
            const std::pair<std::exception_ptr, std::size_t> all[] = {
                {std::make_exception_ptr(tg::token_killed("")), 1},
                {std::make_exception_ptr(tg::token_stopped("")), 1},
                {std::make_exception_ptr(tg::admission_rejected("")), 1},
                {std::make_exception_ptr(tg::gate_closed("")), 1},
                {std::make_exception_ptr(tg::token_timeout("")), 5},
                {std::make_exception_ptr(std::runtime_error("")), 5},
                {std::make_exception_ptr(1), 5}};
            for (const auto& [failure, attempts] : all) {
                noted = {};
                bool failed = false;
                try {
                    co_await throws_it(failure);
                } catch (...) {
                    failed = std::current_exception() == failure;
                }
                CHECK(failed);
                CHECK(noted.attempts() == attempts);
            }
        });
    }

    TEST_CASE("what the gate has killed is not attempted again, even if it fails in its own way") {
        tg::runtime runtime{{.cores = 2}};
        const settled check(runtime);
        runtime.run([&]() -> tg::task<> {
            // By the id of its handle, of the attempt, by its operation; in the backoff.
            for (const int how : {0, 1, 2, 3}) {
                sulked = 0;
                tg::token<void> call = how == 3 ? fails_for_long() : defies();
                const tg::token_id id = call.id();
                call.admit();
                co_await until([&] { return sulked == 1; });
                tg::token_id attempt;
                for (const tg::token_info& each : runtime.tokens())
                    if (each.awaited_by_sequence == id.sequence) attempt = each.id;
                if (how == 3) co_await until([] { return backs_off.load(); });
                switch (how) {
                    case 1: CHECK(runtime.gate().kill(attempt, "test") == 1); break;
                    case 2:
                        CHECK(runtime.gate().kill("operation_retry_test_defies", "test") >= 1);
                        break;
                    default: CHECK(runtime.gate().kill(id, "test") == 1);
                }
                std::string text = "(nothing)";
                try {
                    co_await call;
                } catch (const std::exception& error) {
                    text = error.what();
                }
                CAPTURE(how);
                CAPTURE(text);
                CHECK(contains(text, how == 3 ? "killed: test" : "sulking"));
                CHECK(sulked == 1);
            }
            CHECK(runtime.snapshot().retries == 0);
        });
    }

    TEST_CASE("the timeout is each attempt's, and retried") {
        counted::reset();
        tg::runtime runtime{{.cores = 2}};
        const settled check(runtime);
        std::string text;
        runtime.run([&]() -> tg::task<> {
            try {
                co_await late(counted(1));
            } catch (const tg::token_timeout& said) {
                text = said.what();
            }
        });
        CHECK(contains(text, "operation_retry_test_late"));
        CHECK(contains(text, " 2ms"));
        CHECK(runtime.snapshot().retries == 2);
        CHECK(counted::alive() == 0);
    }

    TEST_CASE("one in time after others that were not") {
        tg::runtime runtime{{.cores = 2}};
        const settled check(runtime);
        CHECK(runtime.run([]() -> tg::task<unsigned> { co_return co_await late_at_first(); }) == 3);
        CHECK(runtime.snapshot().retries == 2);
    }

    TEST_CASE("a stop ends the backoff, and there is no attempt after it") {
        counted::reset();
        tg::runtime runtime{{.cores = 2}};
        const settled check(runtime);
        runtime.run([]() -> tg::task<> {
            tg::token<void> token = waits_long(counted(1));
            token.admit();
            co_await backing_off(token);
            CHECK(noted.attempts() == 1);
            token.request_stop();
            CHECK_THROWS_AS(co_await token, tg::token_stopped);
            CHECK(noted.attempts() == 1);

            noted = {};
            tg::token<void> limited = waits_long(counted(1));
            limited.admit();
            co_await backing_off(limited);
            CHECK_THROWS_AS(co_await tg::with_timeout(std::move(limited), 1ms), tg::token_timeout);
            CHECK(noted.attempts() == 1);

            tg::token<void> unadmitted = waits_long(counted(1));
            noted = {};
            unadmitted.request_stop();
            CHECK_THROWS_AS(co_await unadmitted, tg::token_stopped);
            CHECK(noted.attempts() == 0);
        });
        CHECK(counted::alive() == 0);
    }

    TEST_CASE("an attempt that fails when asked to stop is the last, whatever it throws") {
        tg::runtime runtime{{.cores = 2}};
        const settled check(runtime);
        runtime.run([]() -> tg::task<> {
            sulking = false;
            tg::token<void> token = sulks();
            token.admit();
            co_await tg::test::until([] { return sulking.load(); });
            token.request_stop();
            CHECK(co_await failed_attempt(std::move(token)) == 1);
        });
        CHECK(runtime.snapshot().retries == 0);
    }

    TEST_CASE("the end of the runtime does not wait for another attempt") {
        tg::runtime runtime{{.cores = 2}};
        const settled check(runtime);
        runtime.start();
        auto backs_off = runtime.submit(waits_long(counted(1)));
        tg::test::wait_until([&] { return runtime.snapshot().ended == 1; });  // the first attempt
        CHECK(runtime.stop(tg::time_span::max(), 0s).complete());
        CHECK_THROWS(
            backs_off
                .get());  // stopped, or its failure if the stop came between that and the backoff
        CHECK(runtime.snapshot().retries == 0);
    }

    TEST_CASE("each attempt finds the arguments as they were given") {
        tg::runtime runtime{{.cores = 2}};
        const settled check(runtime);
        const std::string far(100, 'x');  // too long to be kept in place
        CHECK(runtime.run([&]() -> tg::task<unsigned> {
            co_return co_await eager(far, "y", "z");
        }) == 3);
        CHECK(noted.texts == std::vector<std::string>(3, far + "yz"));
    }

    TEST_CASE("others have their turn between two attempts, in a chain too") {
        for (const bool in_a_chain : {false, true}) {
            tg::runtime runtime{{.cores = 1}};
            const settled check(runtime);
            order.clear();
            runtime.run([&]() -> tg::task<> {
                if (in_a_chain)
                    co_await chained_crowd();
                else
                    co_await crowd();
            });
            std::string seen;
            for (const char each : order)
                if (each == 'a' || seen.empty() || seen.back() == 'a') seen += each;
            if (seen.front() == 'o') seen.erase(0, 1);
            if (seen.back() == 'o') seen.pop_back();
            CHECK(seen == "aoaoaoa");
        }
    }

    TEST_CASE("conducted: on the chain's core, with its seed, until its domain is gone") {
        tg::runtime runtime{{.cores = 3}};
        const settled check(runtime);
        const auto [core, seed] = runtime.run([]() -> tg::task<std::pair<unsigned, std::string>> {
            co_return co_await lead();
        });
        CHECK_FALSE(seed.empty());
        CHECK(noted.different_tokens() == 4);
        CHECK(noted.cores == std::vector<unsigned>(4, core));
        CHECK(noted.seeds == std::vector<std::string>(4, seed));
    }

    TEST_CASE("a lead that is attempted again leads a chain of its own each time") {
        tg::runtime runtime{{.cores = 3}};
        const settled check(runtime);
        runtime.run([]() -> tg::task<> { co_await leads_again(); });
        CHECK(std::set<std::string>(noted.seeds.begin(), noted.seeds.end()).size() == 3);
        CHECK(noted.seeds.front().size() == 64);
    }

    TEST_CASE("sticky: its key stays where it is, between attempts too") {
        tg::runtime runtime{{.cores = 4}};
        const settled check(runtime);
        runtime.run([&]() -> tg::task<> {
            for (int key = 0; key < 5; ++key) {
                noted = {};
                co_await sticky(key);
                CHECK(noted.attempts() == 10);
                CHECK(noted.different_cores() == 1);
            }
            CHECK(runtime.snapshot().pins == 0);
            noted = {};
            tg::token<void> token = sticky_waits(1);
            token.admit();
            co_await backing_off(token);
            CHECK(runtime.snapshot().pins == 1);
            token.request_stop();
            CHECK_THROWS_AS(co_await token, tg::token_stopped);
            CHECK(runtime.snapshot().pins == 0);
        });
    }

    TEST_CASE("sticky in a chain: where the chain is, and nothing is pinned") {
        tg::runtime runtime{{.cores = 4}};
        const settled check(runtime);
        const unsigned core =
            runtime.run([]() -> tg::task<unsigned> { co_return co_await lead_of_sticky(); });
        CHECK(noted.cores == std::vector<unsigned>(10, core));
        CHECK(runtime.snapshot().sticky_bypassed == 10);
        CHECK(runtime.snapshot().redirections == 0);

        const tg::operation looks{{.name = "operation_retry_test_looks"},
                                  tg::lead{"operation_retry_test_sticky_waits"},
                                  [&]() -> tg::task<std::uint64_t> {
                                      tg::token<void> token = sticky_waits(1);
                                      token.admit();
                                      co_await backing_off(token);
                                      const std::uint64_t pins = runtime.snapshot().pins;
                                      token.request_stop();
                                      CHECK_THROWS_AS(co_await token, tg::token_stopped);
                                      co_return pins;
                                  }};
        noted = {};
        CHECK(runtime.run([&]() -> tg::task<std::uint64_t> { co_return co_await looks(); }) == 0);
    }

    TEST_CASE("storage: between two attempts it holds no permit") {
        tg::runtime runtime{{.cores = 2, .storage = {.slow = 1}}};
        const settled check(runtime);
        runtime.run([&]() -> tg::task<> {
            tg::token<void> token = slow();
            token.admit();
            co_await backing_off(token);
            CHECK(runtime.gate().storage_in_use(tg::storage::slow) == 0);
            token.request_stop();
            CHECK_THROWS_AS(co_await token, tg::token_stopped);
        });
    }

    TEST_CASE("submitted from a foreign thread; dropped, inside and outside of a runtime") {
        counted::reset();
        const std::size_t before = live_slots();
        { auto dropped = third(counted(1)); }
        {
            tg::runtime runtime{{.cores = 2}};
            const settled check(runtime);
            runtime.start();
            CHECK(*runtime.submit(third(counted(1))).get() == 3);
            runtime.submit(drops()).get();
            CHECK(runtime.stop().complete());
        }
        CHECK(counted::alive() == 0);
        CHECK(live_slots() == before);
    }

    TEST_CASE("the backoff doubles up to its limit, less a random part") {
        using tg::detail::backoff_after;
        const tg::retry_options plain{.backoff = 10ms, .jitter = 0};
        CHECK(backoff_after(1, plain, 0.9) == 10ms);
        CHECK(backoff_after(2, plain, 0.9) == 20ms);
        CHECK(backoff_after(3, plain, 0.9) == 40ms);
        CHECK(backoff_after(12, plain, 0.9) == 20480ms);
        for (const unsigned attempt : {13U, 63U, 64U, 65U, ~0U})
            CHECK(backoff_after(attempt, plain, 0.9) == 30s);
        CHECK(backoff_after(1, {.backoff = 10ms, .max_backoff = 4ms, .jitter = 0}, 0) == 4ms);
        for (const unsigned attempt : {1U, 63U, 64U, ~0U})
            CHECK(backoff_after(attempt, {.backoff = 0ms}, 0.5) == 0ms);

        const tg::retry_options half{.backoff = 10ms};
        CHECK(backoff_after(1, half, 0) == 10ms);
        CHECK(backoff_after(1, half, 0.5) == 7500us);
        CHECK(backoff_after(2, half, 0.5) == 15ms);
        const double most = 1 - 0x1p-53;
        CHECK(backoff_after(1, half, most) >= 5ms);

        const tg::retry_options longest{
            .backoff = 1ns, .max_backoff = tg::time_span::max(), .jitter = 1};
        CHECK(backoff_after(63, longest, 0) == std::chrono::nanoseconds(std::int64_t{1} << 62));
        CHECK(backoff_after(64, longest, 0) == std::chrono::nanoseconds::max());
        for (const unsigned attempt : {1U, 30U, 63U, 64U})
            CHECK(backoff_after(attempt, longest, most) >= 0ns);
    }

    TEST_CASE(
        "options: what cannot be is refused; two operations of a name must agree; one attempt is "
        "none more") {
        const auto refused = [](tg::retry_options retry, const std::string& option) {
            const std::string text = refusal_of(
                tg::operation_options{.name = "operation_retry_test_refused", .retry = retry},
                [] {});
            CHECK(contains(text, "operation_retry_test_refused"));
            CHECK(contains(text, option));
        };
        refused({.attempts = 0}, "retry.attempts");
        refused({.backoff = -1ns}, "retry.backoff");
        refused({.max_backoff = -1ns}, "retry.max_backoff");
        refused({.jitter = -0.1}, "retry.jitter");
        refused({.jitter = 1.1}, "retry.jitter");
        refused({.jitter = std::numeric_limits<double>::quiet_NaN()}, "retry.jitter");

        tg::runtime runtime{{.cores = 1}};
        const auto takes = [](tg::retry_options retry) {
            const tg::operation_options options{.name = "operation_retry_test_same",
                                                .retry = retry};
            return refusal_of(options, [] {}).empty();
        };
        const tg::operation same{{.name = "operation_retry_test_same", .retry = {.attempts = 2}},
                                 [] {}};
        CHECK(takes({.attempts = 2}));
        CHECK_FALSE(takes({}));
        CHECK_FALSE(takes({.attempts = 3}));
        CHECK_FALSE(takes({.attempts = 2, .backoff = 1ms}));
        CHECK_FALSE(takes({.attempts = 2, .max_backoff = 1s}));
        CHECK_FALSE(takes({.attempts = 2, .jitter = 0}));
        CHECK_FALSE(takes({.attempts = 2, .retry_if = tg::retry_on<numbered>}));

        const tg::operation once{
            {.name = "operation_retry_test_once", .retry = {.attempts = 1, .backoff = 1h}},
            [] { return 1; }};
        const std::uint64_t before = runtime.snapshot().admitted;
        CHECK(runtime.run([&]() -> tg::task<int> { co_return co_await once(); }) == 1);
        CHECK(runtime.snapshot().admitted - before == 2);  // the main token, and it
    }

    TEST_CASE(
        "an operation that is destroyed before a token's first attempt says so and terminates") {
        const tg::test::child_result child = tg::test::in_child([]() -> std::string {
            std::signal(SIGABRT, SIG_DFL);  // doctest's handler would take it for its own
            tg::token<void> dangling;
            const tg::operation short_lived{
                {.name = "operation_retry_test_short_lived", .retry = {.attempts = 2}}, [] {}};
            dangling = short_lived();
            return "still there";
        });
        CHECK_FALSE(child.ended);
        CHECK(contains(child.complained,
                       "operation \"operation_retry_test_short_lived\" is being destroyed while 1 "
                       "of its tokens exist"));
    }

    TEST_CASE("arguments that cannot be copied: only without retries") {
        using owner = std::unique_ptr<int>;
        const auto text = refusal_of(tg::operation_options{.name = "operation_retry_test_move_only",
                                                           .retry = {.attempts = 2}},
                                     [](owner) {});
        CHECK(contains(text, "operation_retry_test_move_only"));
        CHECK(contains(text, "retry.attempts"));
        CHECK(contains(text, "copied"));
        const auto holds = [](std::vector<owner> all) { return all.size(); };
        CHECK_FALSE(refusal_of(tg::operation_options{.name = "operation_retry_test_holds",
                                                     .retry = {.attempts = 2}},
                               holds)
                        .empty());
        const tg::operation once{{.name = "operation_retry_test_holds"}, holds};
        tg::runtime runtime{{.cores = 1}};
        const std::size_t size = runtime.run([&]() -> tg::task<std::size_t> {
            std::vector<owner> three(3);
            co_return co_await once(std::move(three));
        });
        CHECK(size == 3);
        // What says it can be copied, and what can.
        static_assert(copyable<int> && copyable<std::string> && copyable<std::shared_ptr<owner>>);
        static_assert(copyable<std::vector<std::string>> && copyable<std::map<int, std::string>>);
        static_assert(copyable<std::optional<int>> && copyable<std::span<owner>>);
        static_assert(!copyable<owner> && !copyable<tg::token<int>> &&
                      !copyable<std::vector<tg::token<int>>>);
        static_assert(!copyable<std::map<int, owner>> &&
                      !copyable<std::vector<std::vector<owner>>>);
        static_assert(!copyable<std::optional<std::vector<owner>>> &&
                      !copyable<std::tuple<int, std::vector<owner>>>);
        static_assert(!copyable<std::pair<std::vector<owner>, int>> &&
                      !copyable<std::variant<std::vector<owner>>>);
    }
}
