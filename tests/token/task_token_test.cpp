// SPDX-License-Identifier: MIT

#include <tokengate/task_token.hpp>

#include "support/leaks.hpp"

#include <tokengate/error.hpp>
#include <tokengate/runtime.hpp>
#include <tokengate/this_token.hpp>
#include <tokengate/time.hpp>
#include <tokengate/when_all.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace tg = tokengate;
using namespace std::chrono_literals;
using tg::test::counted;
using tg::test::live_slots;

namespace {

tg::task<int> gives(int n) { co_return n; }
tg::task<std::unique_ptr<int>> owns(int n) { co_return std::make_unique<int>(n); }
tg::task<int&> refers(int* n) { co_return *n; }
tg::task<> fails(counted) {
    throw std::out_of_range("inside");
    co_return;
}
tg::task<counted> keeps(counted kept) { co_return kept; }

tg::task<std::string> seeds() {
    const auto inner = []() -> tg::task<std::string> {
        co_return std::string(tg::this_token::seed());
    };
    const std::string mine(tg::this_token::seed());
    const std::string child = co_await tg::as_token(inner());
    co_return mine == child ? mine : "another seed";
}
const tg::operation lead{{.name = "task_token_test_lead"}, tg::lead{"task"}, seeds};

}  // namespace

TEST_SUITE("as_token") {
    TEST_CASE("results of every kind, and exceptions; named task; on the loop that admits it") {
        counted::reset();
        const std::size_t before = live_slots();
        {
            tg::runtime runtime{{.cores = 2}};
            runtime.run([]() -> tg::task<> {
                int place = 3;
                CHECK(co_await tg::as_token(gives(4)) == 4);
                const auto owned = co_await tg::as_token(owns(5));
                CHECK(*owned == 5);
                int& referred = co_await tg::as_token(refers(&place));
                CHECK(&referred == &place);
                CHECK_THROWS_AS(co_await tg::as_token(fails(counted(1))), std::out_of_range);
                const unsigned here = tg::this_token::executor();
                const auto looks = [here]() -> tg::task<> {
                    CHECK(tg::this_token::executor() == here);
                    CHECK(tg::this_token::operation() == "task");
                    co_return;
                };
                co_await tg::as_token(looks());
                const auto [a, b] =
                    co_await tg::when_all(tg::as_token(gives(1)), tg::as_token(gives(2)));
                CHECK(a + b == 3);
            });
            const tg::snapshot now = runtime.snapshot();
            CHECK(now.admitted == now.ended);
        }
        CHECK(counted::alive() == 0);
        CHECK(live_slots() == before);
    }

    TEST_CASE("two interleave where one waits") {
        tg::runtime runtime{{.cores = 1}};
        std::string order;
        runtime.run([&]() -> tg::task<> {
            const auto sleeper = [&order]() -> tg::task<> {
                order += 's';
                co_await tg::sleep_for(1ms);
                order += 'S';
            };
            const auto other = [&order]() -> tg::task<> {
                order += 'o';
                co_return;
            };
            co_await tg::when_all(tg::as_token(sleeper()), tg::as_token(other()));
        });
        CHECK(order == "soS");
    }

    TEST_CASE("inherits the seed of its lead") {
        tg::runtime runtime{{.cores = 2}};
        const std::string seed =
            runtime.run([]() -> tg::task<std::string> { co_return co_await lead(); });
        CHECK(seed.size() == 64);
        CHECK(runtime.snapshot().domains == 0);
    }

    TEST_CASE("dropped unrun, made outside of a runtime, empty") {
        counted::reset();
        const std::size_t before = live_slots();
        { const tg::token<counted> dropped = tg::as_token(keeps(counted(1))); }
        CHECK(counted::alive() == 0);
        CHECK_THROWS_AS(static_cast<void>(tg::as_token(tg::task<int>())), tg::already_awaited);
        {
            tg::runtime runtime{{.cores = 1}};
            runtime.start();
            CHECK(runtime.submit(tg::as_token(gives(6))).get() == 6);
            CHECK(runtime.stop().complete());
        }
        CHECK(live_slots() == before);
    }
}
