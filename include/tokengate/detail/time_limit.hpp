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

/// Limits on how long a token or a single wait may take. with_timeout and an operation's own
/// timeout are made of these.

namespace tokengate {

namespace detail {

/// Requests a token to stop when its time is over. Lies in the frame that awaits the token, on its
/// loop.
class time_limit {
public:
    time_limit(token_record& limited, std::chrono::nanoseconds limit);
    ~time_limit();
    time_limit(const time_limit&) = delete;
    time_limit& operator=(const time_limit&) = delete;

    /// Called if a stop ended the token: throws token_timeout if this limit requested the stop.
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
    bool started_ = false;  ///< whether the token had started when its time was over
};

/// Ends one wait of the running body when its time is over, as a stop would. The body itself gets
/// no stop request.
class wait_limit {
public:
    explicit wait_limit(std::chrono::nanoseconds limit) noexcept : limit_(limit) {}
    ~wait_limit() { end(); }
    wait_limit(const wait_limit&) = delete;
    wait_limit& operator=(const wait_limit&) = delete;

    /// Called before the wait: throws token_timeout if there is no time at all.
    void check() const;
    /// Called when the body is suspended in this wait.
    void begin(suspension& wait) noexcept;
    void end() noexcept;
    /// Called if the wait threw token_stopped: throws token_timeout if this limit ended the wait.
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

/// A wait with a limit, in the form in which it is awaited.
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

/// Returns the token's result if the token ends in time. If not, requests it to stop, awaits it,
/// and throws token_timeout. If the token returns a result all the same, the result counts. The
/// time starts at this call and includes the wait at the gate.
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
