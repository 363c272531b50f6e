// SPDX-License-Identifier: MIT

#include <tokengate/when_all.hpp>

#include "support/leaks.hpp"
#include "support/manual_event.hpp"
#include "support/sanitizers.hpp"
#include "support/settled.hpp"

#include <tokengate/error.hpp>
#include <tokengate/operation.hpp>
#include <tokengate/runtime.hpp>
#include <tokengate/this_token.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace tg = tokengate;
using tg::test::check_settled;
using tg::test::countdown;
using tg::test::counted;
using tg::test::manual_event;

namespace {

std::atomic<int> ended{0};

const tg::operation gives{{.name = "when_all_test_gives"}, [](int n) { return n; }};
const tg::operation text_of{{.name = "when_all_test_text", .weight = tg::weight::light},
                            [](int n) { return std::to_string(n); }};
const tg::operation nothing{{.name = "when_all_test_nothing", .weight = tg::weight::heavy},
                            [] { ++ended; }};
const tg::operation refers{{.name = "when_all_test_refers"}, [](int& n) -> int& { return n; }};
const tg::operation owns{{.name = "when_all_test_owns"},
                         [](int n) { return std::make_unique<int>(n); }};
const tg::operation keeps{{.name = "when_all_test_keeps"}, [](counted kept) {
                              ++ended;
                              return kept;
                          }};
const tg::operation may_fail{{.name = "when_all_test_may_fail"}, [](counted kept, bool fails) {
                                 ++ended;
                                 if (fails) throw std::runtime_error(std::to_string(kept.number()));
                                 return kept.number();
                             }};
const tg::operation waits{{.name = "when_all_test_waits"},
                          [](manual_event* event, int n) -> tg::task<int> {
                              co_await *event;
                              ++ended;
                              co_return n;
                          }};

tg::task<int> tree(int levels);
const tg::operation branch{{.name = "when_all_test_branch"}, tree};
std::atomic<int> strayed{0};
tg::task<int> tree(int levels) {
    if (levels == 0) co_return 1;
    const unsigned here = tg::this_token::executor();
    const std::string seed(tg::this_token::seed());
    std::vector<tg::token<int>> children;
    for (int i = 0; i < 3; ++i) children.push_back(branch(levels - 1));
    const std::vector<int> below = co_await tg::when_all(std::move(children));
    strayed += tg::this_token::executor() != here;
    strayed += tg::this_token::seed() != seed;
    const auto [one, two] = co_await tg::when_all(branch(0), branch(0));
    co_return std::accumulate(below.begin(), below.end(), one + two);
}
constexpr int leaves(int levels) { return levels == 0 ? 1 : 2 + 3 * leaves(levels - 1); }
const tg::operation conducted{
    {.name = "when_all_test_lead"}, tg::lead{"when_all_test_branch"}, tree};

/// Hands out a child of its own domain, to be awaited by somebody else.
const tg::operation hands_out{{.name = "when_all_test_hands_out"},
                              tg::lead{"when_all_test_gives"},
                              [](int n) -> tg::task<tg::token<int>> { co_return gives(n); }};

class failures_heard {
public:
    auto handler() {
        return [this](const tg::failure& heard) {
            std::string text;
            try {
                std::rethrow_exception(heard.error);
            } catch (const std::runtime_error& error) {
                text = error.what();
            }
            const std::scoped_lock lock(mutex_);
            all_.push_back(text);
        };
    }
    std::vector<std::string> all() {
        const std::scoped_lock lock(mutex_);
        return all_;
    }

private:
    std::mutex mutex_;
    std::vector<std::string> all_;
};

}  // namespace

TEST_SUITE("when_all") {
    TEST_CASE("of a vector: results in the order of the tokens") {
        tg::runtime runtime{{.cores = 3}};
        const std::vector<int> results = runtime.run([]() -> tg::task<std::vector<int>> {
            std::vector<tg::token<int>> all;
            for (int i = 0; i < 1000; ++i) all.push_back(gives(i));
            co_return co_await tg::when_all(std::move(all));
        });
        REQUIRE(results.size() == 1000);
        for (int i = 0; i < 1000; ++i) CHECK(results[static_cast<std::size_t>(i)] == i);
        check_settled(runtime);
    }

    TEST_CASE("of tasks, on this loop, and of both") {
        tg::runtime runtime{{.cores = 3}};
        runtime.run([]() -> tg::task<> {
            const auto twice = [](int n, unsigned here) -> tg::task<int> {
                CHECK(tg::this_token::executor() == here);
                co_return 2 * n;
            };
            const unsigned here = tg::this_token::executor();
            std::vector<tg::task<int>> tasks;
            for (int i = 0; i < 100; ++i) tasks.push_back(twice(i, here));
            const std::vector<int> results = co_await tg::when_all(std::move(tasks));
            for (int i = 0; i < 100; ++i) CHECK(results[static_cast<std::size_t>(i)] == 2 * i);
            const auto [six, seven, eight] =
                co_await tg::when_all(twice(3, here), gives(7), twice(4, here));
            CHECK(six == 6);
            CHECK(seven == 7);
            CHECK(eight == 8);
        });
        check_settled(runtime);
    }

    TEST_CASE("of none, of one, and of a hundred thousand") {
        ended = 0;
        tg::runtime runtime{{.cores = 2}};
        runtime.run([]() -> tg::task<> {
            const std::vector<int> none = co_await tg::when_all(std::vector<tg::token<int>>());
            CHECK(none.empty());
            co_await tg::when_all(std::vector<tg::token<>>());
            const std::tuple<> nil = co_await tg::when_all();
            static_cast<void>(nil);

            std::vector<tg::token<int>> single;
            single.push_back(gives(1));
            const std::vector<int> one = co_await tg::when_all(std::move(single));
            CHECK(one == std::vector{1});

            constexpr int many = 100'000;
            std::vector<tg::token<int>> all;
            for (int i = 0; i < many; ++i) all.push_back(gives(i));
            const std::vector<int> results = co_await tg::when_all(std::move(all));
            int wrong = 0;
            for (int i = 0; i < many; ++i) wrong += results[static_cast<std::size_t>(i)] != i;
            CHECK(results.size() == many);
            CHECK(wrong == 0);
        });
        check_settled(runtime);
    }

    TEST_CASE("of different types: a tuple, with monostate for void") {
        tg::runtime runtime{{.cores = 3}};
        ended = 0;
        runtime.run([]() -> tg::task<> {
            const auto results = co_await tg::when_all(gives(1), text_of(2), nothing());
            static_assert(std::is_same_v<decltype(results),
                                         const std::tuple<int, std::string, std::monostate>>);
            CHECK(std::get<0>(results) == 1);
            CHECK(std::get<1>(results) == "2");
            CHECK(ended == 1);
            const auto [single] = co_await tg::when_all(text_of(3));
            CHECK(single == "3");
        });
        check_settled(runtime);
    }

    TEST_CASE("of a vector of void: no result") {
        tg::runtime runtime{{.cores = 2}};
        ended = 0;
        runtime.run([]() -> tg::task<> {
            std::vector<tg::token<>> all;
            for (int i = 0; i < 100; ++i) all.push_back(nothing());
            static_assert(std::is_void_v<decltype(tg::when_all(std::move(all)).await_resume())>);
            co_await tg::when_all(std::move(all));
            CHECK(ended == 100);
        });
    }

    TEST_CASE("references and move-only results") {
        tg::runtime runtime{{.cores = 2}};
        runtime.run([]() -> tg::task<> {
            int a = 1, b = 2;
            std::vector<tg::token<int&>> all;
            all.push_back(refers(std::ref(a)));
            all.push_back(refers(std::ref(b)));
            const std::vector<std::reference_wrapper<int>> same =
                co_await tg::when_all(std::move(all));
            CHECK(&same[0].get() == &a);
            CHECK(&same[1].get() == &b);

            const auto results = co_await tg::when_all(refers(std::ref(b)), owns(5));
            CHECK(&std::get<0>(results).get() == &b);
            CHECK(*std::get<1>(results) == 5);

            std::vector<tg::token<std::unique_ptr<int>>> owners;
            for (int i = 0; i < 10; ++i) owners.push_back(owns(i));
            const std::vector<std::unique_ptr<int>> owned =
                co_await tg::when_all(std::move(owners));
            for (int i = 0; i < 10; ++i) CHECK(*owned[static_cast<std::size_t>(i)] == i);
        });
    }

    TEST_CASE(
        "the first failure by position is thrown after all have ended, the others reach the "
        "handler in order") {
        failures_heard heard;
        counted::reset();
        ended = 0;
        tg::runtime runtime{{.cores = 3, .on_failure = heard.handler()}};
        runtime.run([]() -> tg::task<> {
            std::vector<tg::token<int>> all;
            for (int i = 0; i < 100; ++i) all.push_back(may_fail(counted(i), i % 30 == 7));
            std::string first;
            try {
                co_await tg::when_all(std::move(all));
            } catch (const std::runtime_error& error) {
                first = error.what();
                CHECK(ended == 100);
            }
            CHECK(first == "7");
        });
        CHECK(heard.all() == std::vector<std::string>{"37", "67", "97"});
        CHECK(counted::alive() == 0);
        check_settled(runtime);
    }

    TEST_CASE("the same for different types") {
        failures_heard heard;
        counted::reset();
        tg::runtime runtime{{.cores = 2, .on_failure = heard.handler()}};
        runtime.run([]() -> tg::task<> {
            ended = 0;
            std::string first;
            auto two_fail =
                tg::when_all(may_fail(counted(0), false), nothing(), may_fail(counted(1), true),
                             may_fail(counted(2), true), keeps(counted(3)));
            try {
                co_await two_fail;
            } catch (const std::runtime_error& error) {
                first = error.what();
            }
            CHECK(first == "1");
            CHECK(ended == 5);
        });
        CHECK(heard.all() == std::vector<std::string>{"2"});
        CHECK(counted::alive() == 0);
        CHECK(counted::wrongly_destroyed() == 0);
    }

    TEST_CASE("never awaited, it admits nothing") {
        counted::reset();
        ended = 0;
        tg::runtime runtime{{.cores = 1}};
        runtime.run([]() -> tg::task<> {
            { auto unused = tg::when_all(keeps(counted(1)), gives(2)); }
            std::vector<tg::token<counted>> all;
            all.push_back(keeps(counted(3)));
            { auto unused = tg::when_all(std::move(all)); }
            CHECK(counted::alive() == 0);
            co_return;
        });
        CHECK(ended == 0);
    }

    TEST_CASE(
        "a handle without a token among them: already_awaited, before any of them is admitted") {
        counted::reset();
        ended = 0;
        tg::runtime runtime{{.cores = 1}};
        runtime.run([]() -> tg::task<> {
            std::vector<tg::token<counted>> all;
            all.push_back(keeps(counted(1)));
            all.push_back(tg::token<counted>());
            bool refused = false;
            try {
                co_await tg::when_all(std::move(all));
            } catch (const tg::already_awaited&) {
                refused = true;
            }
            CHECK(refused);
        });
        CHECK(ended == 0);
        CHECK(counted::alive() == 0);
    }

    TEST_CASE("awaited a second time: already_awaited") {
        tg::runtime runtime{{.cores = 1}};
        bool refused = false;
        const auto await_twice = [&](auto group) -> tg::task<> {
            try {
                co_await group;
            } catch (const std::runtime_error&) {}
            try {
                co_await group;
            } catch (const tg::already_awaited&) {
                refused = true;
            }
        };
        std::vector<tg::token<int>> all;
        SUBCASE("a vector whose results were taken") {
            all.push_back(gives(1));
            runtime.run(await_twice(tg::when_all(std::move(all))));
        }
        SUBCASE("a vector that failed") {
            all.push_back(may_fail(counted(1), true));
            runtime.run(await_twice(tg::when_all(std::move(all))));
        }
        SUBCASE("different types") { runtime.run(await_twice(tg::when_all(gives(1), text_of(2)))); }
        CHECK(refused);
    }

    TEST_CASE("of tokens already admitted, some of which have ended") {
        tg::runtime runtime{{.cores = 1}};
        manual_event go;
        std::thread setter;
        ended = 0;
        runtime.run([&]() -> tg::task<> {
            std::vector<tg::token<int>> all;
            for (int i = 0; i < 30; ++i) {
                all.push_back(i % 3 == 0 ? waits(&go, i) : gives(i));
                if (i % 2 == 0) all.back().admit();
            }
            const int behind_them =
                co_await gives(0);  // the only core has run or begun all that were admitted
            CHECK(behind_them == 0);
            CHECK(ended == 0);
            setter = std::thread([&go] { go.set(); });
            const std::vector<int> results = co_await tg::when_all(std::move(all));
            for (int i = 0; i < 30; ++i) CHECK(results[static_cast<std::size_t>(i)] == i);
            CHECK(ended == 10);

            tg::token<int> one = gives(1);
            tg::token<std::string> two = text_of(2);
            one.admit();
            two.admit();
            co_await nothing();
            co_await nothing();
            const auto [n, text] =
                co_await tg::when_all(std::move(one), std::move(two));  // nothing left to wait for
            CHECK(n == 1);
            CHECK(text == "2");
        });
        setter.join();
        check_settled(runtime);
    }

    TEST_CASE("inside conducted chains, at any depth: all run on the lead's core, with its seed") {
        strayed = 0;
        tg::runtime runtime{{.cores = 4}};
        runtime.run([]() -> tg::task<> {
            std::vector<tg::token<int>> leads;
            for (int i = 0; i < 20; ++i) leads.push_back(conducted(4));
            for (const int sum : co_await tg::when_all(std::move(leads))) CHECK(sum == leaves(4));
        });
        CHECK(strayed == 0);
        check_settled(runtime);
    }

    TEST_CASE("outside of them the same tree spreads, and sums up alike") {
        tg::runtime runtime{{.cores = 4}};
        CHECK(runtime.run(tree(5)) == leaves(5));
        check_settled(runtime);
    }

    TEST_CASE("of children of several domains, of leads, and of free tokens at once") {
        tg::runtime runtime{{.cores = 4}};
        runtime.run([]() -> tg::task<> {
            for (int round = 0; round < 20; ++round) {
                std::vector<tg::token<tg::token<int>>> leads;
                for (int i = 0; i < 10; ++i) leads.push_back(hands_out(i));
                std::vector<tg::token<int>> children = co_await tg::when_all(std::move(leads));
                std::vector<tg::token<int>> mixed;
                int expected = 0;
                for (int i = 0; i < 10; ++i) {
                    mixed.push_back(std::move(children[static_cast<std::size_t>(i)]));
                    mixed.push_back(gives(i));
                    mixed.push_back(conducted(1));
                    expected += 2 * i + leaves(1);
                }
                const std::vector<int> results = co_await tg::when_all(std::move(mixed));
                CHECK(std::accumulate(results.begin(), results.end(), 0) == expected);
            }
        });
        check_settled(runtime);
    }

    TEST_CASE("a million is one group") {
        static constexpr int million = tg::test::under_tsan ? 100'000 : 1'000'000;
        ended = 0;
        tg::runtime runtime{{.cores = 2}};
        runtime.run([]() -> tg::task<> {
            std::vector<tg::token<>> all;
            all.reserve(million);
            for (int i = 0; i < million; ++i) all.push_back(nothing());
            co_await tg::when_all(std::move(all));
            CHECK(ended == million);
        });
        check_settled(runtime);
    }

    TEST_CASE(
        "stress: nested groups of random size and failure; every frame goes, every failure is "
        "heard once") {
        constexpr unsigned seed = 20250615;
        INFO("seed " << seed);
        std::mt19937 random(seed);
        failures_heard heard;
        counted::reset();
        const std::size_t slots_before = tg::test::live_slots();
        std::size_t failures = 0, caught = 0;
        int tokens = 0;
        ended = 0;
        {
            tg::runtime runtime{{.cores = 3, .on_failure = heard.handler()}};
            runtime.run([&]() -> tg::task<> {
                for (int round = 0; round < 500; ++round) {
                    std::vector<tg::token<int>> all;
                    const unsigned size = random() % 60;
                    for (unsigned i = 0; i < size; ++i) {
                        const bool fails = random() % 20 == 0;
                        failures += fails;
                        ++tokens;
                        all.push_back(may_fail(counted(static_cast<int>(i)), fails));
                        if (random() % 3 == 0) all.back().admit();
                    }
                    try {
                        co_await tg::when_all(std::move(all));
                    } catch (const std::runtime_error&) {
                        ++caught;
                    }
                }
            });
            check_settled(runtime);
        }
        CHECK(ended == tokens);
        CHECK(caught + heard.all().size() == failures);
        CHECK(counted::alive() == 0);
        CHECK(counted::wrongly_destroyed() == 0);
        CHECK(tg::test::live_slots() == slots_before);
    }
}
