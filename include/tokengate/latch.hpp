// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/wait_queue.hpp>

#include <atomic>
#include <coroutine>
#include <cstddef>

/// A latch opens once, when it has been counted down to zero. Counting down by more than is left
/// opens it. Each waiter resumes on its own core. Everything that happened before a count_down
/// happens before the resumption of the tokens that the latch releases.
///
///     tg::latch loaded(parts);
///     loaded.count_down();                // any thread
///     co_await loaded.wait();             // any number of tokens
///     co_await loaded.arrive_and_wait();  // both
///
/// Thread safety: Tokens wait inside the runtime; every other call works on any thread.
///
/// Lifetime: No token may wait for the latch when it is destroyed. A token that the latch has
/// released may destroy it, also if the latch lies in the frame of a token that arrives.
///
/// Errors: Of the waits: token_stopped if the token is asked to stop, also if the latch is open;
/// wrong_thread where no event loop runs.
///
/// Stop: A stop ends both waits with token_stopped; arrive_and_wait has counted down all the same.
/// If the latch has released the token before, the wait succeeds.

namespace tokengate {

class latch {
public:
    explicit latch(std::size_t count) noexcept : left_(count) {}

    void count_down(std::size_t by = 1) noexcept;
    // The acquire pairs with the release in `lower`.
    [[nodiscard]] bool is_open() const noexcept {
        return left_.load(std::memory_order_acquire) == 0;
    }

    [[nodiscard]] auto wait() noexcept { return waiting_for(*this, 0); }
    /// Counts down when it is awaited, then waits. It counts down also if the token was asked to
    /// stop, so that a stop does not keep the latch closed for the others.
    [[nodiscard]] auto arrive_and_wait(std::size_t by = 1) noexcept {
        return waiting_for(*this, by);
    }

private:
    class waiting_for : public detail::queued_wait {
    public:
        waiting_for(latch& of, std::size_t by) noexcept : of_(of), by_(by) {}
        bool await_ready() const noexcept { return by_ == 0 && may_try() && of_.is_open(); }
        bool await_suspend(std::coroutine_handle<> awaiting);
        void await_resume() { resumed("wait for a latch"); }

    private:
        latch& of_;
        std::size_t by_;
    };

    /// The caller holds the lock. Returns whether the latch is open now.
    bool lower(std::size_t by, detail::hook_queue& released) noexcept;

    detail::wait_queue waiting_;
    /// Stored under the queue's lock (release). Also loaded without the lock (acquire), by tokens
    /// that come when the latch is open.
    std::atomic<std::size_t> left_;
};

}  // namespace tokengate
