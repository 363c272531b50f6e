// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>

/// Counts of whole numbers (nanoseconds, mostly) in classes that are at most 1/64 of their value wide, over the whole
/// range of 64 bits, in 30 KiB and without an allocation:
///
///     histogram latencies;
///     latencies.add(1234);
///     latencies.quantile(0.99);      // the greatest value of the class where it lies, and never above max()
///
/// Log-linear: values below 128 have a class of their own each; above, each doubling has 64 classes of equal width.
/// One thread writes; merge() brings those of several together.

class histogram {
public:
    void add(std::uint64_t value) noexcept {
        ++classes_[class_of(value)];
        ++count_;
        max_ = std::max(max_, value);
    }

    void merge(const histogram& other) noexcept {
        for (std::size_t i = 0; i < classes_.size(); ++i) classes_[i] += other.classes_[i];
        count_ += other.count_;
        max_ = std::max(max_, other.max_);
    }

    /// The least value that at least `q` of all are not above, rounded up to the end of its class. 0 without values.
    [[nodiscard]] std::uint64_t quantile(double q) const noexcept {
        const auto rank = static_cast<std::uint64_t>(std::ceil(q * static_cast<double>(count_)));
        std::uint64_t seen = 0;
        for (std::size_t i = 0; i < classes_.size(); ++i) {
            seen += classes_[i];
            if (seen != 0 && seen >= rank) return std::min(last_of(i), max_);
        }
        return max_;
    }

    [[nodiscard]] std::uint64_t count() const noexcept { return count_; }
    [[nodiscard]] std::uint64_t max() const noexcept { return max_; }

private:
    static constexpr unsigned precision = 6;  // bits: 1/64
    static constexpr std::uint64_t per_doubling = 1U << precision;

    /// How far a value is shifted until `precision` + 1 bits are left.
    static constexpr unsigned shift_of(std::uint64_t value) noexcept {
        const auto width = static_cast<unsigned>(std::bit_width(value));
        return width > precision + 1 ? width - (precision + 1) : 0;
    }
    static constexpr std::size_t class_of(std::uint64_t value) noexcept {
        const unsigned shift = shift_of(value);
        return shift * per_doubling + (value >> shift);
    }
    static constexpr std::uint64_t last_of(std::size_t index) noexcept {
        if (index < 2 * per_doubling) return index;
        const auto shift = index / per_doubling - 1;
        return ((index - shift * per_doubling + 1) << shift) -
               1;  // the very last wraps around to the greatest
    }

    // Two for the values of their own, one for each further doubling.
    std::array<std::uint64_t, (2 + 64 - (precision + 1)) * per_doubling> classes_{};
    std::uint64_t count_ = 0;
    std::uint64_t max_ = 0;
};
