// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/suspension.hpp>
#include <tokengate/detail/time_limit.hpp>
#include <tokengate/detail/timer.hpp>
#include <tokengate/task.hpp>
#include <tokengate/task_token.hpp>
#include <tokengate/time_span.hpp>

#include <chrono>
#include <concepts>
#include <coroutine>
#include <cstdint>
#include <utility>

/// Waits and timeouts on the steady clock. A token that sleeps costs its core nothing; all timers
/// of a loop are in one structure. No timer fires early. A timer may fire late by its tick of 16.4
/// µs, and by the time that other tokens hold its core. For a zero or negative duration, a sleep
/// returns at once, and a timeout stops work that has not started. Another clock than the steady
/// one does not compile: it may jump.
///
///     co_await tg::sleep_for(10ms);
///     co_await tg::sleep_until(next_tick);  // std::chrono::steady_clock
///     // a token, a task or a single wait; throws token_timeout
///     auto page = co_await tg::with_timeout(fetch(url), 2s);
///     co_await tg::yield();  // lets others of this core run
///
/// Errors:
/// * token_stopped if the token is asked to stop, wrong_thread where no event loop runs.
/// * From with_timeout: token_timeout when its timeout is over, already_awaited for an empty token
///   or task, and the errors of the work.
///
/// Stop: A stop ends a sleep with token_stopped. `yield` throws it if the token was asked before.
/// with_timeout passes a stop to its work.

namespace tokengate {

namespace detail {

[[nodiscard]] std::uint64_t deadline_after(std::chrono::nanoseconds from_now) noexcept;
[[nodiscard]] std::uint64_t deadline_at(std::chrono::nanoseconds since_epoch) noexcept;

class sleep : public suspension {
public:
    explicit sleep(std::uint64_t deadline_ns) noexcept { timer_.deadline_ns = deadline_ns; }
    sleep(const sleep&) = delete;
    sleep& operator=(const sleep&) = delete;

    bool await_ready() const noexcept { return false; }
    bool await_suspend(std::coroutine_handle<> awaiting);
    void await_resume() const;

private:
    struct alarm : timer {
        sleep* of;
    };
    alarm timer_;
    bool stopped_ = false;
};

class yielding : public suspension {
public:
    bool await_ready() const noexcept { return false; }
    bool await_suspend(std::coroutine_handle<> awaiting);
    void await_resume() const noexcept {}
};

}  // namespace detail

[[nodiscard]] inline detail::sleep sleep_for(time_span duration) {
    return detail::sleep(detail::deadline_after(duration));
}

template <class Duration>
[[nodiscard]] detail::sleep sleep_until(
    std::chrono::time_point<std::chrono::steady_clock, Duration> when) {
    return detail::sleep(detail::deadline_at(time_span(when.time_since_epoch())));
}

/// Suspends the token behind all tokens that wait to run or to start on this core.
[[nodiscard]] inline detail::yielding yield() noexcept { return {}; }

/// with_timeout for a task, which runs on this loop as a token of its own; for tokens see
/// detail/time_limit.hpp.
template <class T>
task<T> with_timeout(task<T> work, time_span limit) {
    return with_timeout(as_token(std::move(work)), limit);
}

/// with_timeout for a single wait, which needs no token of its own: `co_await
/// tg::with_timeout(client.read(buffer), 2s)`. Await it in the expression that makes the wait,
/// since it refers to the wait. If the kernel has completed the operation all the same, its result
/// counts. A wait that cannot be interrupted (blocking, resolve) is awaited to its end.
template <std::derived_from<detail::suspension> Wait>
detail::wrapped_wait<detail::limited_wait<Wait>, Wait, time_span> with_timeout(
    Wait&& wait TOKENGATE_REFERS, time_span limit) {
    return {wait, limit};
}

}  // namespace tokengate
