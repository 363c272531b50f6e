// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/brief_lock.hpp>
#include <tokengate/detail/core_context.hpp>
#include <tokengate/detail/hook.hpp>
#include <tokengate/detail/suspension.hpp>

#include <atomic>
#include <coroutine>
#include <cstdint>

/// Bodies of any core that wait for the same thing, first come first served; what mutex, semaphore, event, latch and
/// channel are made of. The queue's lock guards it and its owner's own fields.
///
///     bool await_ready() { return may_try() && of.try_take(); }
///     bool await_suspend(std::coroutine_handle<> awaiting) {
///         core_context& core = enter(what);
///         std::unique_lock lock(of.queue.lock);
///         const bool has_it = of.take();
///         if (!has_it) of.queue.push(*this, core, awaiting);
///         lock.unlock();
///         return has_it ? goes_on(core, awaiting) : waits(core);
///     }
///     void await_resume() { resumed(what); }                  // throws token_stopped
///
///     hook_queue released;                                    // who gives: any thread
///     { std::scoped_lock lock(queue.lock); if (auto* first = queue.pop()) released.push(first); … }
///     wake_all(released);                                     // from here on the owner may be gone
///
/// Between a waker and a stop, `fate_` decides, by one compare-and-swap each. Who was released never touches the queue
/// again, even if a stop comes before it runs: it may run after the queue has been destroyed. Who is being stopped
/// stays linked until its own thread has the lock; wakers pass it by, and the queue's destructor lets it leave.

namespace tokengate::detail {

class wait_queue;

class queued_wait : public suspension {
public:
    queued_wait(const queued_wait&) = delete;
    queued_wait& operator=(const queued_wait&) = delete;

protected:
    queued_wait() noexcept = default;
    ~queued_wait() = default;

    /// For await_ready: the body is on a loop, not asked to stop, and has not gone on for so long without waiting that
    /// others must have a turn; what it takes may be taken at once.
    [[nodiscard]] static bool may_try() noexcept {
        core_context* core = this_core;
        return core && core->host && !(core->current && core->current->stop_pending()) &&
               --core->inline_budget >= 0;
    }
    /// Ends await_suspend for one that has got what it wants: false, or true if the loop has a turn first.
    [[nodiscard]] bool goes_on(core_context& core, std::coroutine_handle<> awaiting) noexcept;
    /// Ends await_suspend for one that was pushed. A storage permit goes back meanwhile.
    [[nodiscard]] static bool waits(core_context& core) noexcept;
    /// For await_resume.
    void resumed(const char* what) {
        if (token) after_wait(what);
    }

private:
    friend wait_queue;

    enum class fate : std::uint8_t { open, released, stopped };

    static void stop(core_context&, wait_point& point) noexcept;
    void after_wait(const char* what);
    /// Relaxed: what was released is handed over by a mailbox, who is stopped takes the lock.
    bool decide(fate how) noexcept {
        fate expected = fate::open;
        return fate_.compare_exchange_strong(expected, how, std::memory_order_relaxed);
    }

    wait_queue* in_ = nullptr;  // this and the links: under the queue's lock
    queued_wait* before_ = nullptr;
    queued_wait* behind_ = nullptr;
    /// Left by one compare-and-swap: a waker's under the queue's lock, or that of a stop on the home's thread.
    std::atomic<fate> fate_{fate::open};
};

class wait_queue {
public:
    wait_queue() noexcept = default;
    wait_queue(const wait_queue&) = delete;
    wait_queue& operator=(const wait_queue&) = delete;
    /// Nobody may wait any more; who is just being stopped may.
    ~wait_queue();

    mutable brief_lock lock;

    // ---- with the lock held ----

    /// Whether anybody is linked, be it one that is being stopped.
    [[nodiscard]] bool empty() const noexcept { return first_ == nullptr; }
    /// Suspends the running body, as the last in the queue.
    void push(queued_wait& last, core_context& core, std::coroutine_handle<> awaiting) noexcept;
    /// The longest waiting; null if nobody waits. A stop may still come.
    [[nodiscard]] queued_wait* front() const noexcept {
        return first_ ? first_not_stopped() : nullptr;
    }
    /// Takes one out for good: false if a stop was quicker. Who is released must be woken.
    [[nodiscard]] bool release(queued_wait& waiting) noexcept;
    /// Releases the longest waiting; null if nobody waits.
    [[nodiscard]] queued_wait* pop() noexcept;
    /// Releases all, in order.
    void pop_all(hook_queue& released) noexcept {
        while (queued_wait* next = pop()) released.push(next);
    }

private:
    friend queued_wait;
    [[nodiscard]] queued_wait* first_not_stopped() const noexcept;
    void unlink(queued_wait& leaving) noexcept;

    queued_wait* first_ = nullptr;
    queued_wait* last_ = nullptr;
};

void send_all_home(hook_queue& released) noexcept;

/// Sends released bodies home, in order: a chain for each loop. Any thread, without the lock.
inline void wake_all(hook_queue& released) noexcept {
    if (!released.empty()) send_all_home(released);
}

}  // namespace tokengate::detail
