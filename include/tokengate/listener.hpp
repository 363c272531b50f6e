// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/socket_wait.hpp>
#include <tokengate/detail/timer.hpp>
#include <tokengate/endpoint.hpp>
#include <tokengate/stream.hpp>

#include <chrono>
#include <coroutine>
#include <cstddef>
#include <utility>

/// A listener accepts streams; tcp::listen and local::listen make it. It makes one request to the
/// kernel, which accepts from then on, awaited or not. If `accept_ahead` connections wait that no
/// token has taken, the listener cancels the request, and clients wait in the backlog. So an
/// application that takes no more connections gets no more, beside those that the kernel accepts
/// before the cancellation (a backlog at most). When a token takes connections again, the listener
/// renews the request. To accept on every core, give each core a listener of its own at the same
/// endpoint (reuse_port).
///
///     auto listener = tg::tcp::listen({"::", 7000});
///     for (;;) co_await clients.spawn(serve(co_await listener.accept()));
///
/// Thread safety: As for a stream. One token accepts at a time.
///
/// Lifetime: As for a stream. `close` and the destructor end the accept of another token with
/// socket_closed, and close the connections that no token has taken.
///
/// Errors:
/// * std::system_error, which names the listener and the cause. After any error, accept may be
///   called again. After EMFILE the connection still waits: close some descriptors, or pause,
///   before the next accept.
/// * token_stopped if the token is asked to stop, socket_closed after `close`, socket_busy if
///   another token accepts.
/// * wrong_thread where no event loop runs, wrong_runtime if the listener still accepts in another
///   runtime.
///
/// Stop: A stop ends the wait of `accept` with token_stopped; no connection is taken.

namespace tokengate {

struct listen_options {
    /// Connections that may wait in the kernel; at most net.core.somaxconn of them.
    int backlog = 4096;
    /// TCP: other listeners of this user may listen at this endpoint; each connection goes to one
    /// of them.
    bool reuse_port = true;
    bool v6_only = false;  ///< an IPv6 listener takes no IPv4 clients
    /// Connections that may wait in the listener. 0: one is accepted only when it is awaited.
    std::size_t accept_ahead = 16;
    bool no_delay = true;     ///< TCP, for the streams; see stream::no_delay
    bool keep_alive = false;  ///< TCP, for the streams
};

namespace detail {

class listener_core;

class accepting final : public inward {
public:
    explicit accepting(listener_core* from) noexcept;
    ~accepting();
    bool take() noexcept override;
    stream await_resume();

private:
    [[nodiscard]] listener_core& from() const noexcept;

    int taken_ = -1;
};

/// Makes the socket when it is awaited, and cancels the connection when its timeout is over.
class connecting final : public io_wait {
public:
    connecting(const endpoint& to, std::chrono::nanoseconds limit) noexcept;
    ~connecting();
    bool await_suspend(std::coroutine_handle<> awaiting);
    stream await_resume();

private:
    struct alarm : timer {
        connecting* of;
    };

    const endpoint to_;
    const std::chrono::nanoseconds limit_;
    int fd_ = -1;
    alarm timer_;
    bool over_ = false;
};

}  // namespace detail

class listener {
public:
    listener() noexcept = default;
    listener(listener&& other) noexcept : core_(std::exchange(other.core_, nullptr)) {}
    listener& operator=(listener&& other) noexcept {
        listener taken(std::move(other));
        std::swap(core_, taken.core_);
        return *this;
    }
    ~listener();

    /// Waits for the next connection and returns its stream.
    [[nodiscard]] detail::accepting accept() noexcept { return detail::accepting(core_); }
    [[nodiscard]] detail::closing_socket close() noexcept;  ///< as stream::close

    /// The endpoint at which it listens, with the port that the kernel chose for port 0.
    [[nodiscard]] endpoint local_endpoint() const;
    [[nodiscard]] bool is_open() const noexcept;
    [[nodiscard]] int descriptor() const;

    /// Makes a listener; tcp::listen and local::listen call it.
    static listener open(const endpoint& at, const listen_options& options);

private:
    explicit listener(detail::listener_core* core) noexcept : core_(core) {}

    detail::listener_core* core_ = nullptr;
};

}  // namespace tokengate
