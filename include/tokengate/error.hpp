// SPDX-License-Identifier: MIT
#pragma once

#include <chrono>
#include <cstddef>
#include <exception>
#include <stdexcept>
#include <string>

/// What can go wrong, as types. `what()` says what happened, to which operation or option, and what to do about it.
///
///     try { runtime.submit(store(record)); }
///     catch (const tg::gate_closed& closed) { log(closed.what()); }
///
/// An exception that an operation throws reaches its awaiter as itself; these types are the runtime's own.

namespace tokengate {

class error : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

/// An option has a value that cannot be. Names the option, the value and what would be right.
class configuration_error : public error {
public:
    using error::error;
};

/// No io_uring is to be had, or not as much of it as is needed. Names the cause (sysctl, seccomp, memlock, descriptors,
/// kernel) and the remedy; `code()` is the errno that io_uring_setup gave.
class ring_unavailable : public error {
public:
    ring_unavailable(const std::string& text, int code) : error(text), code_(code) {}
    [[nodiscard]] int code() const noexcept { return code_; }

private:
    int code_;
};

/// The runtime is stopping or has stopped; the token was not admitted and never ran.
class gate_closed : public error {
public:
    using error::error;
};

/// A token's result is taken once; this one has been awaited, submitted or moved away before.
class already_awaited : public error {
public:
    using error::error;
};

/// A token was asked to stop, and therefore waits for nothing any more: thrown by every wait of such a token, except to
/// close something, and to the
/// awaiter of one that ended for this reason, or never started.
class token_stopped : public error {
public:
    using error::error;
};

/// A token was ended from the gate, whether it had started or not; it is never retried.
class token_killed : public error {
public:
    using error::error;
};

/// The gate had no place for a token, which never ran; it is not retried.
class admission_rejected : public error {
public:
    using error::error;
};

/// A token had not ended when its time was over, and was asked to stop.
class token_timeout : public error {
public:
    using error::error;
};

/// The gate lets no token of this operation in for now: its breaker is open, or it is in quarantine. It never ran.
class operation_blocked : public error {
public:
    operation_blocked(const std::string& text, double failure_rate,
                      std::chrono::steady_clock::time_point retry_at)
        : error(text), failure_rate_(failure_rate), retry_at_(retry_at) {}
    [[nodiscard]] double failure_rate() const noexcept { return failure_rate_; }
    /// When the gate tries one again; time_point::max() if only an operator can say so.
    [[nodiscard]] std::chrono::steady_clock::time_point retry_at() const noexcept {
        return retry_at_;
    }

private:
    double failure_rate_;
    std::chrono::steady_clock::time_point retry_at_;
};

/// A token belongs to the runtime that admitted it, or whose seed domain it inherited, and this is another one.
class wrong_runtime : public error {
public:
    using error::error;
};

/// A socket does one thing at a time in each direction, and somebody is at it already.
class socket_busy : public error {
public:
    using error::error;
};

/// The socket was closed, before or meanwhile, or moved away.
class socket_closed : public error {
public:
    using error::error;
};

/// The peer ended the stream in the middle of what was to be read.
class unexpected_end : public error {
public:
    unexpected_end(const std::string& text, std::size_t received)
        : error(text), received_(received) {}
    [[nodiscard]] std::size_t received() const noexcept {
        return received_;
    }  ///< bytes that did come

private:
    std::size_t received_;
};

/// A call was made on a thread that must not make it: a blocking call on an event loop's thread, or an awaiting one where
/// no event loop runs.
class wrong_thread : public error {
public:
    using error::error;
};

}  // namespace tokengate
