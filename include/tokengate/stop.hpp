// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/core_context.hpp>
#include <tokengate/detail/stop_callback.hpp>
#include <tokengate/detail/suspension.hpp>
#include <tokengate/detail/token_record.hpp>
#include <tokengate/task.hpp>
#include <tokengate/token.hpp>

#include <concepts>
#include <coroutine>
#include <optional>
#include <type_traits>
#include <utility>

/// Stop requests, as a token polls them and reacts to them. Stopping is cooperative: the library
/// never interrupts a running body, which polls for a request, or continues to its next wait. These
/// request a stop: the holder of a handle (token::request_stop), with_timeout, when_any, a scope,
/// runtime::stop, a kill at the gate.
///
///     while (!tg::this_token::stop_requested()) crunch(next());  // between two waits
///     // clean-up that must still be able to wait
///     co_await tg::shield(log.write_all(farewell));
///     tg::stop_callback on_stop{tg::this_token::stop(), [&] { parser.abort(); }};
///
/// Thread safety: Any thread may poll a stop_token. A stop_callback belongs to the token that made
/// it. Its function runs at most once, on the core of the token. It runs while the token is
/// suspended, where the token begins a wait or leaves a shield, or in the constructor.
///
/// Lifetime: A stop_token refers to its token and is valid while the token lives. The token makes
/// and destroys its stop_callbacks.
///
/// Errors: wrong_thread from this_token::stop outside of every token, and from the constructor of
/// stop_callback outside of the token of its stop_token. std::bad_alloc from that constructor.
///
/// Stop: A request ends the token's wait, and each further wait throws token_stopped. It passes to
/// everything that the token awaits in turn: child tokens, groups, scopes, I/O, timers, queues. If
/// a wait has succeeded when the request arrives, it succeeds. If the body returns a value all the
/// same, that is the token's result. A request does not end a wait inside `shield`.

namespace tokengate {

/// Calls `function` when the token is asked to stop, unless the callback is destroyed before. If
/// the token was asked before, the constructor calls it. The token makes and destroys the callback
/// in its body. The function must not throw: the program would terminate.
template <std::invocable Function>
class stop_callback : stop_callback_base {
public:
    stop_callback(stop_token token, Function function) : function_(std::move(function)) {
        enlist(token, [](stop_callback_base& self) noexcept {
            static_cast<stop_callback&>(self).function_();
        });
    }

private:
    Function function_;
};

namespace this_token {

/// Whether the running token has been asked to stop; false inside of a shield, and outside of every
/// token.
[[nodiscard]] bool stop_requested() noexcept;

/// The stop of the running token, for callbacks and for polling on other threads. Throws
/// wrong_thread outside of every token.
[[nodiscard]] stop_token stop();

}  // namespace this_token

namespace detail {

/// While it lives, the running token is not notified of a stop. The same token makes and destroys
/// it.
class shielding {
public:
    shielding();
    ~shielding();
    shielding(const shielding&) = delete;
    shielding& operator=(const shielding&) = delete;

private:
    token_record* token_;
    bool was_shielded_;
};

/// The awaiter of a shielded wait.
template <class Wait>
class shielded_wait {
public:
    explicit shielded_wait(Wait& wait) noexcept : wait_(wait) {}
    shielded_wait(const shielded_wait&) = delete;
    shielded_wait& operator=(const shielded_wait&) = delete;

    bool await_ready() {
        here_.emplace();
        return wait_.await_ready();
    }
    bool await_suspend(std::coroutine_handle<> awaiting) { return wait_.await_suspend(awaiting); }
    decltype(auto) await_resume() {
        struct lifting {
            std::optional<shielding>& shield;
            ~lifting() { shield.reset(); }
        } const at_end{here_};
        return wait_.await_resume();
    }

private:
    Wait& wait_;
    std::optional<shielding> here_;
};

}  // namespace detail

/// Awaits a task, a token or a single wait to its end, regardless of stop requests to the awaiting
/// token. Timeouts inside of it work.
template <class T>
task<T> shield(task<T> work) {
    const detail::shielding here;
    co_return co_await std::move(work);
}
template <class T>
task<T> shield(token<T> work) {
    const detail::shielding here;
    co_return co_await std::move(work);
}

template <std::derived_from<detail::suspension> Wait>
detail::wrapped_wait<detail::shielded_wait<Wait>, Wait> shield(Wait&& wait TOKENGATE_REFERS) {
    return {wait};
}

}  // namespace tokengate
