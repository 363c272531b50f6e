// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/wait_queue.hpp>

#include <atomic>
#include <coroutine>

/// Something that has happened, or not yet: a flag that tokens wait for.
///
///     tg::event configured;
///     co_await configured.wait();          // any number of tokens
///     configured.set();                    // lets all of them go on, and whoever comes later, until
///     configured.reset();
///
/// Who waited when it was set goes on even if it is reset at once. Waiters resume on their own cores. What happened before
/// `set` has happened for those whom it lets through. Thread safety: waiting inside the runtime, everything else on any
/// thread. Nobody may be waiting when it is destroyed; whoever was let through may destroy it.
/// Errors of `wait`: token_stopped, also if it is set; wrong_thread.

namespace tokengate {

class event {
public:
    event() noexcept = default;

    void set() noexcept;
    void reset() noexcept;
    [[nodiscard]] bool is_set() const noexcept {
        return set_.load(std::memory_order_acquire);
    }  // pairs with set

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
    /// Stored under the queue's lock (release), so that it and the queue change together; loaded also without it (acquire):
    /// many may look at an event that has long been set, and need not take turns.
    std::atomic<bool> set_{false};
};

}  // namespace tokengate
