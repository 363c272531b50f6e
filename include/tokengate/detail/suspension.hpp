// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/core_context.hpp>
#include <tokengate/detail/hook.hpp>
#include <tokengate/detail/token_record.hpp>

#include <coroutine>
#include <string>
#include <tuple>

/// How a body waits for anything other than a token. It lies suspended in its frame, costs its core
/// nothing, and is resumed by a hook on its own loop. Every single wait of the library is made of
/// one of these.
///
///     struct awaiter : suspension {
///         bool await_ready() { return false; }
///         bool await_suspend(std::coroutine_handle<> awaiting) {
///             // throws wrong_thread, token_stopped
///             core_context& core = enter("wait for the door");
///             suspend(core, awaiting,
///                     [](core_context& core, wait_point& self) noexcept { … wake(); });
///             …  // from here on, a waker may call `wake` or `wake_from_anywhere`
///             return true;
///         }
///     };
///
/// There is one wake-up per suspension. If a waker and a stop compete, the awaiter decides. On one
/// thread it does so by taking itself out of a list, across threads under the lock of the object
/// that it waits for.

namespace tokengate::detail {

struct suspension : hook, wait_point {
    // The loop of the body. Another thread may host it when the body is resumed.
    executor* home = nullptr;
    token_record* token = nullptr;
    std::coroutine_handle<> handle = nullptr;

    /// The running body's context. Throws wrong_thread on a thread without a loop. `what` completes
    /// "a coroutine was to".
    static core_context& on_a_loop(const char* what);
    /// The start of a wait: the running body's context. Throws wrong_thread on a thread without a
    /// loop, and token_stopped if the body has been requested to stop. `what` completes "… was
    /// asked to stop: it did not".
    static core_context& enter(const char* what);

    /// The body is suspended from here on. `stops`: see wait_point. Null if the wait cannot be
    /// ended early.
    void suspend(core_context& core, std::coroutine_handle<> awaiting,
                 void (*stops)(core_context&, wait_point&) noexcept) noexcept {
        run = &resume_suspended;
        on_stop = stops;
        home = core.host;
        token = core.current;
        handle = awaiting;
        if (token && stops) token->wait_at(*this);
    }

    /// On the home's thread: the loop resumes the body in its turn. A stop comes too late from here
    /// on.
    void wake() noexcept;
    /// On the home's thread, before the body is left: the body is resumed behind all that waits to
    /// start there, and then in its turn.
    void wake_behind_starts() noexcept;
    /// On any thread. A stop on the home's thread may compete with it: see the head of this file.
    void wake_from_anywhere() noexcept;
    /// The same for a hook that resumes the body later by itself.
    void wait_is_over() noexcept {
        if (token) token->wait_is_over();
    }

    static void resume_suspended(hook* item) noexcept;
};

/// A wrapper of a wait (with_timeout, shield) refers to the wait. It must therefore be awaited in
/// the expression that makes both: an lvalue of it cannot be awaited, and clang warns if one is
/// returned. `As` is an awaiter constructed from the wait and `with`.
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

/// Hands a hook to a loop, from any thread. From a loop of the same runtime it leaves with the next
/// flush, otherwise through the mailbox.
void send_home(executor& home, hook* item) noexcept;

}  // namespace tokengate::detail
