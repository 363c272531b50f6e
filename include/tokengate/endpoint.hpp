// SPDX-License-Identifier: MIT
#pragma once

#include <sys/socket.h>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

/// The address of a socket, as a value: IPv4, IPv6 with its scope, or UNIX (path, abstract, unnamed).
///
///     auto listener = tg::tcp::listen({"127.0.0.1", 7000});
///     auto peer = tg::endpoint::parse("[fe80::1%eth0]:80");      // peer.text() gives it back
///     auto backend = tg::endpoint::local("/run/backend.sock");
///
/// Owns what it holds, copies as bytes, safe on every thread as any value is. Nothing here waits or asks a name server:
/// names are tg::resolve's. A text that is no address throws configuration_error, which names it. Only IPv6 scopes look
/// beyond the text, at the interfaces of this network namespace.

namespace tokengate {

class endpoint {
public:
    /// "127.0.0.1", "::1", "fe80::1%eth0" or "fe80::1%2"; a scope of digits is an interface's index, not its name. An
    /// IPv4-mapped address ("::ffff:1.2.3.4") stays IPv6, as dual-stack sockets take and give it. Not explicit, so that
    /// braces make one.
    endpoint(std::string_view numeric_address,
             std::uint16_t port);  // NOLINT(google-explicit-constructor)

    /// UNIX, at most 108 bytes. A leading '@' means the abstract namespace (a file of such a name is "./@name"): it can
    /// be written in a configuration and is what ss and systemd print. A leading NUL is refused: in a literal it would
    /// end the string_view, so that "\0name" would be an empty path.
    [[nodiscard]] static endpoint local(std::string_view path);

    [[nodiscard]] static endpoint any_v4(std::uint16_t port);
    [[nodiscard]] static endpoint any_v6(std::uint16_t port);
    [[nodiscard]] static endpoint loopback_v4(std::uint16_t port);
    [[nodiscard]] static endpoint loopback_v6(std::uint16_t port);

    /// What the kernel gave, or somebody else's sockaddr, aligned or not. Keeps what says where the socket is, so that
    /// equal addresses compare equal: not an IPv6 flow label, nor what follows a path's NUL. Another family, or a size
    /// that is not its family's, throws configuration_error.
    [[nodiscard]] static endpoint from(const sockaddr* address, socklen_t size);

    /// "127.0.0.1:80", "[::1]:80", "unix:/path", "unix:@abstract".
    [[nodiscard]] static endpoint parse(std::string_view text);

    /// What parse reads back to an equal endpoint, with two exceptions: an unnamed address is "unix:", which parse
    /// refuses, for a forgotten path looks like that; and a relative path that begins with '@' comes back as "./@…",
    /// the same file. The bytes of paths and abstract names are given as they are, whatever they are.
    [[nodiscard]] std::string text() const;

    /// text() without port, brackets and "unix:".
    [[nodiscard]] std::string address() const;

    [[nodiscard]] std::uint16_t port() const noexcept;  ///< 0 for UNIX
    [[nodiscard]] sa_family_t family() const noexcept { return storage_.ss_family; }
    [[nodiscard]] bool is_local() const noexcept { return family() == AF_UNIX; }

    /// As bind, connect and sendto want them; valid as long as the endpoint.
    [[nodiscard]] const sockaddr* data() const noexcept {
        return reinterpret_cast<const sockaddr*>(&storage_);
    }
    [[nodiscard]] socklen_t size() const noexcept { return size_; }

    [[nodiscard]] std::size_t hash() const noexcept;
    friend bool operator==(const endpoint& a, const endpoint& b) noexcept;

private:
    endpoint() = default;

    void keep(const void* address, std::size_t size) noexcept;
    [[nodiscard]] std::string_view bytes() const noexcept;

    sockaddr_storage storage_{};  // zero beyond size_
    socklen_t size_ = 0;
};

}  // namespace tokengate

template <>
struct std::hash<tokengate::endpoint> {
    std::size_t operator()(const tokengate::endpoint& value) const noexcept { return value.hash(); }
};
