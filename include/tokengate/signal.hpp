// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/suspension.hpp>

#include <signal.h>

#include <concepts>
#include <coroutine>
#include <cstdint>

/// Waits for a signal of POSIX, whatever thread of the process it reaches.
///
///     const int which = co_await tg::signal(SIGINT, SIGTERM);
///     log("stopping because of signal ", which);
///
/// The first that arrives after the wait has begun ends it. Several tokens, on any core and of several runtimes, may
/// wait for the same signal: all hear it. While one waits, what the signal did before (its default action, the host's
/// handler) does not happen. When none waits any more, that is restored, unless somebody has changed it meanwhile. So
/// between two waits of a loop a signal does what it did before; who is to miss none has the next wait begin in another
/// token first.
///
/// The handlers are made by sigaction, with SA_RESTART and SA_ONSTACK. Not by signalfd: it needs a signal to be blocked
/// in every thread of the process, which a library cannot ask of its host. Some thread must have the signal unblocked,
/// as usual. Until exec, a child made by fork inherits the handlers, and nobody in it who would hear them.
///
/// Thread safety: awaited in any token. Errors: configuration_error for what cannot be waited for (SIGKILL, SIGSTOP,
/// those that a fault raises, those of libc); token_stopped when the token is asked to stop; wrong_thread where no
/// event loop runs; std::bad_alloc.

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

    // Guarded by the mutex of signal.cpp while enlisted.
    std::uint64_t awaited_;         // bit n - 1 is signal n
    std::uint64_t began_ = 0;       // arrivals before the wait
    signal_wait* next_ = nullptr;   // enlisted later
    signal_wait** link_ = nullptr;  // the pointer to this one; null while it is not enlisted
    int arrived_ = 0;               // 0: the wait was stopped
};

}  // namespace detail

template <std::same_as<int>... More>
[[nodiscard]] detail::signal_wait signal(int first, More... more) {
    return detail::signal_wait(first, more...);
}

}  // namespace tokengate
