// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/wait_queue.hpp>

#include <atomic>
#include <coroutine>
#include <cstddef>

/// Opens once, when it has been counted down to zero.
///
///     tg::latch loaded(parts);
///     loaded.count_down();                  // any thread
///     co_await loaded.wait();               // any number of tokens
///     co_await loaded.arrive_and_wait();    // both
///
/// Waiters resume on their own cores. What happened before a count_down has happened for those who are let through. Thread
/// safety: waiting inside the runtime, everything else on any thread. Nobody may be waiting when it is destroyed; whoever
/// was let through may destroy it, also if it lies in the frame of one of those who arrive. Counting down by more than is
/// left opens it. Errors of the waits: token_stopped, also if it is open; wrong_thread.

namespace tokengate {

class latch {
public:
    explicit latch(std::size_t count) noexcept : left_(count) {}

    void count_down(std::size_t by = 1) noexcept;
    [[nodiscard]] bool is_open() const noexcept {
        return left_.load(std::memory_order_acquire) == 0;
    }  // pairs with lower

    [[nodiscard]] auto wait() noexcept { return waiting_for(*this, 0); }
    /// Arrives when it is awaited, whether or not the token has been asked to stop: the others need not suffer for it.
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

    /// With the lock held: whether it is open now.
    bool lower(std::size_t by, detail::hook_queue& released) noexcept;

    detail::wait_queue waiting_;
    /// Stored under the queue's lock (release); loaded also without it (acquire), by those who come when it is open.
    std::atomic<std::size_t> left_;
};

}  // namespace tokengate
