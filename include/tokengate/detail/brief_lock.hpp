// SPDX-License-Identifier: MIT
#pragma once

#include <atomic>

namespace tokengate::detail {

/// A lock for critical sections of a few dozen instructions that call nothing that waits. `lock` is
/// one read-modify-write, `unlock` is one store. That store is the holder's last access: the next
/// holder may destroy the lock at once. If the holder was preempted, a waiting thread yields and
/// then sleeps, so that the holder runs whatever its priority.
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
        // Pairs with lock and lock_slowly.
        held_.store(false, std::memory_order_release);
    }

private:
    void lock_slowly() noexcept;

    std::atomic<bool> held_{false};
};

}  // namespace tokengate::detail
