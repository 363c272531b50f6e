// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/relaxed.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>

/// A histogram of durations that one thread fills and any thread may read, and a sum of several for
/// the reader.
///
///     waits.record(now - began);      // its owner: three stores, no locked instruction
///
///     histogram_sum all;              // any thread
///     for (const auto& each : cores) all.add(each.waits);
///     all.quantile(0.99);
///
/// The scheme is HdrHistogram's (Gil Tene): each octave has 16 steps of equal width. So 625 buckets
/// (5 KiB) cover 1 ns to 2^42 ns (73 minutes). The value read from a bucket is its middle, and is
/// off by at most 1/32 of the value. Below 32 ns it is exact. Values of 2^42 ns and above share the
/// last bucket, and only the largest is known.
///
/// A reader that counts a value also finds it in `total` and `max`. These may be ahead of the
/// count.

namespace tokengate::detail {

struct histogram_scheme {
    static constexpr unsigned steps_log = 4;  // steps in an octave
    static constexpr unsigned octaves = 42;
    static constexpr std::uint64_t steps = std::uint64_t{1} << steps_log;
    static constexpr std::size_t buckets = (octaves - steps_log + 1) * steps + 1;

    static constexpr std::size_t bucket_of(std::uint64_t ns) noexcept {
        if (ns < steps) return ns;
        if (ns >> octaves) return buckets - 1;
        const unsigned shift = static_cast<unsigned>(std::bit_width(ns)) - 1 - steps_log;
        return (shift + 1) * steps + (ns >> shift) % steps;
    }

    /// The value read from a bucket: its middle, or for the last one its beginning.
    static constexpr std::uint64_t middle_of(std::size_t bucket) noexcept {
        if (bucket < 2 * steps) return bucket;
        if (bucket == buckets - 1) return std::uint64_t{1} << octaves;
        const auto shift = static_cast<unsigned>(bucket / steps - 1);
        return ((steps + bucket % steps) << shift) + ((std::uint64_t{1} << shift) - 1) / 2;
    }
};

class histogram : private histogram_scheme {
public:
    void record(std::uint64_t ns) noexcept {
        total_.add(ns);
        if (ns > max_.load()) max_.store(ns);
        counts_[bucket_of(ns)].add_release(1);  // pairs with histogram_sum::add
    }

private:
    friend class histogram_sum;
    std::array<relaxed<std::uint64_t>, buckets> counts_{};
    relaxed<std::uint64_t> total_{};
    relaxed<std::uint64_t> max_{};
};

class histogram_sum : private histogram_scheme {
public:
    void add(const histogram& from) noexcept {
        for (std::size_t i = 0; i < buckets; ++i) {
            const std::uint64_t there =
                from.counts_[i].load_acquire();  // pairs with histogram::record
            counts_[i] += there;
            count_ += there;
        }
        total_ += from.total_.load();
        max_ = std::max(max_, from.max_.load());
    }

    [[nodiscard]] std::uint64_t count() const noexcept { return count_; }
    [[nodiscard]] std::uint64_t total() const noexcept { return total_; }
    [[nodiscard]] std::uint64_t max() const noexcept { return max_; }

    /// The smallest value that a share of `q`, 0 … 1, of all values does not exceed. 0 if there are
    /// no values. The largest value is exact, others are to 1/32.
    [[nodiscard]] std::uint64_t quantile(double q) const noexcept {
        const auto rank = static_cast<std::uint64_t>(std::ceil(std::clamp(q, 0.0, 1.0) *
                                                               static_cast<double>(count_)));
        if (rank >= count_) return max_;
        std::uint64_t seen = 0;
        std::size_t bucket = 0;
        while (bucket < buckets - 1 && (seen += counts_[bucket]) < std::max<std::uint64_t>(rank, 1))
            ++bucket;
        return bucket == buckets - 1 ? max_ : std::min(middle_of(bucket), max_);
    }

    /// Calls visit(i, number of values that are at most bounds[i]) for each of the ascending
    /// bounds; exact to 1/32 of the bound.
    template <class Bounds, class Visit>
    void up_to(const Bounds& bounds, Visit visit) const {
        std::uint64_t seen = 0;
        std::size_t bucket = 0;
        for (std::size_t i = 0; i < std::size(bounds); ++i) {
            while (bucket < buckets && middle_of(bucket) <= bounds[i]) seen += counts_[bucket++];
            visit(i, seen);
        }
    }

private:
    std::array<std::uint64_t, buckets> counts_{};
    std::uint64_t count_ = 0;
    std::uint64_t total_ = 0;
    std::uint64_t max_ = 0;
};

}  // namespace tokengate::detail
