// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/promise.hpp>
#include <tokengate/error.hpp>

#include <coroutine>
#include <cstdint>
#include <utility>

/// A coroutine that belongs to whoever awaits it: a subroutine that may suspend.
///
///     tg::task<int> twice(int n) { co_return 2 * n; }
///     int four = co_await twice(2);
///
/// Lazy: it runs when awaited, at once, on the awaiter's thread and in the awaiter's token; it is never routed. Its result
/// (value, reference, void, move-only) or exception arrives at the awaiter. Awaited once: `already_awaited` otherwise.
/// A task that is never awaited never runs. Not thread-safe; may be moved to another thread before it is awaited.

namespace tokengate {

namespace detail {
struct task_access;
[[noreturn]] void throw_empty_task();
[[noreturn]] void terminate_miscompiled() noexcept;
}  // namespace detail

template <class T = void>
class [[nodiscard]] task {
public:
    using promise_type = detail::promise<T>;
    using value_type = T;

    task() noexcept = default;
    task(task&& other) noexcept : coroutine_(std::exchange(other.coroutine_, nullptr)) {}
    task& operator=(task&& other) noexcept {
        task moved(std::move(other));
        std::swap(coroutine_, moved.coroutine_);
        return *this;
    }
    ~task() {
        if (coroutine_) coroutine_.destroy();
    }

    auto operator co_await() && {
        if (!coroutine_) detail::throw_empty_task();
        return awaiter{std::exchange(coroutine_, nullptr)};
    }

private:
    friend promise_type;
    friend detail::task_access;
    using handle = std::coroutine_handle<promise_type>;

    explicit task(handle coroutine) noexcept : coroutine_(coroutine) {}

    class awaiter {
    public:
        explicit awaiter(handle coroutine) noexcept : coroutine_(coroutine) {}
        awaiter(const awaiter&) = delete;
        awaiter& operator=(const awaiter&) = delete;
        ~awaiter() { coroutine_.destroy(); }

        bool await_ready() const noexcept { return false; }
        detail::started await_suspend(std::coroutine_handle<> parent) {
            return detail::start_child(detail::context(), coroutine_,
                                       coroutine_.promise().continuation, parent);
        }
        T await_resume() { return coroutine_.promise().take(); }

    private:
        handle coroutine_;
    };

    handle coroutine_ = nullptr;
};

namespace detail {

/// Takes the frame out of a task; for those who adopt it.
struct task_access {
    template <class T>
    static std::coroutine_handle<promise<T>> release(task<T>&& from) noexcept {
        return std::exchange(from.coroutine_, nullptr);
    }
};

/// A frame starts with two pointers, then the promise. In a coroutine that g++ 12 compiles wrongly
/// (docs/how-to/gcc12.md) eight more bytes lie in front of them, and the body would never run. A handle is computed
/// from the promise, so it then points into the frame, not to its beginning. No alignment is asked: the frame that was
/// made last begins where its promise says, or the body is lost. The compiler itself decides that comparison, unless
/// copying the coroutine's parameters may have made other frames; then it is done at run time, and should it fail, the
/// pool is asked.
inline void check_frame([[maybe_unused]] const std::coroutine_handle<> frame) noexcept {
#if !defined(__clang__)  // which, besides, may put a frame on its awaiter's stack
    if (reinterpret_cast<std::uintptr_t>(frame.address()) != newest_frame) [[unlikely]]
        if (!frame_pool::begins_slot(frame.address())) terminate_miscompiled();
#endif
}

template <class T>
task<T> promise<T>::get_return_object() noexcept {
    check_frame(handle());
    return task<T>(std::coroutine_handle<promise>::from_promise(*this));
}
inline task<void> promise<void>::get_return_object() noexcept {
    check_frame(handle());
    return task<void>(std::coroutine_handle<promise>::from_promise(*this));
}

}  // namespace detail
}  // namespace tokengate
