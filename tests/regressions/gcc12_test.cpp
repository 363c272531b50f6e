// SPDX-License-Identifier: MIT

// Known faults of g++ 12's coroutines, and the spellings of this library that stay clear of them. What g++ 12 gets wrong
// whatever the library does (a closure or an aggregate with non-trivial members as a temporary inside a co_await expression
// is destroyed twice; a braced list of values as an awaited argument does not compile; `c ? x : f(co_await y)`) is spelled
// here as docs/how-to/gcc12.md advises: name it first.

#include "support/child.hpp"
#include "support/leaks.hpp"

#include <tokengate/operation.hpp>
#include <tokengate/runtime.hpp>
#include <tokengate/when_all.hpp>

#include <doctest/doctest.h>

#include <coroutine>
#include <csignal>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace tg = tokengate;
using tg::test::counted;

namespace {

const std::string long_text = "a text that is too long to be kept in the string object itself";

/// Not an aggregate: it may be braced inside a co_await expression.
class labelled {
public:
    labelled(std::string label, counted value)
        : label_(std::move(label)), value_(std::move(value)) {}
    [[nodiscard]] int number() const { return value_.number() + (label_ == long_text ? 0 : 1000); }

private:
    std::string label_;
    counted value_;
};

struct aggregate {
    std::string label;
    counted value;
};

const tg::operation number_of{{.name = "gcc12_test_number_of"}, [](std::string text, counted kept) {
                                  return kept.number() + (text == long_text ? 0 : 1000);
                              }};
const tg::operation number_by_reference{{.name = "gcc12_test_number_by_reference"},
                                        [](const std::string& text, const counted& kept) {
                                            return kept.number() + (text == long_text ? 0 : 1000);
                                        }};
const tg::operation echo{{.name = "gcc12_test_echo"},
                         [](std::string text) -> tg::task<std::string> { co_return text; }};
const tg::operation give_back{{.name = "gcc12_test_give_back"}, [](counted kept) { return kept; }};
const tg::operation of_labelled{{.name = "gcc12_test_labelled"},
                                [](labelled it) { return it.number(); }};
const tg::operation of_aggregate{{.name = "gcc12_test_aggregate"},
                                 [](const aggregate& it) { return it.value.number(); }};
const tg::operation sum_of{{.name = "gcc12_test_sum"}, [](const std::vector<counted>& all) {
                               int sum = 0;
                               for (const counted& each : all) sum += each.number();
                               return sum;
                           }};
const tg::operation below{{.name = "gcc12_test_below"},
                          [](counted n, int limit) { return n.number() < limit; }};
const tg::operation fails{{.name = "gcc12_test_fails"}, [](counted kept, std::string text) -> int {
                              throw std::runtime_error(text + std::to_string(kept.number()));
                          }};

tg::task<int> subroutine(std::string text, counted kept) {
    co_return kept.number() + (text == long_text ? 0 : 1000);
}

#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 13
/// No local in the outermost block, and an await in a condition: g++ 12 gets its promise wrong, and the body never runs.
tg::task<int> trap() {
    if (co_await subroutine("", counted(1))) co_return 1;
    co_return 0;
}

/// What an await makes, and what it gives, of several sizes.
template <int size>
struct wide {
    char bytes[size];

    bool await_ready() const noexcept { return true; }
    void await_suspend(std::coroutine_handle<>) const noexcept {}
    wide await_resume() const noexcept { return *this; }
    explicit operator bool() const noexcept { return bytes[0] != 0; }
};
template <int size>
tg::task<int> wide_trap() {
    if (co_await wide<size>{} || co_await wide<8>{}) co_return 1;
    co_return 0;
}
template <int size>
tg::task<int> named() {
    const wide<size> got = co_await wide<size>{};
    if (got) co_return 1;
    co_return 0;
}

/// Each copy makes a frame: between that of the coroutine it is a parameter of, and the look at it.
struct makes_a_frame {
    makes_a_frame() = default;
    makes_a_frame(const makes_a_frame&) { tg::task<int> made = named<64>(); }
    makes_a_frame& operator=(const makes_a_frame&) = delete;
    ~makes_a_frame() = default;
};
tg::task<int> trap_with_parameter(makes_a_frame) {
    if (co_await wide<32>{}) co_return 1;
    co_return 0;
}
tg::task<int> named_with_parameter(makes_a_frame) { co_return 1; }

/// What a process complains of that calls what would be lost.
template <class Call>
std::string complaint(Call call) {
    const tg::test::child_result child = tg::test::in_child([&]() -> std::string {
        std::signal(SIGABRT, SIG_DFL);  // doctest's handler would take it for its own
        call();
        return "called";
    });
    return child.ended ? "none" : child.complained;
}
#endif

/// Runs a coroutine and sees that all it made was destroyed, once.
template <class Main>
void run_and_count(Main main) {
    counted::reset();
    {
        tg::runtime runtime{{.cores = 2}};
        runtime.run(std::move(main));
    }
    CHECK(counted::alive() == 0);
    CHECK(counted::wrongly_destroyed() == 0);
}

}  // namespace

TEST_SUITE("gcc12") {
    TEST_CASE("a closure with captures given to run") {
        counted::reset();
        int got = 0;
        {
            tg::runtime runtime{{.cores = 1}};
            got = runtime.run([kept = counted(7), text = long_text]() -> tg::task<int> {
                const int called = co_await number_of(text, kept);
                co_return called + kept.number();
            });
        }
        CHECK(got == 14);
        CHECK(counted::alive() == 0);
        CHECK(counted::wrongly_destroyed() == 0);
    }

    TEST_CASE("temporaries as arguments inside a co_await expression") {
        run_and_count([]() -> tg::task<> {
            for (int i = 0; i < 10; ++i) {
                const int by_value = co_await number_of(std::string(long_text), counted(i));
                CHECK(by_value == i);
                const int by_reference = co_await number_by_reference(long_text + "", counted(i));
                CHECK(by_reference == i);
                const int of_task = co_await subroutine(std::string(long_text), counted(i));
                CHECK(of_task == i);
                const std::string text = co_await echo(std::string(long_text));
                CHECK(text == long_text);
                const int sum = co_await sum_of(std::vector<counted>(3, counted(i)));
                CHECK(sum == 3 * i);
            }
        });
    }

    TEST_CASE("when_all of temporary tokens whose arguments are temporaries, in one expression") {
        run_and_count([]() -> tg::task<> {
            for (int i = 0; i < 10; ++i) {
                const auto [a, b, c] =
                    co_await tg::when_all(number_of(std::string(long_text), counted(i)),
                                          echo(long_text + long_text), give_back(counted(2 * i)));
                CHECK(a == i);
                CHECK(b == long_text + long_text);
                CHECK(c.number() == 2 * i);
            }
        });
    }

    TEST_CASE("a range-for over an awaited group keeps its results until the end") {
        run_and_count([]() -> tg::task<> {
            std::vector<tg::token<counted>> all;
            for (int i = 0; i < 20; ++i) all.push_back(give_back(counted(i)));
            int next = 0;
            for (const counted& each : co_await tg::when_all(std::move(all)))
                CHECK(each.number() == next++);
            CHECK(next == 20);
        });
    }

    TEST_CASE("braced arguments of a type with a constructor") {
        run_and_count([]() -> tg::task<> {
            const int inside = co_await of_labelled({long_text, counted(3)});
            CHECK(inside == 3);
            const int nested = co_await of_labelled(labelled{std::string(long_text), counted(4)});
            CHECK(nested == 4);
        });
    }

    TEST_CASE("aggregates, lists and closures named before the co_await") {
        run_and_count([]() -> tg::task<> {
            auto call = of_aggregate({long_text, counted(5)});
            const int five = co_await call;
            CHECK(five == 5);
            auto list = sum_of({counted(1), counted(2)});
            const int three = co_await list;
            CHECK(three == 3);
            const auto closure = [kept = counted(6)]() -> tg::task<int> {
                co_return kept.number();
            };
            const int six = co_await closure();
            CHECK(six == 6);
        });
    }

    TEST_CASE("an await inside the arguments of an await") {
        run_and_count([]() -> tg::task<> {
            const int n = co_await number_of(co_await echo(std::string(long_text)),
                                             co_await give_back(counted(9)));
            CHECK(n == 9);
        });
    }

    TEST_CASE("awaits as conditions, where the outermost block has a local") {
        run_and_count([]() -> tg::task<> {
            int rounds = 0;
            while (co_await below(counted(rounds), 5)) ++rounds;
            CHECK(rounds == 5);
            if (co_await below(counted(1), 2)) ++rounds;
            CHECK(rounds == 6);
            switch (co_await number_of(std::string(long_text), counted(3))) {
                case 3: ++rounds; break;
                default: rounds = 0;
            }
            CHECK(rounds == 7);
        });
    }

#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 13
    TEST_CASE("… where it has none, the call says so and terminates: its body would never run") {
        CHECK(complaint([] { static_cast<void>(trap()); }).find("co_await") != std::string::npos);
    }

    TEST_CASE("… whatever the size of what is awaited, and whatever else makes frames meanwhile") {
        const makes_a_frame parameter;
        const std::vector<std::string> complaints = {
            complaint([] { static_cast<void>(wide_trap<8>()); }),
            complaint([] { static_cast<void>(wide_trap<24>()); }),
            complaint([] { static_cast<void>(wide_trap<64>()); }),
            complaint([] { static_cast<void>(wide_trap<1000>()); }),
            complaint([] { static_cast<void>(wide_trap<40'000>()); }),
            complaint([&] { static_cast<void>(trap_with_parameter(parameter)); })};
        for (const std::string& each : complaints)
            CHECK(each.find("co_await") != std::string::npos);
        CHECK(complaint([&] {
                  static_cast<void>(named<8>());
                  static_cast<void>(named<40'000>());
                  static_cast<void>(named_with_parameter(parameter));
              }) == "none");
    }
#endif

    TEST_CASE("an exception out of an expression full of temporaries") {
        run_and_count([]() -> tg::task<> {
            std::string heard;
            try {
                const int n = co_await number_of(std::string(long_text),
                                                 counted(co_await fails(counted(1), "so ")));
                CHECK(n == 0);
            } catch (const std::runtime_error& error) {
                heard = error.what();
            }
            CHECK(heard == "so 1");
        });
    }

    TEST_CASE("tokens made in an expression that throws before they are awaited") {
        run_and_count([]() -> tg::task<> {
            const auto refuse = [](int n) -> int { throw std::runtime_error(std::to_string(n)); };
            std::string heard;
            try {
                co_await tg::when_all(give_back(counted(1)),
                                      number_of(std::string(long_text), counted(refuse(2))));
            } catch (const std::runtime_error& error) {
                heard = error.what();
            }
            CHECK(heard == "2");
        });
    }
}
