// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/semaphore.hpp>

#include <utility>

/// Mutual exclusion between tokens on any cores; one that has to wait suspends.
///
///     auto held = co_await accounts_lock.lock();        // until `held` goes, or held.unlock()
///     if (auto held = accounts_lock.try_lock()) …       // any thread
///
/// It may be held across waits, and unlocked on another thread. First come, first served; a waiter resumes on its own core.
/// Not recursive: a token that locks it twice waits for itself. Thread safety, lifetime and errors as of tg::semaphore, of
/// which it is one with a single permit. Tokens that share one core and do not wait in between need none.

namespace tokengate {

class [[nodiscard]] mutex_guard {
public:
    mutex_guard() noexcept = default;
    [[nodiscard]] explicit operator bool() const noexcept { return static_cast<bool>(permit_); }
    void unlock() noexcept { permit_.release(); }

private:
    friend class mutex;
    explicit mutex_guard(semaphore_permit permit) noexcept : permit_(std::move(permit)) {}
    semaphore_permit permit_;
};

class mutex {
public:
    mutex() noexcept = default;

    [[nodiscard]] auto lock() noexcept { return locking(permit_, "lock a mutex"); }
    /// An empty guard if somebody has it.
    [[nodiscard]] mutex_guard try_lock() noexcept {
        return permit_.try_acquire() ? mutex_guard(semaphore_permit(permit_)) : mutex_guard();
    }

private:
    class locking : public semaphore::acquiring {
    public:
        using acquiring::acquiring;
        mutex_guard await_resume() {
            acquiring::await_resume();
            return mutex_guard(semaphore_permit(of_));
        }
    };

    semaphore permit_{1};
};

}  // namespace tokengate
