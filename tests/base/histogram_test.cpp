// SPDX-License-Identifier: MIT
#include "base/histogram.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <random>
#include <thread>
#include <vector>

using namespace tokengate::detail;

namespace {

histogram_sum sum_of(const std::vector<std::uint64_t>& values) {
    histogram taken;
    for (const std::uint64_t value : values) taken.record(value);
    histogram_sum all;
    all.add(taken);
    return all;
}

std::uint64_t off_by(std::uint64_t a, std::uint64_t b) { return a > b ? a - b : b - a; }

/// From 1 ns to 2^42 ns, as many in each octave.
std::vector<std::uint64_t> random_times(unsigned seed, std::size_t count) {
    std::mt19937_64 random(seed);
    std::uniform_real_distribution<double> exponent(0, 42);
    std::vector<std::uint64_t> values(count);
    for (std::uint64_t& value : values)
        value = static_cast<std::uint64_t>(std::exp2(exponent(random)));
    return values;
}

constexpr std::uint64_t limit = std::uint64_t{1} << 42;

}  // namespace

TEST_SUITE("histogram") {
    TEST_CASE("quantiles, sum and maximum of 100,000 random values: as near as it says") {
        constexpr unsigned seed = 20'240'607;
        CAPTURE(seed);
        std::vector<std::uint64_t> values = random_times(seed, 100'000);
        const histogram_sum all = sum_of(values);
        std::sort(values.begin(), values.end());
        CHECK(all.count() == values.size());
        CHECK(all.max() == values.back());
        std::uint64_t total = 0;
        for (const std::uint64_t value : values) total += value;
        CHECK(all.total() == total);
        for (int permille = 0; permille <= 1000; ++permille) {
            CAPTURE(permille);
            const double q = permille / 1000.0;
            const auto rank =
                static_cast<std::size_t>(std::ceil(q * static_cast<double>(values.size())));
            const std::uint64_t exact = values[std::max<std::size_t>(rank, 1) - 1];
            CHECK(32 * off_by(all.quantile(q), exact) <= exact);
        }
        CHECK(all.quantile(1) == values.back());
    }

    TEST_CASE("how many are at most so much: true to 1/32 of the bound") {
        constexpr unsigned seed = 7;
        CAPTURE(seed);
        const std::vector<std::uint64_t> values = random_times(seed, 100'000);
        constexpr std::array<std::uint64_t, 6> bounds{1,     20,        1'000,
                                                      5'000, 1'000'000, 2'000'000'000'000};
        std::array<std::uint64_t, bounds.size()> found{};
        sum_of(values).up_to(bounds, [&](std::size_t i, std::uint64_t count) { found[i] = count; });
        for (std::size_t i = 0; i < bounds.size(); ++i) {
            CAPTURE(bounds[i]);
            const auto at_most = [&](std::uint64_t bound) {
                return std::count_if(values.begin(), values.end(),
                                     [=](std::uint64_t value) { return value <= bound; });
            };
            CHECK(found[i] >= static_cast<std::uint64_t>(at_most(bounds[i] - bounds[i] / 32)));
            CHECK(found[i] <= static_cast<std::uint64_t>(at_most(bounds[i] + bounds[i] / 32)));
        }
        CHECK(found[0] == static_cast<std::uint64_t>(std::count(values.begin(), values.end(), 1)));
    }

    TEST_CASE("an empty one has nothing to say") {
        const histogram_sum all = sum_of({});
        CHECK(all.count() == 0);
        CHECK(all.total() == 0);
        CHECK(all.max() == 0);
        CHECK(all.quantile(0) == 0);
        CHECK(all.quantile(0.5) == 0);
        CHECK(all.quantile(1) == 0);
    }

    TEST_CASE("below 32 ns it is exact, 0 included") {
        std::vector<std::uint64_t> values;
        for (std::uint64_t value = 0; value < 32; ++value) values.push_back(value);
        const histogram_sum all = sum_of(values);
        CHECK(all.quantile(0) == 0);
        for (std::uint64_t value = 0; value < 32; ++value)
            CHECK(all.quantile(static_cast<double>(value + 1) / 32) == value);
        CHECK(sum_of({0}).count() == 1);
        CHECK(sum_of({0}).quantile(1) == 0);
    }

    TEST_CASE("every bucket follows the one before, without a gap, and its middle lies in it") {
        using scheme = histogram_scheme;
        std::uint64_t first = 0;  // of the bucket
        for (std::size_t bucket = 0; bucket + 1 < scheme::buckets; ++bucket) {
            const std::uint64_t step = bucket < 32 ? 1 : std::uint64_t{1} << (bucket / 16 - 1);
            CAPTURE(bucket);
            REQUIRE(scheme::bucket_of(first) == bucket);
            REQUIRE(scheme::bucket_of(first + step - 1) == bucket);
            REQUIRE(scheme::bucket_of(scheme::middle_of(bucket)) == bucket);
            first += step;
        }
        CHECK(first == limit);
        CHECK(scheme::bucket_of(limit) == scheme::buckets - 1);
    }

    TEST_CASE("what is too long shares the last bucket; the longest is known") {
        constexpr std::uint64_t longest = std::numeric_limits<std::uint64_t>::max();
        const histogram_sum all = sum_of({1, limit - 1, limit, longest});
        CHECK(all.count() == 4);
        CHECK(all.max() == longest);
        CHECK(all.quantile(0.25) == 1);
        CHECK(off_by(all.quantile(0.5), limit - 1) <= limit / 32);
        CHECK(all.quantile(0.75) == longest);
        CHECK(all.quantile(1) == longest);
    }

    TEST_CASE("a share that is none is brought to the nearest that is") {
        const histogram_sum all = sum_of({1, 2, 3});
        CHECK(all.quantile(-1) == 1);
        CHECK(all.quantile(2) == 3);
    }

    TEST_CASE("several add up to what one would have been") {
        const std::vector<std::uint64_t> values = random_times(3, 10'000);
        std::array<histogram, 3> parts;
        for (std::size_t i = 0; i < values.size(); ++i) parts[i % parts.size()].record(values[i]);
        histogram_sum merged;
        for (const histogram& each : parts) merged.add(each);
        const histogram_sum whole = sum_of(values);
        CHECK(merged.count() == whole.count());
        CHECK(merged.total() == whole.total());
        CHECK(merged.max() == whole.max());
        for (int percent = 0; percent <= 100; ++percent)
            CHECK(merged.quantile(percent / 100.0) == whole.quantile(percent / 100.0));
    }

    TEST_CASE("who reads while its owner writes finds each counted value in sum and maximum") {
        const auto shared = std::make_unique<histogram>();
        constexpr std::uint64_t most = 200'000;
        std::thread owner([&] {
            for (std::uint64_t value = 1; value <= most; ++value) shared->record(value);
        });
        std::uint64_t seen = 0;
        while (seen < most) {
            histogram_sum now;
            now.add(*shared);
            REQUIRE(now.count() >= seen);
            seen = now.count();
            REQUIRE(now.max() >= seen);  // the value that was counted last
            REQUIRE(now.total() >= seen * (seen + 1) / 2);
        }
        owner.join();
        CHECK(seen == most);
    }
}
