// SPDX-License-Identifier: MIT
#pragma once

#include <chrono>
#include <cstddef>
#include <exception>
#include <stdexcept>
#include <string>

/// The types of the runtime's own exceptions. `what()` names the event, the operation or option
/// that it concerns, and the remedy. An exception that an operation throws reaches its awaiter as
/// itself.
///
///     try { runtime.submit(store(record)); }
///     catch (const tg::gate_closed& closed) { log(closed.what()); }

namespace tokengate {

/// The base of all of them.
class error : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

/// An option or an argument has an invalid value. The text names the option, the value and what is
/// valid.
class configuration_error : public error {
public:
    using error::error;
};

/// The kernel grants no io_uring, or too little for it (locked memory, descriptors). The text names
/// the cause (sysctl, seccomp, memlock, descriptors, kernel) and the remedy; `code()` is the errno
/// of the call that failed.
class ring_unavailable : public error {
public:
    ring_unavailable(const std::string& text, int code) : error(text), code_(code) {}
    [[nodiscard]] int code() const noexcept { return code_; }

private:
    int code_;
};

/// The runtime is stopping or has stopped. A token that the call was to admit was not admitted and
/// never ran.
class gate_closed : public error {
public:
    using error::error;
};

/// A token or a task is admitted once, and its result is taken once: this one was awaited,
/// admitted, submitted or moved away before.
class already_awaited : public error {
public:
    using error::error;
};

/// A token was asked to stop. Every wait of such a token throws this, except a wait that closes
/// something. The awaiter gets it if the token ended for this reason, or never started.
class token_stopped : public error {
public:
    using error::error;
};

/// An operator killed a token at the gate, regardless of whether it had started. It is never
/// retried.
class token_killed : public error {
public:
    using error::error;
};

/// The gate had no place for a token. The token never ran, and it is not retried.
class admission_rejected : public error {
public:
    using error::error;
};

/// A timeout was over. A token that had not ended by then was asked to stop; a single wait was
/// ended.
class token_timeout : public error {
public:
    using error::error;
};

/// The gate rejects the tokens of this operation for now: its breaker is open, or it is in
/// quarantine. The token never ran.
class operation_blocked : public error {
public:
    operation_blocked(const std::string& text, double failure_rate,
                      std::chrono::steady_clock::time_point retry_at)
        : error(text), failure_rate_(failure_rate), retry_at_(retry_at) {}
    [[nodiscard]] double failure_rate() const noexcept { return failure_rate_; }
    /// When the gate admits a token again as a probe; time_point::max() if only an operator can end
    /// the rejection.
    [[nodiscard]] std::chrono::steady_clock::time_point retry_at() const noexcept {
        return retry_at_;
    }

private:
    double failure_rate_;
    std::chrono::steady_clock::time_point retry_at_;
};

/// A token belongs to the runtime that admitted it, or whose seed domain it inherited; a socket to
/// the runtime where it receives. The call was made in another runtime.
class wrong_runtime : public error {
public:
    using error::error;
};

/// A socket does one operation at a time in each direction, and another token is in one already.
class socket_busy : public error {
public:
    using error::error;
};

/// The socket was closed, before the call or during it, or was moved away.
class socket_closed : public error {
public:
    using error::error;
};

/// The peer ended the stream before the buffer of read_all was full.
class unexpected_end : public error {
public:
    unexpected_end(const std::string& text, std::size_t received)
        : error(text), received_(received) {}
    /// How many bytes arrived.
    [[nodiscard]] std::size_t received() const noexcept { return received_; }

private:
    std::size_t received_;
};

/// A call was made on a thread that must not make it. Examples are a blocking call on the thread of
/// an event loop, and a wait where no event loop runs.
class wrong_thread : public error {
public:
    using error::error;
};

}  // namespace tokengate
