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

/// Time, on the steady clock. A sleeping token costs its core nothing; all timers of a loop are in one structure.
///
///     co_await tg::sleep_for(10ms);
///     co_await tg::sleep_until(next_tick);                     // std::chrono::steady_clock
///     auto page = co_await tg::with_timeout(fetch(url), 2s);   // a token, a task or a single wait; throws token_timeout
///     co_await tg::yield();                                    // lets others of this core run
///
/// Nothing fires early; a timer may fire late by its tick of 16.4 µs, and by what runs on its core. Zero and negative
/// durations: a sleep returns at once, a timeout stops what has not started. A clock other than the steady one does not
/// compile: it may jump. Errors: token_stopped when the sleeper is asked to stop, wrong_thread where no event loop runs.

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

[[nodiscard]] inline detail::yielding yield() noexcept { return {}; }

/// with_timeout for a task, which runs here, as a token of its own; for tokens see detail/time_limit.hpp.
template <class T>
task<T> with_timeout(task<T> work, time_span limit) {
    return with_timeout(as_token(std::move(work)), limit);
}

/// with_timeout for a single wait, which needs no token of its own: `co_await tg::with_timeout(client.read(buffer), 2s)`.
/// It is awaited in the expression that makes the wait, to which it refers.
/// What the kernel has achieved all the same is delivered; what cannot be cut short (blocking, resolve) is waited for.
template <std::derived_from<detail::suspension> Wait>
detail::wrapped_wait<detail::limited_wait<Wait>, Wait, time_span> with_timeout(
    Wait&& wait TOKENGATE_REFERS, time_span limit) {
    return {wait, limit};
}

}  // namespace tokengate
