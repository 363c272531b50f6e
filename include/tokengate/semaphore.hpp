// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/wait_queue.hpp>

#include <coroutine>
#include <cstddef>
#include <mutex>
#include <utility>

/// A counting semaphore whose waiters suspend: it costs a core nothing to wait.
///
///     tg::semaphore connections(10);
///     auto permit = co_await connections.permit();      // given back when `permit` goes, or by permit.release()
///
///     co_await items.acquire();                         // without an owner: somebody calls
///     items.release(3);
///
/// First come, first served: what is released goes to the longest waiting, nobody overtakes. Waiters resume on their
/// own cores. Thread safety: waiting inside the runtime, everything else on any thread. Who waits must not be waiting
/// when it is destroyed; whoever was let through may destroy it. A token gives up its storage permit while it waits.
/// Errors of the waits: token_stopped, with nothing taken; wrong_thread.

namespace tokengate {

class semaphore;

/// A permit that goes back to its semaphore when its owner goes. Empty after release and when moved from. May be
/// released on any thread.
class [[nodiscard]] semaphore_permit {
public:
    semaphore_permit() noexcept = default;
    /// Takes over a permit that has been acquired.
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

    [[nodiscard]] auto acquire() noexcept { return acquiring(*this, "acquire a semaphore"); }
    [[nodiscard]] auto permit() noexcept { return acquiring_permit(*this, "acquire a semaphore"); }

    [[nodiscard]] bool try_acquire() noexcept {
        const std::scoped_lock lock(waiting_.lock);
        return take();
    }
    void release(std::size_t permits = 1) noexcept;

    /// Permits that nobody has, at this moment.
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
    std::size_t free_;  // under the queue's lock; not 0 only if nobody waits
};

inline void semaphore_permit::release() noexcept {
    if (of_) std::exchange(of_, nullptr)->release();
}

}  // namespace tokengate
