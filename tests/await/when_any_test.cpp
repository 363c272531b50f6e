// SPDX-License-Identifier: MIT

#include <tokengate/when_any.hpp>

#include "support/leaks.hpp"
#include "support/manual_event.hpp"
#include "support/settled.hpp"

#include <tokengate/error.hpp>
#include <tokengate/operation.hpp>
#include <tokengate/runtime.hpp>
#include <tokengate/stop.hpp>
#include <tokengate/task_token.hpp>
#include <tokengate/time.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace tg = tokengate;
using namespace std::chrono_literals;
using tg::test::check_settled;
using tg::test::counted;
using tg::test::live_slots;
using tg::test::manual_event;

namespace {

std::atomic<int> started{0}, stopped{0};

tg::task<int> wait_for_stop(int n) {
    ++started;
    try {
        co_await tg::sleep_for(1h);
    } catch (const tg::token_stopped&) {
        ++stopped;
        throw;
    }
    co_return n;
}
tg::task<int> give_task(int n) { co_return n; }
const tg::operation waits{{.name = "when_any_test_waits"}, wait_for_stop};
const tg::operation gives{{.name = "when_any_test_gives"}, [](int n) { return n; }};
const tg::operation text_of{{.name = "when_any_test_text"},
                            [](int n) { return std::to_string(n); }};
const tg::operation nothing{{.name = "when_any_test_nothing"}, [] {}};
const tg::operation refers{{.name = "when_any_test_refers"}, [](int& n) -> int& { return n; }};
const tg::operation owns{{.name = "when_any_test_owns"},
                         [](int n) { return std::make_unique<int>(n); }};
const tg::operation keeps{{.name = "when_any_test_keeps"}, [](counted kept) { return kept; }};
const tg::operation fails{{.name = "when_any_test_fails"},
                          [](int n) -> int { throw std::out_of_range(std::to_string(n)); }};
const tg::operation late_failure{{.name = "when_any_test_late_failure"}, []() -> tg::task<int> {
                                     try {
                                         co_await tg::sleep_for(1h);
                                     } catch (const tg::token_stopped&) {}
                                     throw std::domain_error("late");
                                 }};
const tg::operation late_value{{.name = "when_any_test_late_value"},
                               [](counted kept) -> tg::task<counted> {
                                   try {
                                       co_await tg::sleep_for(1h);
                                   } catch (const tg::token_stopped&) {}
                                   co_return kept;
                               }};
const tg::operation slow{{.name = "when_any_test_slow", .storage = tg::storage::slow},
                         [](int n) -> tg::task<int> {
                             const auto first = co_await tg::when_any(gives(n), waits(1));
                             co_return first.value.index() == 0 ? std::get<0>(first.value) : -1;
                         }};
const tg::operation lead{{.name = "when_any_test_lead"},
                         tg::lead{"when_any_test_gives", "when_any_test_waits"},
                         [](int n) -> tg::task<int> {
                             const auto first = co_await tg::when_any(waits(1), gives(n), waits(2));
                             co_return std::get<1>(first.value);
                         }};

void reset() { started = stopped = 0; }

}  // namespace

TEST_SUITE("when_any") {
    TEST_CASE("the first that ends, by index and value; the others are stopped and awaited") {
        const std::size_t before = live_slots();
        {
            tg::runtime runtime{{.cores = 3}};
            runtime.run([]() -> tg::task<> {
                for (int round = 0; round < 50; ++round) {
                    reset();
                    const auto first =
                        co_await tg::when_any(waits(1), waits(2), text_of(7), waits(4));
                    CHECK(first.index == 2);
                    CHECK(std::get<2>(first.value) == "7");
                    CHECK(started == stopped);
                }
                for (int round = 0; round < 50; ++round) {
                    reset();
                    std::vector<tg::token<int>> several;
                    for (int i = 0; i < 20; ++i)
                        several.push_back(i == round % 20 ? gives(round) : waits(i));
                    const auto first = co_await tg::when_any(std::move(several));
                    CHECK(first.index == static_cast<std::size_t>(round % 20));
                    CHECK(first.value == round);
                    CHECK(started == stopped);
                }
                reset();
                const auto of_tasks =
                    co_await tg::when_any(wait_for_stop(1), give_task(8), waits(2));
                CHECK(of_tasks.index == 1);
                CHECK(std::get<1>(of_tasks.value) == 8);
                std::vector<tg::task<int>> tasks;
                for (int i = 0; i < 4; ++i)
                    tasks.push_back(i == 2 ? give_task(i) : wait_for_stop(i));
                const auto of_vector = co_await tg::when_any(std::move(tasks));
                CHECK(of_vector.value == 2);
                CHECK(started == stopped);
                const auto one = co_await tg::when_any(gives(3));
                CHECK(one.index == 0);
                CHECK(std::get<0>(one.value) == 3);
            });
            check_settled(runtime);
        }
        CHECK(live_slots() == before);
    }

    TEST_CASE("void, references, move-only results") {
        tg::runtime runtime{{.cores = 2}};
        runtime.run([]() -> tg::task<> {
            int place = 4;
            const auto none = co_await tg::when_any(nothing(), waits(1));
            CHECK(none.value.index() == 0);
            const auto reference = co_await tg::when_any(waits(1), refers(std::ref(place)));
            CHECK(&std::get<1>(reference.value).get() == &place);
            auto owned = co_await tg::when_any(owns(5), waits(1));
            CHECK(*std::get<0>(owned.value) == 5);
            std::vector<tg::token<std::unique_ptr<int>>> owners;
            owners.push_back(owns(6));
            auto from_vector = co_await tg::when_any(std::move(owners));
            CHECK(*from_vector.value == 6);
            std::vector<tg::token<void>> nothings;
            nothings.push_back(nothing());
            const auto nothing_from_vector = co_await tg::when_any(std::move(nothings));
            CHECK(nothing_from_vector.index == 0);
            std::vector<tg::token<int&>> references;
            references.push_back(refers(std::ref(place)));
            const auto referred = co_await tg::when_any(std::move(references));
            CHECK(&referred.value.get() == &place);
        });
        check_settled(runtime);
    }

    TEST_CASE(
        "the first decides by failing too; a failure of another's own goes to the handler, its "
        "stop does not") {
        std::atomic<int> failures{0};
        tg::runtime runtime{{.cores = 2, .on_failure = [&](const tg::failure&) { ++failures; }}};
        reset();
        runtime.run([]() -> tg::task<> {
            CHECK_THROWS_AS(co_await tg::when_any(waits(1), fails(2), waits(3)), std::out_of_range);
            CHECK(started == stopped);
            const auto first = co_await tg::when_any(late_failure(), late_failure(), gives(1));
            CHECK(first.index == 2);
        });
        CHECK(failures <= 2);  // those that had started
        check_settled(runtime);
    }

    TEST_CASE("results that are dropped are destroyed, and each once") {
        counted::reset();
        tg::runtime runtime{{.cores = 2}};
        runtime.run([]() -> tg::task<> {
            for (int round = 0; round < 20; ++round) {
                std::vector<tg::token<counted>> several;
                several.push_back(late_value(counted(1)));
                several.push_back(keeps(counted(2)));
                several.push_back(late_value(counted(3)));
                several.push_back(keeps(counted(2)));
                const auto first = co_await tg::when_any(std::move(several));
                CHECK(first.value.number() == 2);
            }
        });
        CHECK(counted::alive() == 0);
        CHECK(counted::wrongly_destroyed() == 0);
        check_settled(runtime);
    }

    TEST_CASE("tokens that were admitted before: running, waiting, ended") {
        const std::size_t before = live_slots();
        {
            tg::runtime runtime{{.cores = 2}};
            runtime.run([]() -> tg::task<> {
                for (int round = 0; round < 50; ++round) {
                    reset();
                    tg::token<int> running = waits(1), ended = gives(2), late = gives(3),
                                   here = tg::as_token(wait_for_stop(4));
                    running.admit();
                    ended.admit();
                    here.admit();
                    if (round % 2 != 0)
                        co_await tg::sleep_for(std::chrono::microseconds(round * 10));
                    late.admit();
                    const auto first =
                        co_await tg::when_any(std::move(here), std::move(running), std::move(ended),
                                              std::move(late), waits(5));
                    CHECK((first.index == 2 || first.index == 3));
                    CHECK(started == stopped);
                }
                // all had ended
                tg::token<int> one = gives(1), two = gives(2);
                one.admit();
                two.admit();
                for (const auto* each : {&one, &two})
                    while (tg::detail::token_access::record(*each).state.load() <=
                           tg::token_state::executing)
                        co_await tg::yield();
                reset();
                const auto first = co_await tg::when_any(std::move(one), std::move(two), waits(3));
                CHECK(first.index == 0);
                CHECK(started == 0);  // it was decided before the third was admitted
            });
            check_settled(runtime);
        }
        CHECK(live_slots() == before);
    }

    TEST_CASE("a stop of the awaiter ends all; before it, none starts") {
        const std::size_t before = live_slots();
        {
            tg::runtime runtime{{.cores = 2}};
            runtime.run([]() -> tg::task<> {
                for (int round = 0; round < 30; ++round) {
                    reset();
                    const auto body = []() -> tg::task<> {
                        co_await tg::when_any(waits(1), waits(2), waits(3));
                    };
                    tg::token<void> token = tg::as_token(body());
                    token.admit();
                    if (round % 3 != 0)
                        while (started < round % 3) co_await tg::yield();
                    token.request_stop();
                    CHECK_THROWS_AS(co_await token, tg::token_stopped);
                    CHECK(started == stopped);
                    if (round % 3 == 0) CHECK(started == 0);
                }
            });
            check_settled(runtime);
        }
        CHECK(live_slots() == before);
    }

    TEST_CASE("in a domain, and by one that holds a permit") {
        tg::runtime runtime{{.cores = 2, .storage = {.slow = 1}}};
        runtime.run([]() -> tg::task<> {
            CHECK(co_await lead(3) == 3);
            const auto [a, b] =
                co_await tg::when_all(slow(4), slow(5));  // the permit is given up while it waits
            CHECK(a == 4);
            CHECK(b == 5);
            CHECK(co_await slow(6) == 6);
        });
        check_settled(runtime);
    }

    TEST_CASE("nested, and with timeouts") {
        tg::runtime runtime{{.cores = 2}};
        runtime.run([]() -> tg::task<> {
            const auto inner = []() -> tg::task<int> {
                const auto first = co_await tg::when_any(waits(1), waits(2));
                co_return static_cast<int>(first.index);
            };
            const auto first =
                co_await tg::when_any(tg::as_token(inner()), gives(9), tg::as_token(inner()));
            CHECK(first.index == 1);
            CHECK_THROWS_AS(co_await tg::with_timeout(inner(), 1ms), tg::token_timeout);
            CHECK_THROWS_AS(co_await tg::when_any(tg::as_token(tg::with_timeout(waits(1), 1ms)),
                                                  waits(2)),
                            tg::token_timeout);
        });
        check_settled(runtime);
    }

    TEST_CASE("none at all, and handles without a token") {
        tg::runtime runtime{{.cores = 1}};
        runtime.run([]() -> tg::task<> {
            reset();
            CHECK_THROWS_AS(co_await tg::when_any(std::vector<tg::token<int>>()),
                            std::invalid_argument);
            CHECK_THROWS_AS(co_await tg::when_any(waits(1), tg::token<int>()), tg::already_awaited);
            std::vector<tg::token<int>> several;
            several.push_back(waits(1));
            several.emplace_back();
            CHECK_THROWS_AS(co_await tg::when_any(std::move(several)), tg::already_awaited);
            CHECK(started == 0);
        });
        check_settled(runtime);
    }

    TEST_CASE("ten thousand") {
        const std::size_t before = live_slots();
        {
            tg::runtime runtime{{.cores = 3}};
            reset();
            runtime.run([]() -> tg::task<> {
                std::vector<tg::token<int>> many;
                for (int i = 0; i < 10'000; ++i) many.push_back(i == 7000 ? gives(i) : waits(i));
                const auto first = co_await tg::when_any(std::move(many));
                CHECK(first.index == 7000);
                CHECK(started == stopped);
            });
            check_settled(runtime);
        }
        CHECK(live_slots() == before);
    }
}
