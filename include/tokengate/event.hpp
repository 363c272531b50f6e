// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/wait_queue.hpp>

#include <atomic>
#include <coroutine>

/// An event is a flag that tokens wait for: something has happened, or not yet. If the event is
/// reset right after it was set, the tokens that waited are resumed all the same. Each waiter
/// resumes on its own core. Everything that happened before `set` happens before the resumption of
/// the tokens that it releases.
///
///     tg::event configured;
///     co_await configured.wait();  // any number of tokens
///     configured.set();            // releases all of them, and all later waits, until
///     configured.reset();
///
/// Thread safety: Tokens wait inside the runtime; every other call works on any thread.
///
/// Lifetime: No token may wait for the event when it is destroyed. A token that the event has
/// released may destroy it.
///
/// Errors: Of `wait`: token_stopped if the token is asked to stop, also if the event is set;
/// wrong_thread where no event loop runs.
///
/// Stop: A stop ends the wait with token_stopped. If the event has released the token before, the
/// wait succeeds.

namespace tokengate {

class event {
public:
    event() noexcept = default;

    /// Sets the event and releases all waiting tokens.
    void set() noexcept;
    void reset() noexcept;
    // The acquire pairs with the release in `set`.
    [[nodiscard]] bool is_set() const noexcept { return set_.load(std::memory_order_acquire); }

    [[nodiscard]] auto wait() noexcept { return waiting_for(*this); }

private:
    class waiting_for : public detail::queued_wait {
    public:
        explicit waiting_for(event& of) noexcept : of_(of) {}
        bool await_ready() const noexcept { return may_try() && of_.is_set(); }
        bool await_suspend(std::coroutine_handle<> awaiting);
        void await_resume() { resumed("wait for an event"); }

    private:
        event& of_;
    };

    detail::wait_queue waiting_;
    /// Stored under the queue's lock (release), so that the flag and the queue change together.
    /// Also loaded without the lock (acquire), so that tokens need not take turns at an event that
    /// has long been set.
    std::atomic<bool> set_{false};
};

}  // namespace tokengate
