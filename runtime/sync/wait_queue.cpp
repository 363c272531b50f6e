// SPDX-License-Identifier: MIT
#include <tokengate/detail/wait_queue.hpp>

#include "executor/executor.hpp"
#include "executor/shared.hpp"

#include <tokengate/detail/admission.hpp>

#include <sched.h>

#include <cassert>
#include <chrono>
#include <mutex>
#include <thread>

namespace tokengate::detail {

// ---- brief_lock ---------------------------------------------------------------------------------

void brief_lock::lock_slowly() noexcept {
    // The first 200 polls take about 5 µs. Each further poll up to the 1000th yields the CPU to
    // other threads that want it.
    constexpr unsigned looks = 200, looks_and_yields = 1000;
    for (unsigned i = 0;; ++i) {
        if (!held_.load(std::memory_order_relaxed) &&
            !held_.exchange(true, std::memory_order_acquire))
            return;
        if (i < looks) {
#if defined(__x86_64__) || defined(__i386__)
            __builtin_ia32_pause();
#elif defined(__aarch64__)
            asm volatile("yield");
#endif
        } else if (i < looks_and_yields) {
            sched_yield();
        } else {
            // The holder may have a lower priority: then it runs only while this thread sleeps.
            std::this_thread::sleep_for(std::chrono::microseconds(50));
        }
    }
}

// ---- queued_wait --------------------------------------------------------------------------------

bool queued_wait::goes_on(core_context& core, std::coroutine_handle<> awaiting) noexcept {
    if (core.inline_budget >= 0) return false;
    suspend(core, awaiting, nullptr);
    wake();
    return true;
}

bool queued_wait::waits(core_context& core) noexcept {
    if (core.current) give_up_permit(core, *core.current);
    return true;
}

void queued_wait::stop(core_context&, wait_point& point) noexcept {
    auto& self = static_cast<queued_wait&>(static_cast<suspension&>(point));
    if (!self.decide(fate::stopped)) return;  // already released: its hook is on the way home
    {
        const std::scoped_lock lock(self.in_->lock);
        self.in_->unlink(self);
    }
    self.wake();
}

void queued_wait::after_wait(const char* what) {
    retake_permit(*this_core, *token);
    if (fate_.load(std::memory_order_relaxed) == fate::stopped) throw_stopped(*token, what);
}

// ---- wait_queue ---------------------------------------------------------------------------------

wait_queue::~wait_queue() {
    for (;;) {
        {
            const std::scoped_lock waits_for_the_last_holder(lock);
            if (empty()) return;
            const bool somebody_waits = front() != nullptr;
            assert(!somebody_waits &&
                   "destroyed while a coroutine waits for it: it would never be resumed");
            if (somebody_waits) return;
        }
        sched_yield();
    }
}

void wait_queue::push(queued_wait& last, core_context& core,
                      std::coroutine_handle<> awaiting) noexcept {
    last.suspend(core, awaiting, &queued_wait::stop);
    last.in_ = this;
    last.before_ = last_;
    last.behind_ = nullptr;
    (last_ ? last_->behind_ : first_) = &last;
    last_ = &last;
}

queued_wait* wait_queue::first_not_stopped() const noexcept {
    queued_wait* waiting = first_;
    while (waiting && waiting->fate_.load(std::memory_order_relaxed) != queued_wait::fate::open)
        waiting = waiting->behind_;
    return waiting;
}

bool wait_queue::release(queued_wait& waiting) noexcept {
    if (!waiting.decide(queued_wait::fate::released)) return false;
    unlink(waiting);
    return true;
}

queued_wait* wait_queue::pop() noexcept {
    while (queued_wait* waiting = front())
        if (release(*waiting)) return waiting;
    return nullptr;
}

void wait_queue::unlink(queued_wait& leaving) noexcept {
    (leaving.before_ ? leaving.before_->behind_ : first_) = leaving.behind_;
    (leaving.behind_ ? leaving.behind_->before_ : last_) = leaving.before_;
}

// ---- waking -------------------------------------------------------------------------------------

namespace {

/// Called on a thread that has no loop of `home`'s runtime. with_runtime keeps that runtime alive:
/// it could end as soon as the last hook of the chain has run, while this thread still wakes its
/// loop.
void post_chain(executor& home, hook* newest, hook* oldest) noexcept {
    struct chain {
        executor& home;
        hook* newest;
        hook* oldest;
    } const chain{home, newest, oldest};
    with_runtime(home.runtime.slot,
                 [&chain](shared_state&) { chain.home.loop.post(chain.newest, chain.oldest); });
}

}  // namespace

void send_all_home(hook_queue& released) noexcept {
    const core_context* here = this_core;
    bool sent = false;
    while (!released.empty()) {
        executor& home = *static_cast<suspension*>(released.front())->home;
        if (here && here->host && here->runtime == &home.runtime) {
            hook* next = released.pop();
            if (here->host == &home)
                home.loop.ready(next);
            else
                here->host->loop.send(home.position(), next);
            sent = true;
            continue;
        }
        hook* oldest = nullptr;
        hook* newest = nullptr;
        hook_queue others;
        while (!released.empty()) {
            hook* next = released.pop();
            if (static_cast<suspension*>(next)->home != &home) {
                others.push(next);
                continue;
            }
            next->next = newest;
            newest = next;
            if (!oldest) oldest = next;
        }
        post_chain(home, newest, oldest);
        released.append(others);
    }
    if (sent) here->host->loop.hand_over_to_idle();
}

}  // namespace tokengate::detail
