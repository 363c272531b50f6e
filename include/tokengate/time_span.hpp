// SPDX-License-Identifier: MIT
#pragma once

#include <chrono>

/// A time_span is a length of time, made of any std::chrono::duration, whole or fractional. A
/// duration longer than nanoseconds can count (292 years) becomes the longest that they can, where
/// std::chrono's own conversion would overflow. A duration that is not a number becomes that long
/// too.
///
///     tg::with_timeout(work, 1.5s);
///     tg::sleep_for(20ms);
///     runtime.stop(std::chrono::hours::max());

namespace tokengate {

class time_span {
public:
    constexpr time_span() noexcept = default;
    template <class Rep, class Period>
    constexpr time_span(std::chrono::duration<Rep, Period> duration) noexcept
        : value_(in_nanoseconds(duration)) {}

    constexpr operator std::chrono::nanoseconds() const noexcept { return value_; }
    [[nodiscard]] constexpr std::chrono::nanoseconds::rep count() const noexcept {
        return value_.count();
    }
    /// The value for "without end".
    [[nodiscard]] static constexpr time_span max() noexcept {
        return std::chrono::nanoseconds::max();
    }

private:
    template <class Rep, class Period>
    static constexpr std::chrono::nanoseconds in_nanoseconds(
        std::chrono::duration<Rep, Period> duration) noexcept {
        using seconds = std::chrono::duration<long double>;
        constexpr seconds longest = std::chrono::nanoseconds::max();
        if (!(seconds(duration) < longest)) return std::chrono::nanoseconds::max();
        if (!(seconds(duration) > -longest)) return std::chrono::nanoseconds::min();
        return std::chrono::duration_cast<std::chrono::nanoseconds>(duration);
    }

    std::chrono::nanoseconds value_{};
};

}  // namespace tokengate
