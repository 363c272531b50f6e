// SPDX-License-Identifier: MIT

#include <tokengate/this_token.hpp>

#include "support/manual_event.hpp"

#include <tokengate/error.hpp>
#include <tokengate/operation.hpp>
#include <tokengate/runtime.hpp>
#include <tokengate/when_all.hpp>

#include <doctest/doctest.h>

#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace tg = tokengate;
namespace this_token = tokengate::this_token;

namespace {

struct seen {
    tg::token_id id;
    unsigned core;
    unsigned executor;
    std::string seed;
    std::string operation;
};

seen look() {
    return {this_token::id(), this_token::core(), this_token::executor(),
            std::string(this_token::seed()), std::string(this_token::operation())};
}

const tg::operation looks{{.name = "this_token_test_looks"}, look};
const tg::operation looks_light{
    {.name = "this_token_test_looks_light", .weight = tg::weight::light}, look};
const tg::operation looks_in_lead{{.name = "this_token_test_lead"},
                                  tg::lead{"this_token_test_looks"},
                                  []() -> tg::task<seen> { co_return look(); }};

tg::task<seen> look_in_task() { co_return look(); }
const tg::operation looks_twice{{.name = "this_token_test_twice"}, []() -> tg::task<bool> {
                                    const seen before = look();
                                    const seen in_task = co_await look_in_task();
                                    const seen other = co_await looks();
                                    const seen after = look();
                                    co_return before.id == in_task.id&& before.id == after.id &&
                                        !(other.id == before.id) &&
                                        after.operation == "this_token_test_twice" &&
                                        before.core == after.core;
                                }};

template <class F>
std::string refusal_of(F f) {
    try {
        f();
    } catch (const tg::wrong_thread& error) {
        return error.what();
    }
    return "nothing was thrown";
}

}  // namespace

TEST_SUITE("this_token") {
    TEST_CASE("says who and where the running token is") {
        tg::runtime runtime{{.cores = 3}};
        runtime.run([]() -> tg::task<> {
            tg::token<seen> made = looks();
            const tg::token_id id = made.id();
            const seen it = co_await made;
            CHECK(it.id == id);
            CHECK(it.operation == "this_token_test_looks");
            CHECK(it.core >= 1);  // medium
            CHECK(it.core < 3);
            CHECK(it.executor == it.core);
            CHECK(it.seed.empty());

            const seen light = co_await looks_light();
            CHECK(light.core == 2);
        });
    }

    TEST_CASE("in a plain task, and after every await, it is still the token that runs") {
        tg::runtime runtime{{.cores = 2}};
        const int right = runtime.run([]() -> tg::task<int> {
            std::vector<tg::token<bool>> all;
            for (int i = 0; i < 100; ++i) all.push_back(looks_twice());
            int yes = 0;
            for (const bool same : co_await tg::when_all(std::move(all))) yes += same;
            co_return yes;
        });
        CHECK(right == 100);
    }

    TEST_CASE("the main coroutine runs on the control loop, which is no core") {
        tg::runtime runtime{{.cores = 2}};
        const seen main = runtime.run(look_in_task());
        CHECK(main.operation == "main");
        CHECK(main.core == tg::control_core);
        CHECK(main.executor == tg::control_core);
        CHECK(main.seed.empty());
    }

    TEST_CASE("a lead has a seed") {
        tg::runtime runtime{{.cores = 2}};
        runtime.run([]() -> tg::task<> {
            const seen lead = co_await looks_in_lead();
            CHECK(lead.seed.size() == 64);
        });
    }

    TEST_CASE("with several workers a core, core and executor differ") {
        constexpr unsigned cores = 2, workers = 3;
        tg::runtime runtime{{.cores = cores, .workers_per_core = workers}};
        CHECK(runtime.executors() == cores * workers);
        runtime.run([]() -> tg::task<> {
            std::vector<tg::token<seen>> all;
            for (int i = 0; i < 100; ++i) all.push_back(looks());
            for (const seen& each : co_await tg::when_all(std::move(all))) {
                CHECK(each.executor < cores * workers);
                CHECK(each.core == each.executor / workers);
            }
        });
    }

    TEST_CASE("outside of every token each of them throws wrong_thread") {
        const auto refused_here = [] {
            const std::string what = refusal_of([] { static_cast<void>(this_token::id()); });
            INFO(what);
            CHECK(what.find(
                      "wrong_thread: tokengate::this_token was asked outside of every token") == 0);
            CHECK(refusal_of([] { static_cast<void>(this_token::core()); }) == what);
            CHECK(refusal_of([] { static_cast<void>(this_token::executor()); }) == what);
            CHECK(refusal_of([] { static_cast<void>(this_token::seed()); }) == what);
            CHECK(refusal_of([] { static_cast<void>(this_token::operation()); }) == what);
        };
        refused_here();
        std::thread(refused_here).join();
        tg::runtime runtime{{.cores = 1}};
        runtime.run(look_in_task());
        refused_here();
    }
}
