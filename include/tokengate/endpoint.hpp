// SPDX-License-Identifier: MIT
#pragma once

#include <sys/socket.h>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

/// An endpoint is the address of a socket, as a value: IPv4, IPv6 with its scope, or UNIX (path,
/// abstract, unnamed). Nothing here waits or queries a name server: tg::resolve resolves names.
/// Only IPv6 scopes depend on more than the text: on the interfaces of this network namespace.
///
///     auto listener = tg::tcp::listen({"127.0.0.1", 7000});
///     auto peer = tg::endpoint::parse("[fe80::1%eth0]:80");  // peer.text() gives it back
///     auto backend = tg::endpoint::local("/run/backend.sock");
///
/// Thread safety: As for any value.
///
/// Lifetime: An endpoint owns its bytes, and a copy has its own.
///
/// Errors: configuration_error, which names the text, if a text is no address. configuration_error
/// from `from` for an address that it does not take.

namespace tokengate {

class endpoint {
public:
    /// Takes "127.0.0.1", "::1", "fe80::1%eth0" or "fe80::1%2"; a scope of digits is an interface's
    /// index, not its name. An IPv4-mapped address ("::ffff:1.2.3.4") stays IPv6, as dual-stack
    /// sockets take and return it. The constructor is not explicit, so that braces make an
    /// endpoint.
    endpoint(std::string_view numeric_address,
             std::uint16_t port);  // NOLINT(google-explicit-constructor)

    /// A UNIX address, of at most 108 bytes. A leading '@' selects the abstract namespace: it can
    /// be written in a configuration, and ss and systemd print it. (A file of such a name is
    /// "./@name".) A leading NUL is rejected: in a literal it would end the string_view, so that
    /// "\0name" would be an empty path.
    [[nodiscard]] static endpoint local(std::string_view path);

    [[nodiscard]] static endpoint any_v4(std::uint16_t port);
    [[nodiscard]] static endpoint any_v6(std::uint16_t port);
    [[nodiscard]] static endpoint loopback_v4(std::uint16_t port);
    [[nodiscard]] static endpoint loopback_v6(std::uint16_t port);

    /// Copies a sockaddr from the kernel or from other code, aligned or not. It keeps only what
    /// locates the socket, so that equal addresses compare equal: no IPv6 flow label, and nothing
    /// behind a path's NUL. Throws configuration_error for another family, for a size below its
    /// family's, and for a UNIX address that is too long.
    [[nodiscard]] static endpoint from(const sockaddr* address, socklen_t size);

    /// Parses "127.0.0.1:80", "[::1]:80", "unix:/path" or "unix:@abstract".
    [[nodiscard]] static endpoint parse(std::string_view text);

    /// The text that `parse` reads back to an equal endpoint, with two exceptions. An unnamed
    /// address is "unix:", which `parse` rejects, since a forgotten path has the same form. A
    /// relative path that begins with '@' becomes "./@…", the same file. The bytes of paths and
    /// abstract names are returned unchanged.
    [[nodiscard]] std::string text() const;

    /// The same as text(), without port, brackets and "unix:".
    [[nodiscard]] std::string address() const;

    [[nodiscard]] std::uint16_t port() const noexcept;  ///< 0 for UNIX
    [[nodiscard]] sa_family_t family() const noexcept { return storage_.ss_family; }
    [[nodiscard]] bool is_local() const noexcept { return family() == AF_UNIX; }

    /// The address as bind, connect and sendto take it; valid as long as the endpoint.
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
