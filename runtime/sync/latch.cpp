// SPDX-License-Identifier: MIT
#include <tokengate/latch.hpp>

#include <tokengate/error.hpp>

#include <algorithm>
#include <mutex>

namespace tokengate {

bool latch::lower(std::size_t by, detail::hook_queue& released) noexcept {
    const std::size_t left = left_.load(std::memory_order_relaxed);
    left_.store(left - std::min(by, left), std::memory_order_release);  // pairs with is_open
    if (by < left) return false;
    waiting_.pop_all(released);
    return true;
}

void latch::count_down(std::size_t by) noexcept {
    detail::hook_queue released;
    {
        const std::scoped_lock lock(waiting_.lock);
        lower(by, released);
    }
    wake_all(released);
}

bool latch::waiting_for::await_suspend(std::coroutine_handle<> awaiting) {
    detail::core_context* core = nullptr;
    try {
        core = &enter("wait for a latch");
    } catch (const token_stopped&) {
        of_.count_down(by_);
        throw;
    }
    // Arrival and enqueueing are one step under the lock: before another thread can open the latch,
    // this wait is in the queue or has passed.
    detail::hook_queue released;
    std::unique_lock lock(of_.waiting_.lock);
    const bool open = of_.lower(by_, released);
    if (!open) of_.waiting_.push(*this, *core, awaiting);
    lock.unlock();
    wake_all(released);
    return open ? goes_on(*core, awaiting) : waits(*core);
}

}  // namespace tokengate
