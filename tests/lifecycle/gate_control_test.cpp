// SPDX-License-Identifier: MIT

#include "lifecycle/runtime_core.hpp"
#include "lifecycle/service.hpp"
#include "support/settled.hpp"
#include "support/thrown.hpp"
#include "support/waiting.hpp"

#include <tokengate/tokengate.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <future>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace tg = tokengate;
using namespace std::chrono_literals;
using tg::test::blockade;
using tg::test::check_settled;
using tg::test::until;
using tg::test::wait_until;
using tg::test::what_of;

namespace {

std::atomic<int> ran{0}, others_ran{0};
std::mutex order_mutex;
std::vector<int> order;

const tg::operation works{{.name = "gate_control_test_works"}, [](int number) {
                              const std::scoped_lock lock(order_mutex);
                              order.push_back(number);
                              ++ran;
                          }};
const tg::operation others{{.name = "gate_control_test_others"}, [] { ++others_ran; }};
const tg::operation blocks{{.name = "gate_control_test_blocks", .weight = tg::weight::heavy},
                           [](blockade* at) { at->wait(); }};

std::atomic<bool> leave{false};
tg::task<> stay() {
    ++ran;
    while (!leave) co_await tg::sleep_for(100us);
}
const tg::operation stays{{.name = "gate_control_test_stays"}, stay};
const tg::operation stores{{.name = "gate_control_test_stores", .storage = tg::storage::slow},
                           stay};

std::atomic<int> children_ran{0};
const tg::operation child{{.name = "gate_control_test_child"}, [] { ++children_ran; }};
tg::task<> chain(int links) {
    ++ran;
    while (!leave) co_await tg::sleep_for(100us);
    for (int i = 0; i < links; ++i) co_await child();
}
const tg::operation lead{
    {.name = "gate_control_test_lead"}, tg::lead{"gate_control_test_child"}, chain};
const tg::operation leads_one{{.name = "gate_control_test_leads_one"},
                              tg::lead{"gate_control_test_stays"},
                              []() -> tg::task<> {
                                  ++ran;
                                  co_await stays();
                              }};
const tg::operation leads_for_a_time{{.name = "gate_control_test_leads_for_a_time", .timeout = 1h},
                                     tg::lead{"gate_control_test_stays"},
                                     []() -> tg::task<> {
                                         ++ran;
                                         stays().admit();
                                         co_await tg::sleep_for(1h);
                                     }};
const tg::operation stored_child{
    {.name = "gate_control_test_stored_child", .storage = tg::storage::slow},
    [] { ++children_ran; }};
const tg::operation leads_stored{{.name = "gate_control_test_leads_stored"},
                                 tg::lead{"gate_control_test_stored_child"},
                                 []() -> tg::task<> { co_await stored_child(); }};
const tg::operation stores_until{
    {.name = "gate_control_test_stores_until", .storage = tg::storage::slow},
    [](std::function<tg::task<>()> what) -> tg::task<> { co_await what(); }};
const tg::operation leads_many{{.name = "gate_control_test_leads_many"},
                               tg::lead{"gate_control_test_stays", "gate_control_test_leads_one"},
                               []() -> tg::task<> {
                                   ++ran;
                                   stays().admit();
                                   stores().admit();
                                   co_await leads_one();
                               }};
const tg::operation anchored{{.name = "gate_control_test_anchored"},
                             tg::sticky{"gate_control_test"},
                             [](int) { return stay(); }};

tg::task<int> grow(int depth);
const tg::operation grows{{.name = "gate_control_test_grows"}, grow};
tg::task<int> grow(int depth) {
    ++ran;
    while (!leave) co_await tg::sleep_for(100us);
    if (depth == 0) co_return 1;
    std::vector<tg::token<int>> children;
    children.push_back(grows(depth - 1));
    children.push_back(grows(depth - 1));
    int sum = 0;
    for (int each : co_await tg::when_all(std::move(children))) sum += each;
    co_return sum;
}

tg::task<int> grow_stored(int depth);
const tg::operation grows_stored{
    {.name = "gate_control_test_grows_stored", .storage = tg::storage::slow}, grow_stored};
tg::task<int> grow_stored(int depth) {
    ++ran;
    while (!leave) co_await tg::sleep_for(100us);
    if (depth == 0) co_return 1;
    std::vector<tg::token<int>> children;
    for (int i = 0; i < 3; ++i) children.push_back(grows_stored(depth - 1));
    int sum = 0;
    for (int each : co_await tg::when_all(std::move(children))) sum += each;
    co_return sum;
}
const tg::operation limited{{.name = "gate_control_test_limited", .timeout = 1h}, [] { ++ran; }};

tg::runtime* of = nullptr;
tg::task<bool> drain_in_scope(tg::scope&) {
    const tg::stop_report left = co_await of->gate().drain();
    co_return left.complete();
}
const tg::operation drains_in_scope{
    {.name = "gate_control_test_drains_in_scope"},
    []() -> tg::task<bool> { co_return co_await tg::with_scope(drain_in_scope); }};
const tg::operation awaits_held{{.name = "gate_control_test_awaits_held"}, []() -> tg::task<> {
                                    ++others_ran;
                                    co_await works(7);
                                }};

void reset() {
    ran = others_ran = children_ran = 0;
    leave = false;
    order.clear();
}

template <class T>
void admit_all(std::vector<tg::token<T>>& tokens) {
    for (tg::token<T>& each : tokens) each.admit();
}

template <class Error, class Awaited>
tg::task<std::string> error_of(Awaited awaited) {
    try {
        co_await std::move(awaited);
    } catch (const Error& error) {
        co_return error.what();
    }
    co_return "none";
}

bool has(const std::string& text, std::string_view part) {
    return text.find(part) != std::string::npos;
}

}  // namespace

TEST_SUITE("gate_control: pause and resume") {
    TEST_CASE("an operation that is paused waits at the gate, in order, and others pass") {
        reset();
        tg::runtime runtime{{.cores = 1}};
        runtime.run([&]() -> tg::task<> {
            tg::gate_control gate = runtime.gate();
            gate.pause("gate_control_test_works");
            CHECK(gate.paused("gate_control_test_works"));
            CHECK_FALSE(gate.paused());
            std::vector<tg::token<void>> tokens;
            for (int i = 0; i < 8; ++i)
                tokens.push_back(works(i));  // as many as any window has room for
            admit_all(tokens);
            co_await others();
            CHECK(others_ran == 1);
            CHECK(ran == 0);
            CHECK(runtime.snapshot().held == 8);
            for (const tg::token_info& info : runtime.tokens())
                if (info.id.operation == "gate_control_test_works")
                    CHECK(info.state == tg::token_state::waiting);
            CHECK(gate.resume("gate_control_test_works"));
            CHECK_FALSE(gate.resume("gate_control_test_works"));
            co_await tg::when_all(std::move(tokens));
            CHECK(ran == 8);
            CHECK(std::ranges::is_sorted(order));
            CHECK(runtime.snapshot().held == 0);
        });
        check_settled(runtime);
    }

    TEST_CASE("all are paused, but not the main coroutine; what is submitted waits too") {
        reset();
        tg::runtime runtime{{.cores = 2}};
        runtime.start();
        runtime.gate().pause();
        std::vector<std::future<void>> done;
        for (int i = 0; i < 10; ++i) done.push_back(runtime.submit(works(i)));
        wait_until([&] { return runtime.snapshot().held == 10; });
        CHECK(ran == 0);
        CHECK(runtime.snapshot().paused);
        CHECK(runtime.gate().resume());
        for (std::future<void>& each : done) each.get();
        CHECK(ran == 10);
        CHECK(runtime.stop(10s).complete());
        check_settled(runtime);
    }

    TEST_CASE("those that wait for a permit when the pause comes get none, and keep none") {
        reset();
        tg::runtime runtime{{.cores = 2, .storage = {.slow = 1}}};
        runtime.run([&]() -> tg::task<> {
            std::vector<tg::token<void>> tokens;
            for (int i = 0; i < 4; ++i) tokens.push_back(stores());
            admit_all(tokens);
            co_await until([] { return ran == 1; });
            runtime.gate().pause("gate_control_test_stores");
            leave = true;
            co_await until([&] { return runtime.snapshot().held == 3; });
            CHECK(ran == 1);
            CHECK(runtime.gate().storage_in_use(tg::storage::slow) == 0);
            runtime.gate().resume("gate_control_test_stores");
            co_await tg::when_all(std::move(tokens));
        });
        CHECK(ran == 4);
        check_settled(runtime);
    }

    TEST_CASE("those that wait for room when the pause comes are held when a core takes them") {
        reset();
        constexpr int all = 5000;  // more than a window
        tg::runtime runtime{{.cores = 1}};
        blockade block;
        runtime.run([&]() -> tg::task<> {
            tg::token<void> blocked = blocks(&block);
            blocked.admit();
            co_await until([&] { return block.blocking == 1; });
            std::vector<tg::token<void>> tokens;
            for (int i = 0; i < all; ++i) tokens.push_back(works(i));
            admit_all(tokens);
            co_await until([&] { return runtime.snapshot().waiting > 0; });
            runtime.gate().pause("gate_control_test_works");
            block.end();
            co_await blocked;
            co_await until([&] { return static_cast<int>(runtime.snapshot().held) + ran == all; });
            CHECK(ran < all);
            co_await others();  // the core is free
            runtime.gate().resume();
            co_await tg::when_all(std::move(tokens));
        });
        CHECK(ran == all);
        check_settled(runtime);
    }

    TEST_CASE("a conducted chain that has started is not cut; a lead that has not waits") {
        reset();
        tg::runtime runtime{{.cores = 2}};
        runtime.run([&]() -> tg::task<> {
            tg::token<void> started = lead(3), late = lead(3), alone = child();
            started.admit();
            co_await until([] { return ran == 1; });
            runtime.gate().pause();
            late.admit();
            alone.admit();
            leave = true;
            co_await started;
            CHECK(children_ran == 3);
            CHECK(ran == 1);
            CHECK(runtime.snapshot().held == 2);
            runtime.gate().resume();
            co_await late;
            co_await alone;
            CHECK(children_ran == 7);
        });
        check_settled(runtime);
    }

    TEST_CASE("one token, by its id; a chain, by its lead's") {
        reset();
        leave = true;
        tg::runtime runtime{{.cores = 2}};
        runtime.run([&]() -> tg::task<> {
            tg::token<void> held = works(1), passes = works(2), chain_held = lead(1);
            const tg::token_id id = held.id(), lead_id = chain_held.id();
            runtime.gate().pause(id);
            runtime.gate().pause(tg::chain_of{lead_id});
            held.admit();
            chain_held.admit();
            co_await passes;
            CHECK(ran == 1);
            CHECK(runtime.snapshot().held == 2);
            CHECK(runtime.gate().resume(id));
            co_await held;
            CHECK(ran == 2);
            CHECK(runtime.gate().resume(tg::chain_of{lead_id}));
            co_await chain_held;
        });
        check_settled(runtime);
    }

    TEST_CASE("two holds: each lets go only its own") {
        reset();
        tg::runtime runtime{{.cores = 1}};
        runtime.run([&]() -> tg::task<> {
            runtime.gate().pause();
            runtime.gate().pause("gate_control_test_works");
            tg::token<void> held = works(1);
            held.admit();
            CHECK(runtime.gate().resume("gate_control_test_works"));
            CHECK(runtime.snapshot().held == 1);
            CHECK(runtime.gate().resume());
            co_await held;
        });
        check_settled(runtime);
    }

    TEST_CASE("an operation that nobody has defined, an id of no token") {
        tg::runtime runtime{{.cores = 1}};
        CHECK_THROWS_AS(runtime.gate().pause("gate_control_test_typo"), tg::configuration_error);
        CHECK_THROWS_AS(runtime.gate().pause(tg::token_id{}), tg::configuration_error);
        CHECK_THROWS_AS(runtime.gate().kill("gate_control_test_typo", "test"),
                        tg::configuration_error);
        CHECK_THROWS_AS(static_cast<void>(runtime.gate().paused("gate_control_test_typo")),
                        tg::configuration_error);
        CHECK_FALSE(runtime.snapshot().paused);
    }

    TEST_CASE(
        "a stop ends those that are held, unrun, and a stop without a deadline lets them go "
        "first") {
        reset();
        {
            tg::runtime runtime{{.cores = 1}};
            runtime.start();
            runtime.gate().pause();
            std::future<void> done = runtime.submit(works(1));
            wait_until([&] { return runtime.snapshot().held == 1; });
            CHECK(runtime.stop(10s, 0s).complete());
            CHECK_THROWS_AS(done.get(), tg::token_stopped);
            CHECK(ran == 0);
            check_settled(runtime);
        }
        tg::runtime runtime{{.cores = 1}};
        runtime.start();
        runtime.gate().pause();
        std::future<void> done = runtime.submit(works(1));
        wait_until([&] { return runtime.snapshot().held == 1; });
        CHECK(runtime.stop().complete());
        done.get();
        CHECK(ran == 1);
    }

    TEST_CASE("a call with a time limit, by the id of its handle") {
        reset();
        tg::runtime runtime{{.cores = 1}};
        runtime.run([&]() -> tg::task<> {
            tg::token<void> call = limited();
            const tg::token_id id = call.id();
            runtime.gate().pause(id);
            call.admit();
            tg::task<void> heard = [](tg::token<void> of_call) -> tg::task<> {
                co_await std::move(of_call);
            }(std::move(call));
            tg::token<void> waits = tg::as_token(std::move(heard));
            waits.admit();
            co_await until([&] { return runtime.snapshot().held == 1; });
            CHECK(runtime.gate().resume(id));
            co_await waits;
            CHECK(ran == 1);
        });
        check_settled(runtime);
    }

    TEST_CASE(
        "a call with retries, by the id of its handle: also when it is between two attempts") {
        reset();
        static const tg::operation tries{
            {.name = "gate_control_test_tries", .retry = {.attempts = 2, .backoff = 0ns}},
            []() -> tg::task<> {
                if (++ran == 2) co_return;
                while (!leave) co_await tg::sleep_for(100us);
                throw std::runtime_error("try again");
            }};
        tg::runtime runtime{{.cores = 1}};
        runtime.start();
        tg::token<> call = tries();
        const tg::token_id id = call.id();
        auto ended = runtime.submit(std::move(call));
        wait_until([] { return ran == 1; });
        runtime.gate().pause(id);
        leave = true;
        wait_until([&] { return runtime.snapshot().held == 1; });
        CHECK(ran == 1);
        CHECK(runtime.gate().resume(id));
        ended.get();
        CHECK(ran == 2);
        CHECK(runtime.stop().complete());
        check_settled(runtime);
    }

    TEST_CASE("what is to stop is not held: its awaiter goes on") {
        reset();
        tg::runtime runtime{{.cores = 2}};
        blockade block;
        runtime.run([&]() -> tg::task<> {
            runtime.gate().pause("gate_control_test_works");
            tg::token<void> blocked = blocks(&block), parent = awaits_held();
            blocked.admit();
            co_await until([&] { return block.blocking == 1; });
            parent.request_stop();
            block.end();
            co_await blocked;
            const std::string never = co_await error_of<tg::token_stopped>(std::move(parent));
            CHECK(has(never, "token_stopped"));

            tg::token<void> running = awaits_held();
            running.admit();
            co_await until([&] { return runtime.snapshot().held == 1; });
            running.request_stop();
            const std::string text = co_await error_of<tg::token_stopped>(std::move(running));
            CHECK(has(text, "token_stopped"));
            CHECK(ran == 0);
            CHECK(runtime.snapshot().held == 0);
            runtime.gate().resume();
        });
        check_settled(runtime);
    }

    TEST_CASE(
        "a held token that is asked to stop, or whose time is over, does not wait for the resume") {
        reset();
        tg::runtime runtime{{.cores = 1}};
        runtime.run([&]() -> tg::task<> {
            runtime.gate().pause();
            auto limited = tg::with_timeout(works(1), 1ms);
            const std::string late = co_await error_of<tg::token_timeout>(std::move(limited));
            CHECK(has(late, "token_timeout"));
            tg::token<void> stopped = works(2);
            stopped.admit();
            stopped.request_stop();
            const std::string asked = co_await error_of<tg::token_stopped>(std::move(stopped));
            CHECK(has(asked, "token_stopped"));
            CHECK(ran == 0);
            CHECK(runtime.snapshot().held == 0);
            runtime.gate().resume();
        });
        check_settled(runtime);
    }
}

TEST_SUITE("gate_control: drain") {
    TEST_CASE("what came before ends, also what was held; what comes later is held") {
        reset();
        tg::runtime runtime{{.cores = 2}};
        runtime.run([&]() -> tg::task<> {
            runtime.gate().pause("gate_control_test_works");
            tg::token<void> held = works(1), later = works(2), running = stays();
            held.admit();
            running.admit();
            co_await until([] { return ran == 1; });
            tg::stop_report left = co_await runtime.gate().drain("gate_control_test_works");
            CHECK(left.complete());
            CHECK(ran == 2);
            later = works(3);
            later.admit();
            co_await others();
            CHECK(ran == 2);
            CHECK(runtime.snapshot().held == 1);
            left = co_await runtime.gate().drain("gate_control_test_stays", 2ms);
            REQUIRE(left.survivors.size() == 1);
            CHECK(left.survivors[0].id == running.id());
            leave = true;
            left = co_await runtime.gate().drain("gate_control_test_stays");
            CHECK(left.complete());
            CHECK(runtime.gate().resume());
            co_await later;
        });
        check_settled(runtime);
    }

    TEST_CASE(
        "when it is over it holds what comes, whenever that was made, and a later pause is not "
        "passed by") {
        reset();
        tg::runtime runtime{{.cores = 1}};
        runtime.start();
        tg::token<void> early = works(1), late = works(2);
        CHECK(runtime.gate().wait_drained("gate_control_test_works").complete());
        CHECK(runtime.gate().paused("gate_control_test_works"));
        auto first = runtime.submit(std::move(early));
        wait_until([&] { return runtime.snapshot().held == 1; });
        runtime.gate().pause();
        auto second = runtime.submit(std::move(late));
        wait_until([&] { return runtime.snapshot().held == 2; });
        CHECK(ran == 0);
        CHECK(runtime.gate().resume());
        first.get();
        second.get();
        CHECK(ran == 2);
        CHECK(runtime.stop().complete());
        check_settled(runtime);
    }

    TEST_CASE("when it is over, one that it meant and that has waited for it may still spawn") {
        reset();
        static const tg::operation drains_and_spawns{
            {.name = "gate_control_test_drains_and_spawns"}, []() -> tg::task<bool> {
                const tg::stop_report left = co_await of->gate().drain();
                co_await works(1);
                co_return left.complete();
            }};
        tg::runtime runtime{{.cores = 2}};
        of = &runtime;
        CHECK(runtime.run([]() -> tg::task<bool> { co_return co_await drains_and_spawns(); }));
        CHECK(ran == 1);
        check_settled(runtime);
    }

    TEST_CASE(
        "one token by its id, also the call with a time limit that had been held; a chain by its "
        "lead's") {
        reset();
        tg::runtime runtime{{.cores = 2}};
        runtime.run([&]() -> tg::task<> {
            tg::token<void> call = limited(), neighbour = limited();
            runtime.gate().pause(call.id());
            runtime.gate().pause(neighbour.id());
            call.admit();
            neighbour.admit();
            co_await until([&] { return runtime.snapshot().held == 2; });
            tg::stop_report left = co_await runtime.gate().drain(call.id());
            CHECK(left.complete());
            CHECK(ran == 1);
            CHECK(runtime.snapshot().held == 1);
            runtime.gate().resume();
            co_await call;
            co_await neighbour;

            tg::token<void> first = lead(3), second = lead(3);
            runtime.gate().pause(tg::chain_of{first.id()});
            first.admit();
            co_await until([&] { return runtime.snapshot().held == 1; });
            second.admit();
            co_await until([] { return ran == 3; });  // the second one
            leave = true;
            left = co_await runtime.gate().drain(tg::chain_of{first.id()});
            CHECK(left.complete());
            CHECK(ran == 4);
            runtime.gate().resume();
            co_await first;
            co_await second;
            CHECK(children_ran == 6);
        });
        check_settled(runtime);
    }

    TEST_CASE("a chain's child is drained by name while the chain runs: the chain is not cut") {
        reset();
        tg::runtime runtime{{.cores = 2}};
        runtime.run([&]() -> tg::task<> {
            tg::token<void> chain_a = lead(5);
            chain_a.admit();
            co_await until([] { return ran == 1; });
            const tg::stop_report left = co_await runtime.gate().drain("gate_control_test_child");
            CHECK(left.complete());  // there was none yet
            leave = true;
            co_await chain_a;
            CHECK(children_ran == 5);
            CHECK(runtime.gate().resume());
        });
        check_settled(runtime);
    }

    TEST_CASE(
        "a parent's children pass while their operation is drained, else it would never end") {
        reset();
        tg::runtime runtime{{.cores = 2}};
        runtime.run([&]() -> tg::task<> {
            tg::token<int> tree = grows(4);
            tree.admit();
            co_await until([] { return ran == 1; });
            tg::task<tg::stop_report> drained = runtime.gate().drain();
            leave = true;
            const tg::stop_report left = co_await std::move(drained);
            CHECK(left.complete());
            const int leaves = co_await tree;
            CHECK(leaves == 16);
            runtime.gate().resume();
        });
        check_settled(runtime);
    }

    TEST_CASE("children pass also when they have to wait for a permit") {
        reset();
        tg::runtime runtime{{.cores = 2, .storage = {.slow = 1}}};
        runtime.run([&]() -> tg::task<> {
            tg::token<int> tree = grows_stored(4);
            tree.admit();
            co_await until([] { return ran == 1; });
            tg::task<tg::stop_report> drained =
                runtime.gate().drain("gate_control_test_grows_stored");
            leave = true;
            const tg::stop_report left = co_await std::move(drained);
            CHECK(left.complete());
            const int leaves = co_await tree;
            CHECK(leaves == 81);
            runtime.gate().resume();
        });
        check_settled(runtime);
    }

    TEST_CASE("a call with a time limit that comes later is held, as is any") {
        reset();
        tg::runtime runtime{{.cores = 1}};
        runtime.run([&]() -> tg::task<> {
            const tg::stop_report left = co_await runtime.gate().drain("gate_control_test_limited");
            CHECK(left.complete());
            tg::token<void> later = limited();
            later.admit();
            co_await until([&] { return runtime.snapshot().held == 1; });
            co_await others();
            CHECK(ran == 0);
            runtime.gate().resume();
            co_await later;
            CHECK(ran == 1);
        });
        check_settled(runtime);
    }

    TEST_CASE("one that drains inside of a scope does not wait for its opener") {
        reset();
        tg::runtime runtime{{.cores = 1}};
        of = &runtime;
        CHECK(runtime.run([]() -> tg::task<bool> { co_return co_await drains_in_scope(); }));
        runtime.gate().resume();
        check_settled(runtime);
    }

    TEST_CASE(
        "from a thread of one's own: what has been submitted before is met; on a loop it is "
        "refused") {
        reset();
        tg::runtime runtime{{.cores = 2}};
        runtime.start();
        std::vector<std::future<void>> done;
        for (int i = 0; i < 100; ++i) done.push_back(runtime.submit(works(i)));
        CHECK(runtime.gate().wait_drained("gate_control_test_works").complete());
        CHECK(ran == 100);
        std::future<void> late = runtime.submit(works(100));
        wait_until([&] { return runtime.snapshot().held == 1; });
        CHECK(runtime.gate().resume("gate_control_test_works"));
        late.get();
        of = &runtime;
        static const tg::operation drains{
            {.name = "gate_control_test_drains"},
            [] { CHECK_THROWS_AS(of->gate().wait_drained(), tg::wrong_thread); }};
        runtime.submit(drains()).get();
        CHECK(runtime.stop(10s).complete());
    }

    TEST_CASE("of a runtime that has been stopped: gate_closed, at once") {
        tg::runtime stopped{{.cores = 1}};
        stopped.start();
        CHECK(stopped.stop().complete());
        CHECK_THROWS_AS(stopped.gate().wait_drained(), tg::gate_closed);
        tg::runtime another{{.cores = 1}};
        another.run([&]() -> tg::task<> {
            CHECK_THROWS_AS(co_await stopped.gate().drain(), tg::gate_closed);
        });
    }

    TEST_CASE("whoever drains, and who awaits him, is not waited for") {
        reset();
        tg::runtime runtime{{.cores = 2}};
        of = &runtime;
        static const tg::operation drains{
            {.name = "gate_control_test_drainer"}, []() -> tg::task<bool> {
                const tg::stop_report left = co_await of->gate().drain();
                co_return left.complete();
            }};
        static const tg::operation above{{.name = "gate_control_test_above"},
                                         []() -> tg::task<bool> { co_return co_await drains(); }};
        CHECK(runtime.run([&]() -> tg::task<bool> { co_return co_await above(); }));
        runtime.gate().resume();
    }
}

TEST_SUITE("gate_control: kill") {
    TEST_CASE(
        "one that waits for a permit, one that is held, one that waits on its core, one that "
        "runs") {
        reset();
        tg::runtime runtime{{.cores = 1, .storage = {.slow = 1}}};
        blockade block;
        runtime.run([&]() -> tg::task<> {
            tg::gate_control gate = runtime.gate();
            tg::token<void> running = stores(), for_permit = stores(), held = works(1);
            running.admit();
            for_permit.admit();
            co_await until([] { return ran == 1; });
            gate.pause("gate_control_test_works");
            held.admit();

            const tg::token_id permit_id = for_permit.id();
            CHECK(gate.kill(permit_id, "no more") == 1);
            const std::string text = co_await error_of<tg::token_killed>(std::move(for_permit));
            CHECK(text == "token_killed: " + permit_id.text() + " was killed: no more");

            CHECK(gate.kill(held.id(), "held") == 1);
            const std::string of_held = co_await error_of<tg::token_killed>(std::move(held));
            CHECK(has(of_held, "held"));
            gate.resume();

            tg::token<void> blocked = blocks(&block), admitted = works(2);
            blocked.admit();
            co_await until([&] { return block.blocking == 1; });
            admitted.admit();
            co_await tg::yield();
            CHECK(gate.kill(admitted.id(), "late") == 1);
            block.end();
            co_await blocked;
            const std::string of_admitted =
                co_await error_of<tg::token_killed>(std::move(admitted));
            CHECK(has(of_admitted, "late"));

            CHECK(gate.kill(running.id(), "operator") == 1);
            const std::string of_running = co_await error_of<tg::token_killed>(std::move(running));
            CHECK(has(of_running, "operator"));
            CHECK(order.empty());
            CHECK(gate.storage_in_use(tg::storage::slow) == 0);
        });
        check_settled(runtime);
    }

    TEST_CASE("a value that is returned all the same is the result") {
        reset();
        tg::runtime runtime{{.cores = 1}};
        static const tg::operation stubborn{{.name = "gate_control_test_stubborn"},
                                            []() -> tg::task<int> {
                                                ++ran;
                                                while (!tg::this_token::stop_requested()) {
                                                    auto pause = tg::sleep_for(100us);
                                                    try {
                                                        co_await pause;
                                                    } catch (const tg::token_stopped&) {}
                                                }
                                                co_return 7;
                                            }};
        const int result = runtime.run([&]() -> tg::task<int> {
            tg::token<int> work = stubborn();
            work.admit();
            co_await until([] { return ran == 1; });
            runtime.gate().kill(work.id(), "operator");
            co_return co_await work;
        });
        CHECK(result == 7);
        check_settled(runtime);
    }

    TEST_CASE("a body that computes finds it when it looks, while its loop has no turn") {
        static const auto look = [] {
            ++ran;
            while (!tg::this_token::stop_requested()) {}
            CHECK(tg::this_token::stop().stop_requested());
        };
        static const tg::operation looks{{.name = "gate_control_test_looks"}, look};
        static const tg::operation gives_up{
            {.name = "gate_control_test_gives_up"}, [] {
                look();
                throw tg::token_stopped("token_stopped: in its own words");
            }};
        static const tg::operation leads_looks{{.name = "gate_control_test_leads_looks"},
                                               tg::lead{"gate_control_test_looks"},
                                               []() -> tg::task<> { co_await looks(); }};
        static const tg::operation awaits_then{{.name = "gate_control_test_awaits_then"},
                                               []() -> tg::task<> {
                                                   look();
                                                   co_await tg::sleep_for(1h);
                                               }};
        tg::runtime runtime{{.cores = 1}};
        runtime.start();
        const auto kill_when_it_runs = [&](tg::token<> victim, auto how) {
            reset();
            const tg::token_id id = victim.id();
            auto ended = runtime.submit(std::move(victim));
            wait_until([] { return ran == 1; });
            how(id);
            return what_of<tg::token_killed>([&] { ended.get(); });
        };
        const auto kill_one = [&](const tg::token_id& id) {
            CHECK(runtime.gate().kill(id, "too\nlong") == 1);
        };
        CHECK(kill_when_it_runs(looks(), kill_one) == "nothing was thrown");
        CHECK(kill_when_it_runs(looks(), [&](const tg::token_id&) {
                  CHECK(runtime.gate().kill("gate_control_test_looks", "test") == 1);
              }) == "nothing was thrown");
        CHECK(kill_when_it_runs(looks(), [&](const tg::token_id&) {
                  runtime.gate().kill({}, "test");
              }) == "nothing was thrown");
        const std::string why = kill_when_it_runs(gives_up(), kill_one);
        CHECK(why.find("was killed: too long") != std::string::npos);
        const std::string later = kill_when_it_runs(awaits_then(), kill_one);
        CHECK(later.find("was killed: too long") != std::string::npos);
        const std::string chain = kill_when_it_runs(leads_looks(), [&](const tg::token_id& id) {
            runtime.gate().kill(tg::chain_of{id}, "test");
        });
        CHECK(chain == "nothing was thrown");
        // One that awaits it is killed, whatever lies between the two.
        static const tg::operation awaits_group{
            {.name = "gate_control_test_awaits_group"}, []() -> tg::task<> {
                auto both = tg::when_all(gives_up(), gives_up());
                co_await std::move(both);
            }};
        const std::string group = kill_when_it_runs(awaits_group(), kill_one);
        CHECK(group.find("gate_control_test_awaits_group") != std::string::npos);
        CHECK(group.find("was killed: too long") != std::string::npos);
        static const tg::operation shields{{.name = "gate_control_test_shields"},
                                           [](std::atomic<bool>* killed) -> tg::task<> {
                                               ++ran;
                                               const tg::detail::shielding deaf;
                                               while (!*killed) {}
                                               CHECK_FALSE(tg::this_token::stop_requested());
                                               co_return;
                                           }};
        std::atomic<bool> killed{false};
        CHECK(kill_when_it_runs(shields(&killed), [&](const tg::token_id& id) {
                  kill_one(id);
                  killed = true;
              }) == "nothing was thrown");
        CHECK(runtime.stop().complete());
        check_settled(runtime);
    }

    TEST_CASE(
        "another thread that holds its stop_token hears of it too, and of the runtime's stop") {
        static std::optional<tg::stop_token> given;
        static std::atomic<bool> is_given{false}, seen{false};
        static const tg::operation waits_for_other{{.name = "gate_control_test_waits_for_other"},
                                                   [] {
                                                       given = tg::this_token::stop();
                                                       is_given = true;
                                                       seen.wait(false);
                                                   }};
        for (const bool by_stop : {false, true}) {
            CAPTURE(by_stop);
            is_given = seen = false;
            tg::runtime runtime{{.cores = 1}};
            runtime.start();
            auto ended = runtime.submit(waits_for_other());
            wait_until([] { return is_given.load(); });
            CHECK_FALSE(given->stop_requested());
            std::thread other([] {
                wait_until([] { return given->stop_requested(); });
                seen = true;
                seen.notify_all();
            });
            if (by_stop)
                CHECK(runtime.stop(1h, 0s).complete());
            else
                runtime.gate().kill("gate_control_test_waits_for_other", "test");
            ended.get();
            other.join();
        }
    }

    TEST_CASE("an operation: all of it that there is, none of what comes later, nothing else") {
        reset();
        tg::runtime runtime{{.cores = 2, .storage = {.slow = 3}}};
        runtime.run([&]() -> tg::task<> {
            std::vector<tg::token<void>> tokens;
            for (int i = 0; i < 50; ++i) tokens.push_back(stores());
            tg::token<void> other = stays();
            other.admit();
            admit_all(tokens);
            co_await until([] { return ran == 4; });
            CHECK(runtime.gate().kill("gate_control_test_stores", "all of them") == 50);
            tg::token<void> later = stores();
            later.admit();
            for (tg::token<void>& each : tokens) {
                const std::string text = co_await error_of<tg::token_killed>(std::move(each));
                CHECK(has(text, "all of them"));
            }
            co_await until([] { return ran == 5; });  // the later one
            leave = true;
            co_await later;
            co_await other;
        });
        check_settled(runtime);
    }

    TEST_CASE("a conducted chain, with what it waits for; its neighbour goes on") {
        reset();
        tg::runtime runtime{{.cores = 2}};
        runtime.run([&]() -> tg::task<> {
            tg::token<void> chain_a = lead(1), chain_b = lead(1);
            chain_a.admit();
            chain_b.admit();
            co_await until([] { return ran == 2; });
            CHECK(runtime.gate().kill(tg::chain_of{chain_a.id()}, "stuck") == 1);
            const std::string text = co_await error_of<tg::token_killed>(std::move(chain_a));
            CHECK(has(text, "stuck"));
            leave = true;
            co_await chain_b;
            CHECK(children_ran == 1);
        });
        check_settled(runtime);
    }

    TEST_CASE(
        "a chain to its last link: nobody awaits it, it waits for a permit, it leads a chain of "
        "its own") {
        reset();
        tg::runtime runtime{
            {.cores = 2, .storage = {.slow = 1}, .on_failure = [](const tg::failure&) {}}};
        runtime.run([&]() -> tg::task<> {
            tg::token<void> holder = stores();  // of the only permit
            holder.admit();
            co_await until([] { return ran == 1; });
            tg::token<void> all = leads_many();
            all.admit();
            // It, one that nobody awaits, the inner lead and its child.
            co_await until([&] { return ran == 5 && runtime.snapshot().waiting_for_permit == 1; });
            CHECK(runtime.snapshot().domains == 2);
            CHECK(runtime.gate().kill(tg::chain_of{all.id()}, "stuck") >=
                  3);  // and the inner chain
            const std::string text = co_await error_of<tg::token_killed>(std::move(all));
            CHECK(has(text, "stuck"));
            co_await until([&] { return runtime.snapshot().domains == 0; });
            CHECK(runtime.snapshot().waiting_for_permit == 0);
            leave = true;
            co_await holder;
            CHECK(ran == 5);  // what waited for the permit has never begun
        });
        check_settled(runtime);
    }

    TEST_CASE("a chain whose lead has a time limit, by the id of the call's handle") {
        reset();
        tg::runtime runtime{{.cores = 2, .on_failure = [](const tg::failure&) {}}};
        runtime.run([&]() -> tg::task<> {
            tg::token<void> call = leads_for_a_time();
            const tg::token_id id = call.id();
            tg::token<std::string> heard =
                tg::as_token(error_of<tg::token_killed>(std::move(call)));
            heard.admit();
            co_await until([] { return ran == 2; });  // the lead, and a child that nobody awaits
            static_cast<void>(runtime.gate().kill(tg::chain_of{id}, "stuck"));
            const std::string text = co_await heard;
            CHECK(has(text, "stuck"));
            co_await until([&] { return runtime.snapshot().domains == 0; });
        });
        check_settled(runtime);
    }

    TEST_CASE(
        "a chain's child that waits for a permit starts although all is paused; by its operation "
        "it is killed") {
        reset();
        tg::runtime runtime{{.cores = 2, .storage = {.slow = 1}}};
        runtime.run([&]() -> tg::task<> {
            std::atomic<bool> let_go{false};
            const auto wait = [&]() -> tg::task<> {
                co_await until([&] { return let_go.load(); });
            };
            tg::token<void> holder = stores_until(wait);
            holder.admit();
            co_await until([&] { return runtime.gate().storage_in_use(tg::storage::slow) == 1; });
            tg::token<std::string> first = tg::as_token(error_of<tg::token_killed>(leads_stored()));
            first.admit();
            co_await until([&] { return runtime.snapshot().waiting_for_permit == 1; });
            CHECK(runtime.gate().kill("gate_control_test_stored_child", "wrong") == 1);
            const std::string text = co_await first;
            CHECK(has(text, "wrong"));
            CHECK(children_ran == 0);

            tg::token<void> second = leads_stored();
            second.admit();
            co_await until([&] { return runtime.snapshot().waiting_for_permit == 1; });
            runtime.gate().pause();
            let_go = true;
            co_await second;
            CHECK(children_ran == 1);
            runtime.gate().resume();
            co_await holder;
        });
        check_settled(runtime);
    }

    TEST_CASE("everything: pins and domains go, and one that nobody awaits is heard of") {
        reset();
        std::atomic<int> unheard{0};
        tg::runtime runtime{{.cores = 2, .on_failure = [&](const tg::failure& of) {
                                 try {
                                     std::rethrow_exception(of.error);
                                 } catch (const tg::token_killed&) {
                                     ++unheard;
                                 }
                             }}};
        runtime.run([&]() -> tg::task<> {
            std::vector<tg::token<void>> tokens;
            for (int i = 0; i < 10; ++i) {
                tokens.push_back(lead(1));
                tokens.push_back(anchored(i));
                tokens.push_back(stays());
            }
            admit_all(tokens);
            {
                tg::token<void> detached = stays();
                detached.admit();
            }
            co_await until([] { return ran == 31; });
            CHECK(runtime.gate().kill({}, "everything") == 31);
            int killed = 0;
            for (tg::token<void>& each : tokens) {
                const std::string text = co_await error_of<tg::token_killed>(std::move(each));
                killed += has(text, "everything");
            }
            CHECK(killed == 30);
        });
        CHECK(unheard == 1);
        check_settled(runtime);
    }

    TEST_CASE("rules are forgotten once they have met all whom they meant") {
        reset();
        leave = true;
        tg::runtime runtime{{.cores = 1}};
        runtime.run([&]() -> tg::task<> {
            CHECK(runtime.gate().kill("gate_control_test_stays", "nobody there") == 0);
            co_await stays();
            CHECK(ran == 1);
            runtime.gate().kill({}, "nobody there");
            tg::detail::runtime_core& core = tg::detail::runtime_access::core(runtime);
            co_await until([&] { return core.at_start == 0; });
            CHECK_FALSE(core.kills.any());
        });
    }
}
