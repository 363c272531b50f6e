// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/suspension.hpp>
#include <tokengate/detail/timer.hpp>
#include <tokengate/detail/token_record.hpp>
#include <tokengate/error.hpp>
#include <tokengate/task.hpp>
#include <tokengate/time_span.hpp>
#include <tokengate/token.hpp>

#include <chrono>
#include <coroutine>
#include <utility>

/// How long a token, or a single wait, may take; what with_timeout and an operation's own timeout are made of.

namespace tokengate {

namespace detail {

/// Asks a token to stop when its time is over. In the frame that awaits the token, on its loop.
class time_limit {
public:
    time_limit(token_record& limited, std::chrono::nanoseconds limit);
    ~time_limit();
    time_limit(const time_limit&) = delete;
    time_limit& operator=(const time_limit&) = delete;

    /// The token has ended because of a stop: throws token_timeout if it was ours.
    void rethrow_if_over() const;

private:
    struct alarm : timer {
        time_limit* of;
    };
    alarm timer_;
    executor* home_;
    token_record* limited_;
    std::chrono::nanoseconds limit_;
    token_id id_;
    bool over_ = false;
    bool started_ = false;  ///< when it was over
};

/// Ends one wait of the running body when its time is over, as a stop would; the body itself is asked nothing.
class wait_limit {
public:
    explicit wait_limit(std::chrono::nanoseconds limit) noexcept : limit_(limit) {}
    ~wait_limit() { end(); }
    wait_limit(const wait_limit&) = delete;
    wait_limit& operator=(const wait_limit&) = delete;

    /// Before the wait: throws token_timeout if there is no time at all.
    void check() const;
    /// The body is suspended in this wait.
    void begin(suspension& wait) noexcept;
    void end() noexcept;
    /// The wait has ended because of a stop: throws token_timeout if it was ours.
    void rethrow_if_over() const {
        if (over_) throw_over();
    }

private:
    struct alarm : timer {
        wait_limit* of;
    };
    [[noreturn]] void throw_over() const;

    alarm timer_;
    const std::chrono::nanoseconds limit_;
    suspension* wait_ = nullptr;
    bool over_ = false;
};

/// A wait with a limit, as it is awaited.
template <class Wait>
class limited_wait {
public:
    limited_wait(Wait& wait, std::chrono::nanoseconds limit) noexcept
        : wait_(wait), limit_(limit) {}
    limited_wait(const limited_wait&) = delete;
    limited_wait& operator=(const limited_wait&) = delete;

    bool await_ready() { return wait_.await_ready(); }
    bool await_suspend(std::coroutine_handle<> awaiting) {
        limit_.check();
        if (!wait_.await_suspend(awaiting)) return false;
        limit_.begin(wait_);
        return true;
    }
    decltype(auto) await_resume() {
        limit_.end();
        try {
            return wait_.await_resume();
        } catch (const token_stopped&) {
            limit_.rethrow_if_over();
            throw;
        }
    }

private:
    Wait& wait_;
    wait_limit limit_;
};

}  // namespace detail

/// The token's result, if it ends in time; else it is asked to stop, awaited, and token_timeout thrown. A result that it
/// returns all the same counts. The time is counted from here, the wait at the gate included.
template <class T>
task<T> with_timeout(token<T> work, time_span limit) {
    if (!work.valid()) detail::throw_already_awaited();
    const detail::time_limit alarm(detail::token_access::record(work), limit);
    try {
        co_return co_await work;
    } catch (const token_stopped&) {
        alarm.rethrow_if_over();
        throw;
    }
}

}  // namespace tokengate
