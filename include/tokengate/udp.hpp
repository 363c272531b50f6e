// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/socket_wait.hpp>
#include <tokengate/endpoint.hpp>

#include <sys/socket.h>
#include <sys/uio.h>

#include <coroutine>
#include <cstddef>
#include <span>
#include <utility>

/// Datagrams over IPv4 and IPv6. Each datagram arrives whole, or not at all.
///
///     auto socket = tg::udp::socket::bind({"0.0.0.0", 5353});
///     auto [size, from, truncated] = co_await socket.receive_from(buffer);
///     co_await socket.send_to(std::span(buffer).first(size), from);
///
///     auto client = tg::udp::socket::connect({"127.0.0.1", 5353});  // one peer: send, receive
///
/// Thread safety: Any number of tokens may send and receive at once, on any core. A socket may
/// move, between cores too, and may be destroyed on any thread.
///
/// Lifetime: As for a stream. Buffers belong to the caller and must stay in place until the await
/// has ended.
///
/// Errors:
/// * std::system_error, which names the peer. ECONNREFUSED on a connected socket: no socket
///   received an earlier datagram. EMSGSIZE: the bytes are too many for one datagram.
/// * configuration_error for a UNIX endpoint.
/// * token_stopped if the token is asked to stop, socket_closed after `close`, wrong_thread where
///   no event loop runs.
///
/// Stop: A stop ends each wait but that of `close`. If the kernel has moved the datagram all the
/// same, the wait succeeds.

namespace tokengate::udp {

struct received {
    std::size_t size;  ///< bytes in the buffer
    endpoint from;
    bool truncated;  ///< the datagram was longer; its rest is lost
};

class socket;

namespace detail {

using namespace tokengate::detail;

/// Sends or receives one datagram.
class exchange : public at_socket {
public:
    bool await_suspend(std::coroutine_handle<> awaiting);

protected:
    exchange(const char* what, socket_core* at, void* bytes, std::size_t size) noexcept;
    ~exchange() = default;
    std::size_t result();

    msghdr message_{};
    sockaddr_storage address_;
    bool outward_ = false;

private:
    iovec part_;
};

class sending final : public exchange {
public:
    sending(socket_core* at, std::span<const std::byte> bytes, const endpoint* to) noexcept;
    void await_resume() { result(); }
};

class receiving final : public exchange {
public:
    receiving(socket_core* at, std::span<std::byte> into) noexcept;
    received await_resume();
};

}  // namespace detail

class socket {
public:
    socket() noexcept = default;
    socket(socket&& other) noexcept : core_(std::exchange(other.core_, nullptr)) {}
    socket& operator=(socket&& other) noexcept {
        socket taken(std::move(other));
        std::swap(core_, taken.core_);
        return *this;
    }
    ~socket();

    /// Makes a socket that receives datagrams sent to this endpoint. For port 0 the kernel chooses
    /// the port.
    [[nodiscard]] static socket bind(const endpoint& at, bool reuse_port = false);
    /// Makes a socket that is bound to a port of the kernel's choice, and connected to one peer.
    [[nodiscard]] static socket connect(const endpoint& to);
    /// From here on, the socket sends to this peer, receives from no other, and names it in errors.
    /// Does not wait.
    void set_peer(const endpoint& to);

    [[nodiscard]] detail::sending send_to(std::span<const std::byte> bytes,
                                          const endpoint& to) noexcept {
        return {core_, bytes, &to};
    }
    [[nodiscard]] detail::sending send(std::span<const std::byte> bytes) noexcept {
        return {core_, bytes, nullptr};
    }
    [[nodiscard]] detail::receiving receive_from(std::span<std::byte> into) noexcept {
        return {core_, into};
    }
    /// The same, for a socket with one peer.
    [[nodiscard]] detail::receiving receive(std::span<std::byte> into) noexcept {
        return {core_, into};
    }

    /// As stream::close.
    [[nodiscard]] tokengate::detail::closing_socket close() noexcept;
    [[nodiscard]] endpoint local_endpoint() const;
    [[nodiscard]] bool is_open() const noexcept;
    [[nodiscard]] int descriptor() const;

private:
    explicit socket(tokengate::detail::socket_core* core) noexcept : core_(core) {}

    tokengate::detail::socket_core* core_ = nullptr;
};

}  // namespace tokengate::udp
