// SPDX-License-Identifier: MIT

#include <tokengate/operation.hpp>

#include "support/child.hpp"
#include "support/leaks.hpp"
#include "support/manual_event.hpp"

#include <tokengate/error.hpp>
#include <tokengate/runtime.hpp>
#include <tokengate/this_token.hpp>
#include <tokengate/when_all.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <csignal>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace tg = tokengate;
using tg::test::counted;

// What does not compile is in tests/compile_fail, where it cannot be asked for here.

namespace {

int plain_function(int a, int b) { return a * b; }
int noexcept_function(int a) noexcept { return -a; }

const tg::operation calls_function{{.name = "operation_test_function"}, plain_function};
const tg::operation calls_noexcept{{.name = "operation_test_noexcept"}, &noexcept_function};
const tg::operation by_value{{.name = "operation_test_by_value"},
                             [](std::string s) { return s + "!"; }};
const tg::operation by_const_reference{{.name = "operation_test_by_const_reference"},
                                       [](const std::string& s) { return s.size(); }};
const tg::operation by_rvalue{{.name = "operation_test_by_rvalue"},
                              [](std::string&& s) { return std::string(std::move(s)) + "?"; }};
const tg::operation by_reference{{.name = "operation_test_by_reference"}, [](int& n) { ++n; }};
const tg::operation move_only{{.name = "operation_test_move_only"},
                              [](std::unique_ptr<int> p) { return std::make_unique<int>(*p + 1); }};
const tg::operation coroutine{
    {.name = "operation_test_coroutine"},
    [](std::unique_ptr<std::string> p, int times) -> tg::task<std::string> {
        std::string all;
        for (int i = 0; i < times; ++i) {
            const std::string one = co_await by_value(*p);
            all += one;
        }
        co_return all;
    }};

struct point {
    point(int x, int y) : x(x), y(y) {}
    int x, y;
};
const tg::operation takes_point{{.name = "operation_test_point"},
                                [](point p) { return p.x - p.y; }};
const tg::operation takes_vector{{.name = "operation_test_vector"},
                                 [](const std::vector<int>& all, std::optional<int> more) {
                                     return static_cast<int>(all.size()) + more.value_or(0);
                                 }};
const tg::operation takes_reference_wrapper{
    {.name = "operation_test_wrapper"}, [](std::reference_wrapper<std::string> s) -> tg::task<> {
        s.get() += " was here";
        co_return;
    }};

std::string global_text = "global";
const tg::operation returns_reference{{.name = "operation_test_reference"},
                                      []() -> std::string& { return global_text; }};
const tg::operation returns_const_reference{{.name = "operation_test_const_reference"},
                                            []() -> const std::string& { return global_text; }};
const tg::operation returns_rvalue{{.name = "operation_test_rvalue"},
                                   []() -> std::string&& { return std::move(global_text); }};
const tg::operation co_returns_reference{{.name = "operation_test_co_reference"},
                                         []() -> tg::task<std::string&> { co_return global_text; }};
const tg::operation returns_nothing{{.name = "operation_test_nothing"}, [] {}};

struct never_default {
    explicit never_default(int n) : n(n) {}
    never_default(never_default&&) = default;
    int n;
};
const tg::operation returns_never_default{{.name = "operation_test_never_default"},
                                          [](int n) { return never_default(n); }};

// Calls are no templates: what converts to the parameters is accepted, what does not is refused where a template can ask.
template <class Operation, class... Arguments>
concept callable_with = requires(const Operation& operation, Arguments&&... arguments) {
    operation(std::forward<Arguments>(arguments)...);
};
static_assert(callable_with<decltype(by_value), const char*>);
static_assert(callable_with<decltype(by_value), std::string&>);
static_assert(!callable_with<decltype(by_value), int*>);
static_assert(!callable_with<decltype(by_value)>);
static_assert(callable_with<decltype(move_only), std::unique_ptr<int>>);
static_assert(!callable_with<decltype(move_only), std::unique_ptr<int>&>,
              "it would have to be copied");
static_assert(callable_with<decltype(by_reference), std::reference_wrapper<int>>);
static_assert(!callable_with<decltype(by_reference), int&>,
              "a reference to outlive the call must be meant: std::ref");
static_assert(!callable_with<decltype(by_reference), int>);
template <class Operation>
concept temporary_callable = requires(Operation&& operation) { std::move(operation)(1); };
static_assert(!temporary_callable<tg::operation<int (*)(int)>>,
              "its token would call a dangling function");
static_assert(!std::is_copy_constructible_v<decltype(by_value)> &&
              !std::is_move_constructible_v<decltype(by_value)> &&
              !std::is_copy_assignable_v<decltype(by_value)>);
static_assert(std::is_same_v<decltype(returns_reference()), tg::token<std::string&>>);
static_assert(std::is_same_v<decltype(returns_rvalue()), tg::token<std::string>>);
static_assert(std::is_same_v<decltype(returns_nothing()), tg::token<void>>);
static_assert(std::is_same_v<decltype(coroutine(nullptr, 1)), tg::token<std::string>>);

template <class F>
std::string refusal_of(F f) {
    try {
        f();
    } catch (const tg::configuration_error& error) {
        return error.what();
    }
    return "nothing was thrown";
}

bool says(const std::string& what, std::string_view words) {
    INFO(what);
    const bool found = what.find(words) != std::string::npos;
    CHECK(found);
    return found;
}

int forget(int n) { return n; }
tg::task<int> forget_too(int n) { co_return n; }

thread_local int of_this_thread = 0;

}  // namespace

TEST_SUITE("operation") {
    TEST_CASE(
        "takes its parameters by value, const reference, rvalue and std::ref, also move-only "
        "ones") {
        tg::runtime runtime{{.cores = 2}};
        runtime.run([]() -> tg::task<> {
            const int product = co_await calls_function(6, 7);
            CHECK(product == 42);
            const int negative = co_await calls_noexcept(1);
            CHECK(negative == -1);

            const std::string text = "a text that is too long for a small string";
            const std::string louder = co_await by_value(text);
            CHECK(louder == text + "!");
            const std::size_t size = co_await by_const_reference(text);
            CHECK(size == text.size());
            const std::string asked = co_await by_rvalue(text);  // copied into the token
            CHECK(asked == text + "?");

            int n = 1;
            co_await by_reference(std::ref(n));
            CHECK(n == 2);

            const std::unique_ptr<int> next = co_await move_only(std::make_unique<int>(8));
            CHECK(*next == 9);

            std::unique_ptr<std::string> word = std::make_unique<std::string>("ho");
            const std::string all = co_await coroutine(std::move(word), 3);
            CHECK(all == "ho!ho!ho!");

            std::string mine = "Kilroy";
            co_await takes_reference_wrapper(mine);
            CHECK(mine == "Kilroy was here");
        });
    }

    TEST_CASE("arguments convert at the call, and braces work") {
        tg::runtime runtime{{.cores = 1}};
        runtime.run([]() -> tg::task<> {
            auto from_literal = by_value("literal");
            const std::string literal = co_await from_literal;
            CHECK(literal == "literal!");
            auto from_braces = takes_point({5, 3});
            const int two = co_await from_braces;
            CHECK(two == 2);
            auto from_list = takes_vector({1, 2, 3}, 4);
            const int seven = co_await from_list;
            CHECK(seven == 7);
            auto from_empty = takes_vector({}, {});
            const int zero = co_await from_empty;
            CHECK(zero == 0);
        });
    }

    TEST_CASE("results are values, references, nothing, or types without a default constructor") {
        tg::runtime runtime{{.cores = 1}};
        runtime.run([]() -> tg::task<> {
            global_text = "global";
            std::string& same = co_await returns_reference();
            CHECK(&same == &global_text);
            const std::string& same_const = co_await returns_const_reference();
            CHECK(&same_const == &global_text);
            std::string& same_again = co_await co_returns_reference();
            CHECK(&same_again == &global_text);
            const std::string taken = co_await returns_rvalue();  // as a value
            CHECK(taken == "global");
            co_await returns_nothing();
            never_default three = co_await returns_never_default(3);
            CHECK(three.n == 3);
        });
    }

    TEST_CASE("the operation owns its callable, and the token its arguments") {
        counted::reset();
        tg::runtime runtime{{.cores = 1}};
        {
            std::optional<counted> captured(std::in_place, 10);
            const tg::operation adds{
                {.name = "operation_test_owns"},
                [kept = *captured](const counted& n) { return kept.number() + n.number(); }};
            captured.reset();
            CHECK(counted::alive() == 1);
            std::optional<counted> argument(std::in_place, 5);
            tg::token<int> sum = adds(*argument);
            argument.reset();
            CHECK(counted::alive() == 2);
            CHECK(runtime.run([&]() -> tg::task<int> { co_return co_await sum; }) == 15);
            CHECK(counted::alive() == 1);
        }
        CHECK(counted::alive() == 0);
        CHECK(counted::wrongly_destroyed() == 0);
    }

    TEST_CASE("a coroutine's captures and arguments live through its suspensions") {
        counted::reset();
        tg::test::manual_event go;
        std::thread setter;
        tg::runtime runtime{{.cores = 2}};
        {
            const tg::operation adds{
                {.name = "operation_test_suspends"},
                [kept = counted(20)](tg::test::manual_event* event, counted n) -> tg::task<int> {
                    co_await *event;
                    co_return kept.number() + n.number();
                }};
            const int sum = runtime.run([&]() -> tg::task<int> {
                auto waiting = adds(&go, counted(3));
                waiting.admit();
                setter = std::thread([&go] { go.set(); });
                co_return co_await waiting;
            });
            setter.join();
            CHECK(sum == 23);
        }
        CHECK(counted::alive() == 0);
        CHECK(counted::wrongly_destroyed() == 0);
    }

    TEST_CASE("an argument whose constructor throws leaves nothing behind") {
        struct fussy {
            explicit fussy(int n) : kept(n) {}
            fussy(const fussy&) : kept(0) { throw std::string("copied"); }
            counted kept;
        };
        counted::reset();
        const std::size_t slots_before = tg::test::live_slots();
        {
            const tg::operation takes{{.name = "operation_test_fussy"},
                                      [](const fussy& f) { return f.kept.number(); }};
            const fussy original(1);
            CHECK_THROWS_AS(static_cast<void>(takes(original)), std::string);
        }
        CHECK(counted::alive() == 0);
        CHECK(tg::test::live_slots() == slots_before);
    }

    TEST_CASE("a token sees one thread for its whole life") {
        tg::runtime runtime{{.cores = 4}};
        std::atomic<int> strayed{0};
        const tg::operation watches{{.name = "operation_test_watches"},
                                    [&strayed](int n) -> tg::task<> {
                                        const std::thread::id here = std::this_thread::get_id();
                                        const unsigned executor = tg::this_token::executor();
                                        const int* const mine = &of_this_thread;
                                        for (int i = 0; i < 20; ++i) {
                                            of_this_thread = n;
                                            strayed += of_this_thread != n;
                                            co_await returns_nothing();
                                            strayed += std::this_thread::get_id() != here;
                                            strayed += tg::this_token::executor() != executor;
                                            strayed += &of_this_thread != mine;
                                        }
                                    }};
        runtime.run([&]() -> tg::task<> {
            std::vector<tg::token<>> all;
            for (int i = 0; i < 200; ++i) all.push_back(watches(i));
            co_await tg::when_all(std::move(all));
        });
        CHECK(strayed == 0);
    }

    TEST_CASE(
        "a name that two operations use with different options is refused when a runtime is made") {
        {
            const tg::operation one{{.name = "operation_test_twice", .weight = tg::weight::light},
                                    forget};
            const tg::operation other{{.name = "operation_test_twice", .weight = tg::weight::heavy},
                                      forget};
            const std::string what = refusal_of([] { tg::runtime runtime{{.cores = 1}}; });
            says(what, "configuration_error: two operations are named \"operation_test_twice\"");
        }
        {
            const tg::operation one{{.name = "operation_test_twice"}, forget};
            const tg::operation other{{.name = "operation_test_twice"}, tg::sticky{"key"}, forget};
            says(refusal_of([] { tg::runtime runtime{{.cores = 1}}; }), "operation_test_twice");
        }
        {
            const tg::operation one{{.name = "operation_test_twice"}, tg::lead{"a"}, forget_too};
            const tg::operation other{{.name = "operation_test_twice"}, tg::lead{"b"}, forget_too};
            says(refusal_of([] { tg::runtime runtime{{.cores = 1}}; }), "operation_test_twice");
        }
        CHECK_NOTHROW(tg::runtime({.cores = 1}));  // they are gone
    }

    TEST_CASE("… and by the operation's constructor while a runtime lives") {
        tg::runtime runtime{{.cores = 1}};
        const tg::operation one{{.name = "operation_test_late", .storage = tg::storage::fast},
                                forget};
        const std::string what = refusal_of([] {
            const tg::operation other{{.name = "operation_test_late", .storage = tg::storage::slow},
                                      forget};
        });
        says(what, "configuration_error: two operations are named \"operation_test_late\"");
    }

    TEST_CASE("a name that two operations use with the same options is fine") {
        tg::runtime runtime{{.cores = 1}};
        const tg::operation one{{.name = "operation_test_same", .weight = tg::weight::light},
                                forget};
        const tg::operation other{{.name = "operation_test_same", .weight = tg::weight::light},
                                  [](int n) { return n + 1; }};
        CHECK(one.name() == other.name());
        const int sum = runtime.run([&]() -> tg::task<int> {
            const int a = co_await one(1);
            const int b = co_await other(1);
            co_return a + b;
        });
        CHECK(sum == 3);
    }

    TEST_CASE("an option that does not exist is refused, with its name") {
        says(refusal_of([] {
                 const tg::operation wrong{
                     {.name = "operation_test_wrong", .weight = static_cast<tg::weight>(9)},
                     forget};
             }),
             "operation \"operation_test_wrong\": weight 9 does not exist");
        says(refusal_of([] {
                 const tg::operation wrong{
                     {.name = "operation_test_wrong", .storage = static_cast<tg::storage>(7)},
                     forget};
             }),
             "operation \"operation_test_wrong\": storage 7 does not exist");
    }

    TEST_CASE("operations made in a loop do not use up what a process may have of them") {
        for (int i = 0; i < 200'000; ++i)
            const tg::operation again{{.name = "operation_test_again"}, forget};
    }

    TEST_CASE("destroyed while one of its tokens exists, it says so and terminates") {
        const tg::test::child_result child = tg::test::in_child([]() -> std::string {
            std::signal(SIGABRT, SIG_DFL);  // doctest's handler would take it for its own
            tg::token<int> dangling;
            const tg::operation short_lived{{.name = "operation_test_short_lived"}, forget};
            dangling = short_lived(1);
            return "still there";
        });
        CHECK_FALSE(child.ended);
        says(child.complained,
             "operation \"operation_test_short_lived\" is being destroyed while 1 of its tokens "
             "exist");
    }
}
