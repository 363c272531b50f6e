// SPDX-License-Identifier: MIT

#include <tokengate/time_span.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <cstdint>
#include <limits>

namespace tg = tokengate;
using namespace std::chrono_literals;
using std::chrono::nanoseconds;

namespace {

constexpr nanoseconds of(tg::time_span span) { return span; }

}  // namespace

TEST_SUITE("time_span") {
    TEST_CASE("of every unit, whole or not") {
        CHECK(of({}) == 0ns);
        CHECK(of(20ms) == 20'000'000ns);
        CHECK(of(1.5s) == 1500ms);
        CHECK(of(-2min) == -120s);
        CHECK(of(1ns) == 1ns);
        CHECK(of(std::chrono::duration<float, std::milli>(0.25F)) == 250us);
        CHECK(of(nanoseconds::max()) == nanoseconds::max());
        CHECK(of(nanoseconds::min()) == nanoseconds::min());
        CHECK(tg::time_span(3us).count() == 3000);
    }

    TEST_CASE("longer than nanoseconds can count: as long as they can") {
        constexpr nanoseconds longest = nanoseconds::max();
        CHECK(of(std::chrono::seconds::max()) == longest);
        CHECK(of(std::chrono::hours::max()) == longest);
        CHECK(of(std::chrono::years(293)) == longest);
        CHECK(of(std::chrono::years(291)) == std::chrono::years(291));
        CHECK(of(std::chrono::seconds::min()) == nanoseconds::min());
        CHECK(of(std::chrono::duration<double>(std::numeric_limits<double>::infinity())) ==
              longest);
        CHECK(of(std::chrono::duration<double>(-std::numeric_limits<double>::infinity())) ==
              nanoseconds::min());
        CHECK(of(std::chrono::duration<double>(std::numeric_limits<double>::quiet_NaN())) ==
              longest);
        CHECK(of(tg::time_span::max()) == longest);
    }
}
