// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/suspension.hpp>

#include <signal.h>

#include <concepts>
#include <coroutine>
#include <cstdint>

/// `signal` waits for a POSIX signal, regardless of the thread of the process that it reaches. The
/// first signal that arrives after the wait has begun ends the wait. Several tokens, on any core
/// and of several runtimes, may wait for the same signal, and each is notified. While a token
/// waits, the signal's old disposition (its default action, the host's handler) does not apply.
/// When no token waits any more, it is restored, unless the program has changed it meanwhile. So
/// between two waits in a loop a signal has its old disposition; to miss none, begin the next wait
/// in another token first.
///
///     const int which = co_await tg::signal(SIGINT, SIGTERM);
///     log("stopping because of signal ", which);
///
/// Thread safety: A token may await it on any core. sigaction installs the handlers, with
/// SA_RESTART and SA_ONSTACK. signalfd would need the signal blocked in every thread of the
/// process, which a library cannot demand of its host. Some thread must have the signal unblocked,
/// as usual. Until exec, a child made by fork inherits the handlers, but no token there is
/// notified.
///
/// Errors: configuration_error for signals that no token can wait for (SIGKILL, SIGSTOP, those that
/// a fault raises, those of libc). token_stopped if the token is asked to stop; wrong_thread where
/// no event loop runs; std::bad_alloc.
///
/// Stop: A stop ends the wait with token_stopped, unless a signal has ended it before.

namespace tokengate {

namespace detail {

class signal_wait : public suspension {
public:
    signal_wait(const signal_wait&) = delete;
    signal_wait& operator=(const signal_wait&) = delete;

    /// Throws configuration_error.
    template <std::same_as<int>... Signals>
    explicit signal_wait(Signals... signals) : awaited_((bit_of(signals) | ...)) {}

    bool await_ready() const noexcept { return false; }
    bool await_suspend(std::coroutine_handle<> awaiting);
    int await_resume() const;

private:
    friend class signal_desk;

    static std::uint64_t bit_of(int signal);

    // The mutex of signal.cpp guards the fields below while the wait is enlisted.
    std::uint64_t awaited_;         // bit n - 1 is signal n
    std::uint64_t began_ = 0;       // the number of arrivals before the wait
    signal_wait* next_ = nullptr;   // the wait enlisted next
    signal_wait** link_ = nullptr;  // the pointer to this one; null while it is not enlisted
    int arrived_ = 0;               // 0: the wait was stopped
};

}  // namespace detail

/// The await returns the signal that arrived.
template <std::same_as<int>... More>
[[nodiscard]] detail::signal_wait signal(int first, More... more) {
    return detail::signal_wait(first, more...);
}

}  // namespace tokengate
