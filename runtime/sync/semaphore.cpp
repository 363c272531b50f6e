// SPDX-License-Identifier: MIT
#include <tokengate/semaphore.hpp>

#include <mutex>

namespace tokengate {

void semaphore::release(std::size_t permits) noexcept {
    detail::hook_queue released;
    {
        const std::scoped_lock lock(waiting_.lock);
        for (; permits != 0; --permits) {
            detail::queued_wait* next = waiting_.pop();
            if (!next) break;
            released.push(next);
        }
        free_ += permits;
    }
    wake_all(released);
}

bool semaphore::acquiring::await_suspend(std::coroutine_handle<> awaiting) {
    detail::core_context& core = enter(what_);
    std::unique_lock lock(of_.waiting_.lock);
    const bool taken = of_.take();
    if (!taken) of_.waiting_.push(*this, core, awaiting);
    lock.unlock();
    return taken ? goes_on(core, awaiting) : waits(core);
}

}  // namespace tokengate
