// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/core_context.hpp>
#include <tokengate/detail/hook.hpp>
#include <tokengate/detail/token_record.hpp>

#include <coroutine>
#include <string>
#include <tuple>

/// How a body waits for anything but a token: it lies suspended in its frame, costs its core nothing, and is resumed by
/// a hook on its own loop. Every awaitable of the library that waits is made of one of these.
///
///     struct awaiter : suspension {
///         bool await_ready() { return false; }
///         bool await_suspend(std::coroutine_handle<> awaiting) {
///             core_context& core = enter("wait for the door");     // throws wrong_thread, token_stopped
///             suspend(core, awaiting, [](core_context& core, wait_point& self) noexcept { … wake(); });
///             …                                                    // from here on, a waker may call `wake` or `wake_from`
///             return true;
///         }
///     };
///
/// One wake-up per suspension: between a waker and a stop, the awaiter decides (on one thread by taking itself out of a
/// list, across threads under the lock of what it waits for).

namespace tokengate::detail {

struct suspension : hook, wait_point {
    executor* home = nullptr;  // the loop, whichever thread hosts it when the time comes
    token_record* token = nullptr;
    std::coroutine_handle<> handle = nullptr;

    /// The running body's context. Throws wrong_thread on a thread without a loop; `what` completes "a coroutine was to".
    static core_context& on_a_loop(const char* what);
    /// Where a wait begins: the running body's context. Throws wrong_thread on a thread without a loop, and
    /// token_stopped if the body has been asked to stop. `what` completes "… was asked to stop: it did not".
    static core_context& enter(const char* what);

    /// The body is suspended from here on. `stops`: see wait_point; null if the wait cannot be cut short.
    void suspend(core_context& core, std::coroutine_handle<> awaiting,
                 void (*stops)(core_context&, wait_point&) noexcept) noexcept {
        run = &resume_suspended;
        on_stop = stops;
        home = core.host;
        token = core.current;
        handle = awaiting;
        if (token && stops) token->wait_at(*this);
    }

    /// On the home's thread: the body will be resumed in its turn; a stop comes too late.
    void wake() noexcept;
    /// On the home's thread, before the body is left: behind all that waits to start there, and then in its turn.
    void wake_behind_starts() noexcept;
    /// On any thread that may meet a stop on the home's: see the head of this file.
    void wake_from_anywhere() noexcept;
    /// The same for a hook that resumes later by itself.
    void wait_is_over() noexcept {
        if (token) token->wait_is_over();
    }

    static void resume_suspended(hook* item) noexcept;
};

/// What wraps a wait (with_timeout, shield) refers to it, and is therefore awaited in the expression that makes both: as
/// an lvalue it cannot be awaited, and clang warns of one that is returned. `As` is an awaiter made of the wait and `with`.
#if defined(__clang__)
#define TOKENGATE_REFERS [[clang::lifetimebound]]
#else
#define TOKENGATE_REFERS
#endif
template <class As, class Wait, class... With>
class [[nodiscard]] wrapped_wait {
public:
    wrapped_wait(Wait& wait TOKENGATE_REFERS, With... with) noexcept
        : wait_(wait), with_(with...) {}
    As operator co_await() && {
        return std::apply([this](auto... with) { return As(wait_, with...); }, with_);
    }

private:
    Wait& wait_;
    std::tuple<With...> with_;
};

[[noreturn]] void throw_stopped(const token_record& token, const char* what);

/// Hands a hook to a loop, from any thread: in the next flush from a loop of the same runtime, by the mailbox otherwise.
void send_home(executor& home, hook* item) noexcept;

}  // namespace tokengate::detail
