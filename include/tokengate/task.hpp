// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/promise.hpp>
#include <tokengate/error.hpp>

#include <coroutine>
#include <cstdint>
#include <utility>

/// A task is a coroutine that belongs to its awaiter: a subroutine that may suspend. It is lazy:
/// when it is awaited, it runs at once, on the awaiter's thread and in the awaiter's token. It is
/// never routed. Its result (value, reference, void, move-only) or its exception goes to the
/// awaiter.
///
///     tg::task<int> twice(int n) { co_return 2 * n; }
///     int four = co_await twice(2);
///
/// Thread safety: A task is not thread-safe. It may be moved to another thread before it is
/// awaited.
///
/// Lifetime: A task is awaited once. A task that is never awaited never runs.
///
/// Errors: already_awaited if the task is empty: it was awaited or moved away before. Else the
/// exception of the body.
///
/// Stop: A stop of the awaiter's token ends the waits of the task too, since they are waits of that
/// token.

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

/// Takes the frame out of a task, for a caller that adopts it.
struct task_access {
    template <class T>
    static std::coroutine_handle<promise<T>> release(task<T>&& from) noexcept {
        return std::exchange(from.coroutine_, nullptr);
    }
};

/// Detects a coroutine that g++ 12 miscompiles (docs/how-to/gcc12.md). A frame starts with two
/// pointers, then the promise. In such a coroutine eight more bytes lie in front of them, and the
/// body would never run. A handle is computed from the promise, so it then points into the frame,
/// not to its beginning. The check does not depend on alignment: the frame that was made last
/// begins where its promise implies, or the body is lost. The compiler itself decides that
/// comparison, unless copying the coroutine's parameters may have made other frames. Then the
/// comparison is done at run time; if it fails, the pool decides.
inline void check_frame([[maybe_unused]] const std::coroutine_handle<> frame) noexcept {
#if !defined(__clang__)  // clang may also put a frame on the awaiter's stack
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
