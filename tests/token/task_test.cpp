// SPDX-License-Identifier: MIT

#include <tokengate/task.hpp>

#include "support/leaks.hpp"
#include "support/manual_event.hpp"

#include <tokengate/error.hpp>
#include <tokengate/operation.hpp>
#include <tokengate/runtime.hpp>

#include <doctest/doctest.h>

#include <pthread.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>

namespace tg = tokengate;
using tg::test::counted;

namespace {

tg::task<int> value(int n) { co_return n; }
tg::task<> nothing(int& ran) {
    ++ran;
    co_return;
}
tg::task<int&> reference(int& to) { co_return to; }
tg::task<const std::string&> const_reference(const std::string& to) { co_return to; }
tg::task<std::unique_ptr<int>> move_only(int n) { co_return std::make_unique<int>(n); }

struct exact {
    explicit exact(int n) : number(n) {}
    exact(const exact&) = delete;
    exact(exact&&) = default;
    int number;
};
tg::task<exact> non_default(int n) { co_return exact(n); }

tg::task<int> fails(std::string text) {
    if (!text.empty()) throw std::runtime_error(text);
    co_return 0;
}

struct own_type {
    int code;
};
tg::task<> fails_with(own_type thrown) {
    throw thrown;
    co_return;
}

tg::task<int> hold(counted kept) { co_return kept.number(); }

tg::task<std::int64_t> depth(int n) {
    if (n == 0) co_return 0;
    const std::int64_t below = co_await depth(n - 1);
    co_return below + 1;
}

tg::task<> fail_at_depth(int n, int& passed) {
    if (n == 0) throw own_type{17};
    try {
        co_await fail_at_depth(n - 1, passed);
    } catch (const own_type&) {
        ++passed;
        throw;
    }
}

tg::task<std::int64_t> count_up(int times) {
    std::int64_t sum = 0;
    for (int i = 0; i < times; ++i) {
        const int n = co_await value(1);
        sum += n;
    }
    co_return sum;
}

/// Runs on a thread whose stack has so many bytes.
void on_stack_of(std::size_t bytes, std::function<void()> body) {
    pthread_attr_t attributes;
    REQUIRE(pthread_attr_init(&attributes) == 0);
    REQUIRE(pthread_attr_setstacksize(&attributes, bytes) == 0);
    pthread_t thread;
    const auto run = [](void* of) -> void* {
        (*static_cast<std::function<void()>*>(of))();
        return nullptr;
    };
    REQUIRE(pthread_create(&thread, &attributes, run, &body) == 0);
    REQUIRE(pthread_join(thread, nullptr) == 0);
    pthread_attr_destroy(&attributes);
}

/// While it lives, threads made without attributes have so small a stack: a runtime's executors.
class default_stack_of {
public:
    explicit default_stack_of(std::size_t bytes) {
        REQUIRE(pthread_getattr_default_np(&before_) == 0);
        pthread_attr_t small;
        REQUIRE(pthread_getattr_default_np(&small) == 0);
        REQUIRE(pthread_attr_setstacksize(&small, bytes) == 0);
        REQUIRE(pthread_setattr_default_np(&small) == 0);
        pthread_attr_destroy(&small);
    }
    ~default_stack_of() {
        pthread_setattr_default_np(&before_);
        pthread_attr_destroy(&before_);
    }
    default_stack_of(const default_stack_of&) = delete;
    default_stack_of& operator=(const default_stack_of&) = delete;

private:
    pthread_attr_t before_;
};

constexpr std::size_t small_stack = 256 * 1024;
constexpr int many = 1'000'000;
constexpr int deep = 100'000;

const tg::operation one_more{{.name = "task_test_one_more"}, [](std::int64_t n) { return n + 1; }};
const tg::operation awaits_children{{.name = "task_test_lead"},
                                    tg::lead{"task_test_one_more"},
                                    [](int times) -> tg::task<std::int64_t> {
                                        std::int64_t sum = 0;
                                        for (int i = 0; i < times; ++i)
                                            sum = co_await one_more(sum);
                                        co_return sum;
                                    }};
const tg::operation counts_up{{.name = "task_test_count_up"}, count_up};
const tg::operation goes_deep{{.name = "task_test_depth"}, depth};

tg::task<std::int64_t> conducted_depth(int n);
const tg::operation conducted_child{{.name = "task_test_conducted_child"}, conducted_depth};
tg::task<std::int64_t> conducted_depth(int n) {
    if (n == 0) co_return 0;
    const std::int64_t below = co_await conducted_child(n - 1);
    co_return below + 1;
}
const tg::operation goes_deep_conducted{
    {.name = "task_test_conducted_lead"}, tg::lead{"task_test_conducted_child"}, conducted_depth};

/// A tree of tasks of random shape, some of which throw; `expected` is the same tree as plain functions.
struct tree {
    static int expected(std::mt19937& random, int levels) {
        const unsigned draw = random() % 16;
        if (draw == 0) throw own_type{levels};
        if (levels == 0) return 1;
        int sum = 1;
        for (unsigned i = 0; i < draw % 4; ++i) {
            try {
                const int below = expected(random, levels - 1);
                sum += below;
            } catch (const own_type& thrown) {
                sum += 1000 * thrown.code;
            }
        }
        return sum;
    }

    static tg::task<int> grow(std::mt19937& random, int levels, counted guard) {
        const unsigned draw = random() % 16;
        if (draw == 0) throw own_type{levels};
        if (levels == 0) co_return guard.number();
        int sum = guard.number();
        for (unsigned i = 0; i < draw % 4; ++i) {
            try {
                const int below = co_await grow(random, levels - 1, counted(1));
                sum += below;
            } catch (const own_type& thrown) {
                sum += 1000 * thrown.code;
            }
        }
        co_return sum;
    }
};

}  // namespace

TEST_SUITE("task") {
    TEST_CASE(
        "gives the awaiter its value, reference, void, move-only or non-default-constructible "
        "result") {
        tg::runtime runtime{{.cores = 1}};
        runtime.run([]() -> tg::task<> {
            const int seven = co_await value(7);
            CHECK(seven == 7);

            int ran = 0;
            co_await nothing(ran);
            CHECK(ran == 1);

            int& same = co_await reference(ran);
            CHECK(&same == &ran);

            const std::string text = "text";
            const std::string& same_text = co_await const_reference(text);
            CHECK(&same_text == &text);

            std::unique_ptr<int> owned = co_await move_only(8);
            CHECK(*owned == 8);

            exact nine = co_await non_default(9);
            CHECK(nine.number == 9);
        });
    }

    TEST_CASE("what run() is given is a task too: its result and its exception arrive") {
        tg::runtime runtime{{.cores = 1}};
        CHECK(runtime.run(value(3)) == 3);
        CHECK(*runtime.run(move_only(4)) == 4);
        int n = 0;
        CHECK(&runtime.run(reference(n)) == &n);
        CHECK_THROWS_WITH_AS(runtime.run(fails("so it is")), "so it is", std::runtime_error);
    }

    TEST_CASE("an exception arrives as itself, whatever its type") {
        tg::runtime runtime{{.cores = 1}};
        runtime.run([]() -> tg::task<> {
            std::string heard;
            try {
                co_await fails("as itself");
            } catch (const std::runtime_error& error) {
                heard = error.what();
            }
            CHECK(heard == "as itself");

            int code = 0;
            try {
                co_await fails_with({42});
            } catch (const own_type& thrown) {
                code = thrown.code;
            }
            CHECK(code == 42);
        });
    }

    TEST_CASE("an empty task says that it was awaited or moved from") {
        tg::runtime runtime{{.cores = 1}};
        runtime.run([]() -> tg::task<> {
            std::string heard;
            const auto await_it = [&heard](tg::task<int> empty) -> tg::task<> {
                try {
                    co_await std::move(empty);
                } catch (const tg::already_awaited& error) {
                    heard = error.what();
                }
            };
            tg::task<int> never_held_any;
            co_await await_it(std::move(never_held_any));
            CHECK(heard.find("already_awaited: this task is empty") == 0);

            heard.clear();
            tg::task<int> from = value(1);
            tg::task<int> to = std::move(from);
            co_await await_it(
                std::move(from));  // NOLINT(bugprone-use-after-move): that is the case
            CHECK(heard.find("already_awaited") == 0);
            const int one = co_await std::move(to);
            CHECK(one == 1);

            heard.clear();
            try {
                co_await std::move(to);  // NOLINT(bugprone-use-after-move)
            } catch (const tg::already_awaited& error) {
                heard = error.what();
            }
            CHECK(heard.find("already_awaited") == 0);
        });
        CHECK_THROWS_AS(runtime.run(tg::task<int>()), tg::already_awaited);
    }

    TEST_CASE("never awaited, it never runs, and its arguments go with it") {
        counted::reset();
        int ran = 0;
        {
            tg::task<> unrun = nothing(ran);
            tg::task<int> holds = hold(counted(1));
            CHECK(counted::alive() == 1);
            holds = hold(counted(2));  // the one it had goes
            CHECK(counted::alive() == 1);
        }
        CHECK(ran == 0);
        CHECK(counted::alive() == 0);
    }

    TEST_CASE("its arguments live until it has been awaited, and its frame goes then") {
        counted::reset();
        tg::runtime runtime{{.cores = 1}};
        runtime.run([]() -> tg::task<> {
            for (int i = 0; i < 3; ++i) {
                const int number = co_await hold(counted(i));
                CHECK(number == i);
                CHECK(counted::alive() == 0);
            }
        });
        CHECK(counted::wrongly_destroyed() == 0);
    }

    TEST_CASE("may be made on one thread and awaited on another") {
        tg::task<int> made_elsewhere;
        std::thread([&] { made_elsewhere = value(5); }).join();
        tg::runtime runtime{{.cores = 1}};
        CHECK(runtime.run(std::move(made_elsewhere)) == 5);
    }

    TEST_CASE("a task that suspends lets its awaiter go on where it was") {
        tg::runtime runtime{{.cores = 1}};
        tg::test::manual_event go;
        std::thread setter;
        const int sum = runtime.run([&]() -> tg::task<int> {
            const auto waits = [](tg::test::manual_event& event, int n) -> tg::task<int> {
                co_await event;
                co_return n;
            };
            setter = std::thread([&go] { go.set(); });
            const std::thread::id here = std::this_thread::get_id();
            const int first = co_await waits(go, 1);
            const int second = co_await waits(go, 2);
            CHECK(std::this_thread::get_id() == here);
            co_return first + second;
        });
        setter.join();
        CHECK(sum == 3);
    }

    TEST_CASE("a million awaits that complete at once need no more than a small stack") {
        std::int64_t sum = 0;
        on_stack_of(small_stack, [&] {
            tg::runtime runtime{{.cores = 1}};
            sum = runtime.run(count_up(many));
        });
        CHECK(sum == many);
    }

    TEST_CASE("the same on an executor, and for conducted children awaited in place") {
        const default_stack_of executors(small_stack);
        tg::runtime runtime{{.cores = 1}};
        const auto both = [&]() -> tg::task<std::pair<std::int64_t, std::int64_t>> {
            const std::int64_t tasks = co_await counts_up(many);
            const std::int64_t children = co_await awaits_children(many);
            co_return std::pair(tasks, children);
        };
        const auto [tasks, children] = runtime.run(both);
        CHECK(tasks == many);
        CHECK(children == many);
    }

    TEST_CASE("a hundred thousand tasks that await each other need no more than a small stack") {
        const default_stack_of executors(small_stack);
        std::int64_t on_main = 0, on_core = 0, conducted = 0;
        on_stack_of(small_stack, [&] {
            tg::runtime runtime{{.cores = 1}};
            on_main = runtime.run(depth(deep));
            on_core =
                runtime.run([]() -> tg::task<std::int64_t> { co_return co_await goes_deep(deep); });
            conducted = runtime.run([]() -> tg::task<std::int64_t> {
                co_return co_await goes_deep_conducted(deep);
            });
        });
        CHECK(on_main == deep);
        CHECK(on_core == deep);
        CHECK(conducted == deep);
    }

    TEST_CASE("an exception passes through ten thousand tasks on a small stack") {
        constexpr int levels = 10'000;
        int passed = 0, code = 0;
        on_stack_of(small_stack, [&] {
            tg::runtime runtime{{.cores = 1}};
            try {
                runtime.run(fail_at_depth(levels, passed));
            } catch (const own_type& thrown) {
                code = thrown.code;
            }
        });
        CHECK(passed == levels);
        CHECK(code == 17);
    }

    TEST_CASE(
        "stress: random trees of tasks, some failing, agree with the same trees of functions") {
        constexpr unsigned seed = 20250612;
        INFO("seed " << seed);
        counted::reset();
        const std::size_t slots_before = tg::test::live_slots();
        std::mt19937 of_functions(seed), of_tasks(seed);
        int wrong = 0;
        {
            tg::runtime runtime{{.cores = 1}};
            runtime.run([&]() -> tg::task<> {
                for (int i = 0; i < 2000; ++i) {
                    int expected = 0, got = 0;
                    try {
                        expected = tree::expected(of_functions, 9);
                    } catch (const own_type& thrown) {
                        expected = -thrown.code;
                    }
                    try {
                        got = co_await tree::grow(of_tasks, 9, counted(1));
                    } catch (const own_type& thrown) {
                        got = -thrown.code;
                    }
                    wrong += got != expected;
                }
            });
        }
        CHECK(wrong == 0);
        CHECK(counted::alive() == 0);
        CHECK(counted::wrongly_destroyed() == 0);
        CHECK(tg::test::live_slots() == slots_before);
    }
}
