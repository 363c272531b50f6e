// SPDX-License-Identifier: MIT
#include "token/operation_stats.hpp"

#include "support/child.hpp"
#include "support/sanitizers.hpp"
#include "support/waiting.hpp"

#include <doctest/doctest.h>

#include <sys/resource.h>

#include <array>
#include <cstdint>
#include <string>
#include <thread>

using namespace tokengate::detail;
using tokengate::test::in_child;
using tokengate::test::wait_until;

TEST_SUITE("operation stats") {
    TEST_CASE(
        "an operation that has not been here is not found; once asked for, it stays where it is") {
        stats_table table;
        constexpr std::array<std::uint32_t, 6> indices{0, 1, 255, 256, 40'000, most_operations - 1};
        for (const std::uint32_t index : indices) CHECK(table.find(index) == nullptr);
        for (const std::uint32_t index : indices) {
            operation_stats* made = table.of(index);
            REQUIRE(made);
            CHECK(made->started.load() == 0);
            made->started.add(index + 1);
            CHECK(table.of(index) == made);
            CHECK(table.find(index) == made);
        }
        for (const std::uint32_t index : indices)
            CHECK(table.find(index)->started.load() == index + 1);
        CHECK(table.find(2) == nullptr);
        CHECK(table.find(300) == nullptr);
        CHECK(table.lost() == 0);
    }

    TEST_CASE("others read while the owner writes") {
        stats_table table;
        constexpr std::uint32_t operations = 1000;
        std::thread owner([&] {
            for (std::uint32_t index = 0; index < operations; ++index) {
                operation_stats* known = table.of(index);
                known->completed.add(1);
                known->run_time.record(index);
            }
        });
        const auto found = [&] {
            std::uint64_t sum = 0;
            for (std::uint32_t index = 0; index < operations; ++index)
                if (const operation_stats* known = table.find(index)) {
                    histogram_sum times;
                    times.add(known->run_time);
                    sum += times.count();
                }
            return sum;
        };
        wait_until([&] { return found() == operations; });
        owner.join();
        CHECK(table.lost() == 0);
    }

    TEST_CASE("what there is no memory for is not counted, and that is") {
        if (tokengate::test::under_asan || tokengate::test::under_tsan)
            return;  // their allocators end the process
        const auto child = in_child([] {
            stats_table table;
            if (!table.of(0)) return std::string("no memory from the beginning");
            const rlimit none{};
            if (::setrlimit(RLIMIT_AS, &none) != 0) return std::string("no limit");
            std::uint32_t index = 1;
            while (index < most_operations && table.of(index)) ++index;
            if (index == most_operations) return std::string("there was always memory");
            if (table.find(index)) return std::string("one was found that could not be made");
            if (table.lost() != 1) return std::string("lost ") + std::to_string(table.lost());
            if (table.of(index) || table.lost() != 2)
                return std::string("the second time went unnoticed");
            if (!table.of(0)) return std::string("one that was there has gone");
            return std::string("well");
        });
        CHECK(child.ended);
        CHECK(child.said == "well");
        CHECK(child.complained == "");
    }
}
