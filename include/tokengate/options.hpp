// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/time_span.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <string_view>

/// What an operation says about where it may run.
///
///     const tg::operation parse{{.name = "parse", .weight = tg::weight::light}, [](std::string s) { … }};
///
/// All types here are values without ownership: names are string literals, checked where they are written.

namespace tokengate {

/// The weight class decides an operation's home range of cores [first, N): heavy from 0, medium from 1, light from 2.
/// On fewer cores the ranges fold: medium on one core runs there, light on two shares medium's range.
enum class weight : std::uint8_t { light, medium, heavy };

/// The speed of the storage an operation uses. Each tier but `none` admits a limited number of operations at a time;
/// the others wait at the gate and hold neither a thread nor memory beyond their frame.
enum class storage : std::uint8_t { none, slow, moderate, fast, insane };

/// What light and medium tokens do while every core of their home range is full.
enum class spill : std::uint8_t {
    when_saturated,  ///< may run on a core outside their range that has at least half its window free, up to that much
    never  ///< wait for their range
};

/// Of which tokens the times are taken, by the steady clock: at the gate, at the start, at the end. Any but off implies
/// metrics, and metrics imply sampled.
enum class timing : std::uint8_t {
    off,      ///< of none: no look at the clock
    sampled,  ///< of one in 16
    full      ///< of all
};

/// What becomes of a token that would have to wait at the gate while as many as may do so.
enum class backlog_policy : std::uint8_t {
    wait,        ///< who spawns waits: runtime::submit and scope::spawn return when there is room
    reject,      ///< it is refused: admission_rejected
    shed_oldest  ///< the one that has waited longest, first in its class's queue, is refused instead: admission_rejected
};

/// How much of a domain's SHA-256 digest `this_token::seed()` shows. Identity is the domain's own, so short digests that
/// collide are harmless.
enum class digest_policy : std::uint8_t {
    full,    ///< 64 digits
    short_,  ///< the first 16
    minimal  ///< the first 8
};

/// The name of an operation: a string literal of 1 … 64 printable ASCII characters. Anything else does not compile.
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

/// What becomes of a token that failed: another attempt, until one succeeds or there have been enough. Each is a token of
/// its own, and so has copies of the arguments, the time limit for itself, and a place at the gate behind those that came
/// meanwhile. The last failure is the awaiter's. Before another attempt passes `backoff`, doubled from one to the next up to
/// `max_backoff`, less a random part of it: at most `jitter` times.
///
/// Never again: what was stopped or killed, or refused by the gate.
struct retry_options {
    unsigned attempts =
        1;  ///< all of them; 1: none is repeated. More need arguments that can be copied
    time_span backoff = std::chrono::milliseconds(10);
    time_span max_backoff = std::chrono::seconds(30);
    double jitter = 0.5;  ///< 0: always the same; 1: anything down to none
    bool (*retry_if)(const std::exception_ptr&) =
        nullptr;  ///< which failures are worth it; null: all. See retry_on
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

/// For `retry_if`: whether a failure is of one of these types, or derived from it.
///
///     {.name = "fetch", .retry = {.attempts = 4, .retry_if = tg::retry_on<std::system_error, tg::token_timeout>}}
template <class... Errors>
bool retry_on(const std::exception_ptr& failure) {
    return (detail::is_a<Errors>(failure) || ...);
}

/// While too many of an operation's runs fail, the gate refuses its tokens: operation_blocked. After `open_for` it lets
/// `probes` of them in; if all succeed, all is as before and counts anew, and if one fails, it refuses again for
/// `open_for`. Failures are runs that throw or whose time is over; what was killed or refused is no run.
struct breaker_options {
    double failure_rate =
        0;  ///< the share, below 1, over which it opens: 0.9 is 90 %; 0: no breaker
    unsigned min_runs = 10;  ///< as long as there are fewer, it stays closed
    unsigned window = 100;   ///< how many runs count, the last ones; at most 1,000,000
    time_span open_for = std::chrono::seconds(30);
    unsigned probes = 1;
};

/// Once a run has taken longer than `factor` × the time within which a share of `quantile` of the operation's runs end, the
/// gate refuses its tokens until somebody has looked at it: operation_blocked, which names the token and its arguments,
/// until gate_control::release. The time is from start to end, with all that the body awaits.
struct quarantine_options {
    double factor = 0;  ///< at least 1; 0: no quarantine
    double quantile = 0.99;
    unsigned min_runs = 100;  ///< as long as fewer have ended, none is judged
};

struct operation_options {
    operation_name name;
    tokengate::weight weight = tokengate::weight::medium;
    tokengate::storage storage = tokengate::storage::none;
    retry_options retry{};
    time_span
        timeout{};  ///< from a token's admission to its end, each attempt's; 0: none. See with_timeout
    breaker_options breaker{};
    quarantine_options quarantine{};
};

}  // namespace tokengate
