// SPDX-License-Identifier: MIT
#pragma once

#include <atomic>

namespace tokengate::detail {

/// A lock for a few dozen instructions that call nobody who waits. One read-modify-write to lock, one store to unlock,
/// and the store is the last that its holder touches: whoever gets the lock next may destroy it at once. A holder that
/// was preempted is waited for by giving way, then by sleeping, so that it runs whatever its priority.
class brief_lock {
public:
    brief_lock() noexcept = default;
    brief_lock(const brief_lock&) = delete;
    brief_lock& operator=(const brief_lock&) = delete;

    void lock() noexcept {
        if (held_.exchange(true, std::memory_order_acquire)) [[unlikely]]  // pairs with unlock
            lock_slowly();
    }
    void unlock() noexcept {
        held_.store(false, std::memory_order_release);
    }  // pairs with lock, lock_slowly

private:
    void lock_slowly() noexcept;

    std::atomic<bool> held_{false};
};

}  // namespace tokengate::detail
