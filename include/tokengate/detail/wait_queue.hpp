// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/brief_lock.hpp>
#include <tokengate/detail/core_context.hpp>
#include <tokengate/detail/hook.hpp>
#include <tokengate/detail/suspension.hpp>

#include <atomic>
#include <coroutine>
#include <cstdint>

/// A FIFO queue of bodies on any cores that wait for the same thing. mutex, semaphore, event, latch
/// and channel are made of it. The queue's lock guards the queue and its owner's own fields.
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
///     hook_queue released;    // the giver: any thread
///     {
///         std::scoped_lock lock(queue.lock);
///         if (auto* first = queue.pop()) released.push(first);
///         …
///     }
///     wake_all(released);     // from here on the owner may be gone
///
/// If a waker and a stop compete, `fate_` decides, by one compare-and-swap each. A released body
/// never touches the queue again, even if a stop comes before it runs: it may run after the queue
/// has been destroyed. A body that is being stopped stays linked until its own thread has the lock.
/// Wakers pass it by, and the queue's destructor waits until it has left.

namespace tokengate::detail {

class wait_queue;

class queued_wait : public suspension {
public:
    queued_wait(const queued_wait&) = delete;
    queued_wait& operator=(const queued_wait&) = delete;

protected:
    queued_wait() noexcept = default;
    ~queued_wait() = default;

    /// For await_ready. True if the body is on a loop, has no stop request, and has budget left.
    /// Without budget it has continued for so long without a wait that others must have a turn. If
    /// true, the body may take what it wants at once.
    [[nodiscard]] static bool may_try() noexcept {
        core_context* core = this_core;
        return core && core->host && !(core->current && core->current->stop_pending()) &&
               --core->inline_budget >= 0;
    }
    /// Ends await_suspend for a body that has what it wants. False, or true if the loop has a turn
    /// first.
    [[nodiscard]] bool goes_on(core_context& core, std::coroutine_handle<> awaiting) noexcept;
    /// Ends await_suspend for a body that was pushed. Its storage permit returns to the gate
    /// meanwhile.
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
    /// Relaxed: a mailbox hands a released body over, and a stopped body takes the lock.
    bool decide(fate how) noexcept {
        fate expected = fate::open;
        return fate_.compare_exchange_strong(expected, how, std::memory_order_relaxed);
    }

    /// This member and the links are guarded by the queue's lock.
    wait_queue* in_ = nullptr;
    queued_wait* before_ = nullptr;
    queued_wait* behind_ = nullptr;
    /// Changed from `open` by one compare-and-swap: a waker's under the queue's lock, or a stop's
    /// on the home's thread.
    std::atomic<fate> fate_{fate::open};
};

class wait_queue {
public:
    wait_queue() noexcept = default;
    wait_queue(const wait_queue&) = delete;
    wait_queue& operator=(const wait_queue&) = delete;
    /// No body may wait any more, except one that is just being stopped.
    ~wait_queue();

    mutable brief_lock lock;

    // ---- with the lock held ----

    /// Whether no body is linked. A body that is being stopped counts as linked.
    [[nodiscard]] bool empty() const noexcept { return first_ == nullptr; }
    /// Suspends the running body, as the last in the queue.
    void push(queued_wait& last, core_context& core, std::coroutine_handle<> awaiting) noexcept;
    /// The body that has waited longest. Null if none waits. A stop may still come.
    [[nodiscard]] queued_wait* front() const noexcept {
        return first_ ? first_not_stopped() : nullptr;
    }
    /// Takes a body out of the queue. False if a stop was faster. The caller must wake a released
    /// body.
    [[nodiscard]] bool release(queued_wait& waiting) noexcept;
    /// Releases the body that has waited longest. Null if none waits.
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

/// Sends released bodies to their loops, in order, as one chain for each loop. Any thread, without
/// the lock.
inline void wake_all(hook_queue& released) noexcept {
    if (!released.empty()) send_all_home(released);
}

}  // namespace tokengate::detail
