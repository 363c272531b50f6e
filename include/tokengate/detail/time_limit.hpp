// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/timer.hpp>
#include <tokengate/detail/token_record.hpp>
#include <tokengate/error.hpp>
#include <tokengate/task.hpp>
#include <tokengate/token.hpp>

#include <chrono>

/// How long a token may take; what with_timeout and an operation's own timeout are made of.

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
};

}  // namespace detail

/// The token's result, if it ends in time; else it is asked to stop, awaited, and token_timeout thrown. A result that it
/// returns all the same counts. The time is counted from here, the wait at the gate included.
template <class T>
task<T> with_timeout(token<T> work, std::chrono::nanoseconds limit) {
    const detail::time_limit alarm(detail::token_access::record(work), limit);
    try {
        co_return co_await work;
    } catch (const token_stopped&) {
        alarm.rethrow_if_over();
        throw;
    }
}

}  // namespace tokengate
