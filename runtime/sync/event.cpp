// SPDX-License-Identifier: MIT
#include <tokengate/event.hpp>

#include <mutex>

namespace tokengate {

void event::set() noexcept {
    detail::hook_queue released;
    {
        const std::scoped_lock lock(waiting_.lock);
        set_.store(true, std::memory_order_release);  // pairs with is_set
        waiting_.pop_all(released);
    }
    wake_all(released);
}

void event::reset() noexcept {
    const std::scoped_lock lock(waiting_.lock);
    set_.store(false, std::memory_order_relaxed);
}

bool event::waiting_for::await_suspend(std::coroutine_handle<> awaiting) {
    detail::core_context& core = enter("wait for an event");
    std::unique_lock lock(of_.waiting_.lock);
    const bool happened = of_.set_.load(std::memory_order_relaxed);
    if (!happened) of_.waiting_.push(*this, core, awaiting);
    lock.unlock();
    return happened ? goes_on(core, awaiting) : waits(core);
}

}  // namespace tokengate
