// SPDX-License-Identifier: MIT
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <string>
#include <system_error>

/// Sockets that every server and client in a comparison gets alike.
///
///     tcp::listener first(0, true);                 // any free port of 127.0.0.1
///     tcp::listener second(first.port(), true);     // shares it, SO_REUSEPORT: one a thread
///     int connection = tcp::connect(first.address());
///
/// TCP_NODELAY is set on both sides: accepted sockets have it from the listener. Errors: std::system_error.

namespace tcp {

inline void check(bool worked, const char* what) {
    if (!worked) throw std::system_error(errno, std::generic_category(), what);
}

inline void set(int socket, int level, int name, const char* what) {
    const int on = 1;
    check(setsockopt(socket, level, name, &on, sizeof on) == 0, what);
}

inline sockaddr_in address_of(const std::string& ipv4, std::uint16_t port) {
    sockaddr_in made{};
    made.sin_family = AF_INET;
    made.sin_port = htons(port);
    if (inet_pton(AF_INET, ipv4.c_str(), &made.sin_addr) != 1)
        throw std::system_error(EINVAL, std::generic_category(), "not an IPv4 address: " + ipv4);
    return made;
}

class listener {
public:
    explicit listener(std::uint16_t port = 0, bool shared = false)
        : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)),
          address_(address_of("127.0.0.1", port)) {
        check(socket_ >= 0, "socket");
        try {
            set(socket_, SOL_SOCKET, SO_REUSEADDR, "SO_REUSEADDR");
            if (shared) set(socket_, SOL_SOCKET, SO_REUSEPORT, "SO_REUSEPORT");
            set(socket_, IPPROTO_TCP, TCP_NODELAY, "TCP_NODELAY");
            socklen_t length = sizeof address_;
            check(bind(socket_, reinterpret_cast<sockaddr*>(&address_), length) == 0, "bind");
            check(listen(socket_, 4096) == 0, "listen");
            check(getsockname(socket_, reinterpret_cast<sockaddr*>(&address_), &length) == 0,
                  "getsockname");
        } catch (...) {
            close(socket_);
            throw;
        }
    }
    ~listener() { close(socket_); }
    listener(const listener&) = delete;
    listener& operator=(const listener&) = delete;

    [[nodiscard]] int descriptor() const noexcept { return socket_; }
    [[nodiscard]] const sockaddr_in& address() const noexcept { return address_; }
    [[nodiscard]] std::uint16_t port() const noexcept { return ntohs(address_.sin_port); }

private:
    int socket_;
    sockaddr_in address_;
};

/// A connected socket, the caller's to close.
inline int connect(const sockaddr_in& to) {
    const int made = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    check(made >= 0, "socket");
    try {
        set(made, IPPROTO_TCP, TCP_NODELAY, "TCP_NODELAY");
        check(::connect(made, reinterpret_cast<const sockaddr*>(&to), sizeof to) == 0, "connect");
    } catch (...) {
        close(made);
        throw;
    }
    return made;
}

}  // namespace tcp
