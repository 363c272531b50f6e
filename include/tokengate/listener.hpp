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

/// Accepts streams. Made by tcp::listen and local::listen.
///
///     auto listener = tg::tcp::listen({"::", 7000});
///     for (;;) co_await clients.spawn(serve(co_await listener.accept()));
///
/// The kernel is asked once, and accepts from then on, awaited or not. When `accept_ahead` connections wait that nobody
/// has taken, it is told to stop, and clients wait in the backlog: an application that takes no more connections is
/// sent no more, beside those that the kernel accepted before it heard of it (a backlog at most). Taking them starts it
/// again.
///
/// Owner: whoever holds it, as with a stream; one token accepts at a time. To accept on every core, give each a listener
/// of its own at the same endpoint (reuse_port).
/// Errors: std::system_error that names the listener and the cause; whatever went wrong, accept may be called again. After
/// EMFILE the connection still waits: give up some descriptor, or pause, before. token_stopped, socket_closed, socket_busy.

namespace tokengate {

struct listen_options {
    int backlog =
        4096;  ///< connections that wait in the kernel; at most net.core.somaxconn of them
    bool reuse_port =
        true;  ///< TCP: others of this user may listen there too, each connection goes to one of them
    bool v6_only = false;  ///< an IPv6 listener takes no IPv4 clients
    std::size_t accept_ahead =
        16;  ///< connections that may wait here; 0: one is accepted only when it is awaited
    bool no_delay = true;     ///< TCP, of the streams; see stream::no_delay
    bool keep_alive = false;  ///< TCP, of the streams
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

/// Makes the socket when it is awaited, and gives it up when its time is over.
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

    [[nodiscard]] detail::accepting accept() noexcept { return detail::accepting(core_); }
    [[nodiscard]] detail::closing_socket close() noexcept;  ///< as a stream's

    /// Where it listens: the port that the kernel chose, if it was asked for port 0.
    [[nodiscard]] endpoint local_endpoint() const;
    [[nodiscard]] bool is_open() const noexcept;
    [[nodiscard]] int descriptor() const;

    /// What tcp::listen and local::listen do.
    static listener open(const endpoint& at, const listen_options& options);

private:
    explicit listener(detail::listener_core* core) noexcept : core_(core) {}

    detail::listener_core* core_ = nullptr;
};

}  // namespace tokengate
