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

/// Datagrams over IPv4 and IPv6: each arrives whole, or not at all.
///
///     auto socket = tg::udp::socket::bind({"0.0.0.0", 5353});
///     auto [size, from, truncated] = co_await socket.receive_from(buffer);
///     co_await socket.send_to(std::span(buffer).first(size), from);
///
///     auto client = tg::udp::socket::connect({"127.0.0.1", 5353});        // one peer: send, receive
///
/// As many tokens as like may send and receive at once, on any core. Buffers belong to the caller and stay as they are
/// until the await has ended. Owner, close and stop: as with a stream. Errors: std::system_error that names the peer
/// (ECONNREFUSED on a connected socket: nobody was there for an earlier datagram; EMSGSIZE: too large for one),
/// configuration_error for a UNIX endpoint, token_stopped, socket_closed.

namespace tokengate::udp {

struct received {
    std::size_t size;  ///< bytes in the buffer
    endpoint from;
    bool truncated;  ///< the datagram was longer, the rest is lost
};

class socket;

namespace detail {

using namespace tokengate::detail;

/// One datagram, either way.
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

    /// Receives what is sent to this endpoint; port 0: one that the kernel chooses.
    [[nodiscard]] static socket bind(const endpoint& at, bool reuse_port = false);
    /// Bound to a port of the kernel's choice, and connected.
    [[nodiscard]] static socket connect(const endpoint& to);
    /// From here on, it sends to this peer, receives from no other, and names it in errors. Does not wait.
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
    /// The same, where the sender is known.
    [[nodiscard]] detail::receiving receive(std::span<std::byte> into) noexcept {
        return {core_, into};
    }

    [[nodiscard]] tokengate::detail::closing_socket close() noexcept;
    [[nodiscard]] endpoint local_endpoint() const;
    [[nodiscard]] bool is_open() const noexcept;
    [[nodiscard]] int descriptor() const;

private:
    explicit socket(tokengate::detail::socket_core* core) noexcept : core_(core) {}

    tokengate::detail::socket_core* core_ = nullptr;
};

}  // namespace tokengate::udp
