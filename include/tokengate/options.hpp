// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/time_span.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <string_view>

/// The options of an operation: which cores may run it, which storage it uses, and what follows a
/// failure or a timeout.
///
///     const tg::operation parse{{.name = "parse", .weight = tg::weight::light},
///                               [](std::string s) { … }};
///
/// Lifetime: All types here are values without ownership. Names are string literals, checked where
/// they are written.
///
/// Errors: The constructor of the operation throws configuration_error for an option out of range.

namespace tokengate {

/// The weight class selects an operation's home range of cores [first, N): heavy from 0, medium
/// from 1, light from 2. On fewer cores the ranges fold: on one core, medium runs there; on two,
/// light shares medium's range.
enum class weight : std::uint8_t { light, medium, heavy };

/// The speed of the storage that an operation uses. The gate admits a limited number of operations
/// of each tier but `none` at a time. The others wait at the gate and hold neither a thread nor
/// memory beyond their frame.
enum class storage : std::uint8_t { none, slow, moderate, fast, insane };

/// Where light and medium tokens may run while every core of their home range is full.
enum class spill : std::uint8_t {
    /// On a core outside their range that has at least half of its window free, up to that half.
    when_saturated,
    never  ///< only in their range: they wait
};

/// Of which tokens the runtime records the times, by the steady clock: at the gate, at the start,
/// at the end. Each value but off implies metrics, and metrics imply sampled.
enum class timing : std::uint8_t {
    off,      ///< of none: the clock is not read
    sampled,  ///< of one in 16
    full      ///< of all
};

/// What the gate does with a token that would have to wait there while the backlog is full.
enum class backlog_policy : std::uint8_t {
    wait,    ///< the spawner waits: runtime::submit and scope::spawn return when there is room
    reject,  ///< the gate rejects the token: admission_rejected
    /// The gate rejects the oldest waiting token instead, first in its class's queue:
    /// admission_rejected.
    shed_oldest
};

/// How much of a domain's SHA-256 digest `this_token::seed()` returns. A domain is not identified
/// by its digest, so short digests that collide are harmless.
enum class digest_policy : std::uint8_t {
    full,    ///< 64 digits
    short_,  ///< the first 16
    minimal  ///< the first 8
};

/// The name of an operation: a string literal of 1 … 64 printable ASCII characters. Nothing else
/// compiles.
class operation_name {
public:
    static constexpr std::size_t longest = 64;

    template <std::size_t N>
    consteval operation_name(const char (&literal)[N])
        : text_(literal) {  // NOLINT(google-explicit-constructor)
        static_assert(N >= 2, "an operation needs a name");
        static_assert(N - 1 <= longest, "an operation's name has at most 64 characters");
        for (std::size_t i = 0; i + 1 < N; ++i)
            if (literal[i] < ' ' || literal[i] > '~')
                throw "an operation's name has printable ASCII characters only";
    }

    [[nodiscard]] constexpr const char* c_str() const noexcept { return text_; }
    [[nodiscard]] constexpr std::string_view view() const noexcept { return text_; }

private:
    const char* text_;
};

/// If a token fails, the library makes another attempt, until one succeeds or there have been
/// `attempts`. Each attempt is a token of its own, with copies of the arguments and the whole
/// timeout. The gate puts it behind the tokens that came meanwhile. The awaiter gets the last
/// failure. Before another attempt the library waits for `backoff`, which doubles from one attempt
/// to the next, up to `max_backoff`. It subtracts a random part of that: at most the share
/// `jitter`.
///
/// A token that was stopped, killed, or rejected by the gate is never retried.
struct retry_options {
    /// The number of all attempts; 1: no retry. More than 1 need arguments that can be copied.
    unsigned attempts = 1;
    time_span backoff = std::chrono::milliseconds(10);
    time_span max_backoff = std::chrono::seconds(30);
    double jitter = 0.5;  ///< 0: always the whole backoff; 1: any part of it, down to none
    /// Returns whether a failure is worth another attempt; null: every failure is. See retry_on.
    bool (*retry_if)(const std::exception_ptr&) = nullptr;
};

namespace detail {

template <class Error>
bool is_a(const std::exception_ptr& failure) {
    try {
        std::rethrow_exception(failure);
    } catch (const Error&) {
        return true;
    } catch (...) {
        return false;
    }
}

}  // namespace detail

/// For `retry_if`: whether a failure is of one of these types, or of a type derived from one.
///
///     {.name = "fetch",
///      .retry = {.attempts = 4,
///                .retry_if = tg::retry_on<std::system_error, tg::token_timeout>}}
template <class... Errors>
bool retry_on(const std::exception_ptr& failure) {
    return (detail::is_a<Errors>(failure) || ...);
}

/// While too many of an operation's runs fail, the gate rejects its tokens with operation_blocked.
/// After `open_for` it admits `probes` of them. If all succeed, the breaker closes and counts anew;
/// if one fails, the gate rejects again for `open_for`. A run fails if it throws or its timeout is
/// over; a token that was killed or rejected is no run.
struct breaker_options {
    /// If more than this share of the runs fails, the breaker opens: 0.9 is 90 %. Below 1; 0: no
    /// breaker.
    double failure_rate = 0;
    unsigned min_runs = 10;  ///< while there have been fewer, the breaker stays closed
    unsigned window = 100;   ///< how many of the last runs count; at most 1,000,000
    time_span open_for = std::chrono::seconds(30);
    unsigned probes = 1;
};

/// If a run takes longer than `factor` × the usual time, the gate rejects the operation's tokens
/// until an operator calls gate_control::release. The usual time is that within which a share of
/// `quantile` of the operation's runs end. The rejected tokens get operation_blocked, which names
/// the token of that run and its arguments. A run time is from start to end, with everything that
/// the body awaits.
struct quarantine_options {
    double factor = 0;  ///< at least 1; 0: no quarantine
    double quantile = 0.99;
    unsigned min_runs = 100;  ///< while fewer have ended, no run is judged
};

struct operation_options {
    operation_name name;
    tokengate::weight weight = tokengate::weight::medium;
    tokengate::storage storage = tokengate::storage::none;
    retry_options retry{};
    /// From admission to end, for each attempt; 0: none. See with_timeout.
    time_span timeout{};
    breaker_options breaker{};
    quarantine_options quarantine{};
};

}  // namespace tokengate
