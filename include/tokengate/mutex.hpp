// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/semaphore.hpp>

#include <utility>

/// A mutex excludes tokens on any cores from one another; a token that has to wait suspends. It
/// serves tokens in the order of arrival, and each waiter resumes on its own core. A token may hold
/// it across waits. It is not recursive: a token that locks it twice waits for itself. It is a
/// tg::semaphore with a single permit. Tokens that share one core and do not wait in between need
/// no mutex.
///
///     auto held = co_await accounts_lock.lock();   // until `held` goes, or held.unlock()
///     if (auto held = accounts_lock.try_lock()) …  // any thread
///
/// Thread safety: As for tg::semaphore. The mutex may be unlocked on another thread.
///
/// Lifetime: As for tg::semaphore.
///
/// Errors: Of `lock`: token_stopped if the token is asked to stop, with nothing locked;
/// wrong_thread where no event loop runs.
///
/// Stop: As for tg::semaphore.

namespace tokengate {

/// Unlocks its mutex when it is destroyed. Empty after unlock and after a move from it.
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

    /// Waits for the mutex and returns the guard that holds it.
    [[nodiscard]] auto lock() noexcept { return locking(permit_, "lock a mutex"); }
    /// Returns an empty guard if the mutex is held.
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
