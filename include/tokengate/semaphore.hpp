// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/wait_queue.hpp>

#include <coroutine>
#include <cstddef>
#include <mutex>
#include <utility>

/// A counting semaphore whose waiters suspend: a wait costs a core nothing. It serves tokens in the
/// order of arrival. A released permit goes to the token that has waited longest, and none
/// overtakes it. Each waiter resumes on its own core. A token releases its storage permit while it
/// waits.
///
///     tg::semaphore connections(10);
///     // given back when `permit` goes, or by permit.release()
///     auto permit = co_await connections.permit();
///
///     co_await items.acquire();  // without an owner: some thread calls
///     items.release(3);
///
/// Thread safety: Tokens wait inside the runtime; every other call works on any thread.
///
/// Lifetime: No token may wait for the semaphore when it is destroyed. A token that the semaphore
/// has released may destroy it.
///
/// Errors: Of the waits: token_stopped if the token is asked to stop, with nothing taken;
/// wrong_thread where no event loop runs.
///
/// Stop: A stop ends the wait with token_stopped. If the semaphore has given the token its permit
/// before, the wait succeeds.

namespace tokengate {

class semaphore;

/// A permit that goes back to its semaphore when this owner is destroyed. Empty after release and
/// after a move from it. May be released on any thread.
class [[nodiscard]] semaphore_permit {
public:
    semaphore_permit() noexcept = default;
    /// Takes over a permit that was acquired.
    explicit semaphore_permit(semaphore& from) noexcept : of_(&from) {}
    semaphore_permit(semaphore_permit&& other) noexcept : of_(std::exchange(other.of_, nullptr)) {}
    semaphore_permit& operator=(semaphore_permit&& other) noexcept {
        semaphore_permit moved(std::move(other));
        std::swap(of_, moved.of_);
        return *this;
    }
    ~semaphore_permit() { release(); }

    [[nodiscard]] explicit operator bool() const noexcept { return of_ != nullptr; }
    inline void release() noexcept;

private:
    semaphore* of_ = nullptr;
};

class semaphore {
public:
    explicit semaphore(std::size_t permits) noexcept : free_(permits) {}

    /// Waits for a permit. `acquire` leaves it without an owner; `permit` returns its owner.
    [[nodiscard]] auto acquire() noexcept { return acquiring(*this, "acquire a semaphore"); }
    [[nodiscard]] auto permit() noexcept { return acquiring_permit(*this, "acquire a semaphore"); }

    [[nodiscard]] bool try_acquire() noexcept {
        const std::scoped_lock lock(waiting_.lock);
        return take();
    }
    void release(std::size_t permits = 1) noexcept;

    /// The number of free permits at this moment.
    [[nodiscard]] std::size_t available() const noexcept {
        const std::scoped_lock lock(waiting_.lock);
        return free_;
    }

private:
    friend class mutex;

    class acquiring : public detail::queued_wait {
    public:
        acquiring(semaphore& of, const char* what) noexcept : of_(of), what_(what) {}
        bool await_ready() noexcept { return may_try() && of_.try_acquire(); }
        bool await_suspend(std::coroutine_handle<> awaiting);
        void await_resume() { resumed(what_); }

    protected:
        semaphore& of_;

    private:
        const char* what_;
    };

    class acquiring_permit : public acquiring {
    public:
        using acquiring::acquiring;
        semaphore_permit await_resume() {
            acquiring::await_resume();
            return semaphore_permit(of_);
        }
    };

    [[nodiscard]] bool take() noexcept {
        if (free_ == 0) return false;
        --free_;
        return true;
    }

    detail::wait_queue waiting_;
    std::size_t free_;  // under the queue's lock; 0 while a token waits
};

inline void semaphore_permit::release() noexcept {
    if (of_) std::exchange(of_, nullptr)->release();
}

}  // namespace tokengate
