// SPDX-License-Identifier: MIT
#include "token/context.hpp"

#include <tokengate/detail/core_context.hpp>
#include <tokengate/operation.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <latch>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

namespace tg = tokengate;
using namespace tokengate::detail;

namespace {

const tg::operation nothing{{.name = "context_test_nothing"}, [](int) {}};

const operation_record& record_of(const tg::token<void>& token) {
    return *token_access::record(token).operation.load();
}

}  // namespace

TEST_SUITE("context") {
    TEST_CASE("a thread has one context, with a pool and a mark within its stack") {
        std::thread([] {
            CHECK(this_core == nullptr);
            core_context& mine = context();
            CHECK(this_core == &mine);
            CHECK(&context() == &mine);
            CHECK(mine.pool != nullptr);
            CHECK(mine.host == nullptr);
            CHECK(mine.current == nullptr);
            CHECK(mine.position == no_position);
            char on_stack = 0;
            const auto here = reinterpret_cast<std::uintptr_t>(&on_stack);
            const auto mark = reinterpret_cast<std::uintptr_t>(mine.stack_mark);
            CHECK(mark < here);
            CHECK(mark > here - 8 * 1024 * 1024);
        }).join();
    }

    TEST_CASE(
        "threads at the same time have different contexts; one that has ended leaves its context "
        "to another") {
        const auto contexts_of = [](std::size_t threads) {
            std::set<const core_context*> seen;
            std::mutex mutex;
            std::latch all(static_cast<std::ptrdiff_t>(threads));
            std::vector<std::thread> running;
            for (std::size_t i = 0; i < threads; ++i)
                running.emplace_back([&] {
                    {
                        const std::scoped_lock lock(mutex);
                        seen.insert(&context());
                    }
                    all.arrive_and_wait();
                });
            for (std::thread& each : running) each.join();
            return seen;
        };
        const auto first = contexts_of(20);
        CHECK(first.size() == 20);
        CHECK(contexts_of(20) == first);
    }

    TEST_CASE("no two tokens share a sequence number, whichever threads made them") {
        std::set<std::uint64_t> sequences;
        std::mutex mutex;
        std::size_t made = 0;
        for (int wave = 0; wave < 20; ++wave) {
            std::vector<std::thread> running;
            for (int i = 0; i < 8; ++i)
                running.emplace_back([&, i] {
                    for (int n = 0; n < 1 + i; ++n) {
                        const auto token = nothing(n);
                        const std::scoped_lock lock(mutex);
                        sequences.insert(token.id().sequence);
                        ++made;
                    }
                });
            for (std::thread& each : running) each.join();
        }
        CHECK(sequences.size() == made);
    }

    TEST_CASE("living frames are counted over threads: made on one, destroyed on another") {
        const auto probe = nothing(0);
        const operation_record& record = record_of(probe);
        const std::size_t before = live_frames_of(record);
        std::vector<tg::token<void>> kept;
        std::thread([&] {
            for (int i = 0; i < 100; ++i) kept.push_back(nothing(i));
        }).join();
        CHECK(live_frames_of(record) == before + 100);
        std::thread([&] { kept.clear(); }).join();
        CHECK(live_frames_of(record) == before);
    }

    TEST_CASE(
        "an operation that comes back with the same definition has the same row in the counters") {
        const auto index_of_one = [] {
            const tg::operation again{{.name = "context_test_again", .weight = tg::weight::heavy},
                                      [](int) {}};
            return record_of(again(1)).index;
        };
        const std::uint32_t first = index_of_one();
        for (int i = 0; i < 100; ++i) CHECK(index_of_one() == first);
    }
}
