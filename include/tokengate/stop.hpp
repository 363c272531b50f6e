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

/// Being asked to stop. Stopping is cooperative: a request ends what a token waits for, and from then on every wait throws
/// `token_stopped`; a running body is not interrupted, it looks for itself, or goes on to its next wait.
///
///     while (!tg::this_token::stop_requested()) crunch(next());         // between two waits
///     co_await tg::shield(log.write_all(farewell));                     // clean-up that must still be able to wait
///     tg::stop_callback on_stop{tg::this_token::stop(), [&] { parser.abort(); }};
///
/// A request reaches whatever the token awaits in turn: child tokens, groups, scopes, I/O, timers, queues. Who asks: the
/// holder of a handle (token::request_stop), with_timeout, when_any, a scope, runtime::stop. A wait that has succeeded when
/// the request arrives succeeds; a value that is returned all the same is the token's result.
///
/// Thread safety: a stop_token may be asked from any thread while its token lives; a stop_callback belongs to the
/// token it was made in, and its function runs on the token's core, between two of the token's steps, at most once.

namespace tokengate {

/// Calls `function` when the token is asked to stop, unless the callback is destroyed before. Made and destroyed inside the
/// token. The function must not throw: std::terminate.
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

/// Whether the running token has been asked to stop; false inside of a shield, and outside of every token.
[[nodiscard]] bool stop_requested() noexcept;

/// For others to look at, and for callbacks. Throws wrong_thread outside of every token.
[[nodiscard]] stop_token stop();

}  // namespace this_token

namespace detail {

/// While it lives, the running token does not hear of a stop. Made and destroyed by the same token.
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

/// A shielded wait, as it is awaited.
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

/// Awaits a task, a token or a single wait to its end, whatever is asked meanwhile; what waits inside is not cut short
/// by a stop of the awaiting token. Timeouts inside of it work.
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
