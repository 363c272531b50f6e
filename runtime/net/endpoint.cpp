// SPDX-License-Identifier: MIT
#include <tokengate/endpoint.hpp>

#include "base/quoted.hpp"

#include <tokengate/error.hpp>

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/un.h>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <functional>
#include <optional>
#include <system_error>

namespace tokengate {
namespace {

constexpr std::size_t path_offset = offsetof(sockaddr_un, sun_path);
constexpr std::size_t longest_path = sizeof(sockaddr_un::sun_path);
constexpr std::string_view unix_prefix = "unix:";

using detail::quoted;

[[noreturn]] void refuse(std::string_view text, const std::string& why) {
    throw configuration_error("configuration_error: endpoint " + quoted(text) + ": " + why);
}

/// The number if all of `text` is decimal digits, without a sign or blanks.
template <typename Number>
std::optional<Number> number_in(std::string_view text) {
    Number value{};
    const char* const begin = text.data();
    const char* const end = begin + text.size();
    const auto [stop, problem] = std::from_chars(begin, end, value);
    if (problem != std::errc{} || stop != end) return std::nullopt;
    return value;
}

std::uint32_t scope_in(std::string_view scope, std::string_view whole) {
    // Digits are tried first. `scope_text` never returns an interface's name that is a number, so
    // each of the two functions parses what the other returns.
    if (const auto index = number_in<std::uint32_t>(scope); index && *index != 0) return *index;
    if (const unsigned index = ::if_nametoindex(std::string(scope).c_str())) return index;
    // if_nametoindex also fails if no descriptor is left.
    const std::string reason = std::system_category().message(errno);
    refuse(whole, "the scope " + quoted(scope) + " is no network interface's name or index (" +
                      reason + ')');
}

std::string scope_text(std::uint32_t scope) {
    std::array<char, IF_NAMESIZE> name{};
    // If the interface does not exist any more, the text is its index.
    if (!::if_indextoname(scope, name.data()) || number_in<std::uint32_t>(name.data()))
        return std::to_string(scope);
    return name.data();
}

template <typename Address>
endpoint made(const Address& address, std::size_t size = sizeof(Address)) {
    return endpoint::from(reinterpret_cast<const sockaddr*>(&address),
                          static_cast<socklen_t>(size));
}

endpoint v4(in_addr address, std::uint16_t port) {
    sockaddr_in in{};
    in.sin_family = AF_INET;
    in.sin_port = htons(port);
    in.sin_addr = address;
    return made(in);
}

endpoint v6(const in6_addr& address, std::uint16_t port, std::uint32_t scope = 0) {
    sockaddr_in6 in{};
    in.sin6_family = AF_INET6;
    in.sin6_port = htons(port);
    in.sin6_addr = address;
    in.sin6_scope_id = scope;
    return made(in);
}

/// `whole` is the caller's text, for the message.
endpoint numeric(std::string_view address, std::uint16_t port, std::string_view whole) {
    // inet_pton and if_nametoindex would stop at a NUL and accept the part before it.
    if (address.find('\0') == address.npos) {
        const std::size_t percent = address.find('%');
        const std::string host(address.substr(0, percent));
        in_addr four{};
        in6_addr six{};
        if (percent == address.npos && ::inet_pton(AF_INET, host.c_str(), &four) == 1)
            return v4(four, port);
        if (::inet_pton(AF_INET6, host.c_str(), &six) == 1)
            return v6(six, port,
                      percent == address.npos ? 0 : scope_in(address.substr(percent + 1), whole));
    }
    refuse(whole,
           quoted(address) +
               " is no numeric IPv4 or IPv6 address; names are resolved by tg::resolve, and all "
               "interfaces are \"0.0.0.0\" or \"::\"");
}

/// Copies by memcpy: a sockaddr in a caller's byte buffer need not be aligned, nor be an object of
/// that type.
template <typename Address>
Address read(const void* from, std::size_t size = sizeof(Address)) noexcept {
    Address out{};
    std::memcpy(&out, from, size);
    return out;
}

}  // namespace

endpoint::endpoint(std::string_view numeric_address, std::uint16_t port)
    : endpoint(numeric(numeric_address, port, numeric_address)) {}

endpoint endpoint::local(std::string_view path) {
    if (path.empty()) refuse(path, "a UNIX address needs a path, or '@' and an abstract name");
    if (path.size() > longest_path)
        refuse(path, "a UNIX address has at most " + std::to_string(longest_path) +
                         " bytes, and this one " + std::to_string(path.size()));
    const bool abstract = path.front() == '@';
    if (!abstract && path.find('\0') != path.npos)
        refuse(path, "a path has no NUL in it, and an abstract name is written with a leading '@'");
    sockaddr_un un{};
    un.sun_family = AF_UNIX;
    std::memcpy(un.sun_path, path.data(), path.size());
    if (abstract) un.sun_path[0] = '\0';
    return made(un, path_offset + path.size());
}

endpoint endpoint::any_v4(std::uint16_t port) { return v4({htonl(INADDR_ANY)}, port); }
endpoint endpoint::any_v6(std::uint16_t port) { return v6(in6addr_any, port); }
endpoint endpoint::loopback_v4(std::uint16_t port) { return v4({htonl(INADDR_LOOPBACK)}, port); }
endpoint endpoint::loopback_v6(std::uint16_t port) { return v6(in6addr_loopback, port); }

endpoint endpoint::from(const sockaddr* address, socklen_t size) {
    const auto too = [&](const char* what) {
        throw configuration_error("configuration_error: endpoint: a socket address of " +
                                  std::to_string(size) + " bytes is too " + what +
                                  " for its family");
    };
    if (!address || size < sizeof(sa_family_t)) too("short");
    endpoint out;
    switch (const auto family = read<sa_family_t>(address); family) {
        case AF_INET: {
            if (size < sizeof(sockaddr_in)) too("short");
            auto in = read<sockaddr_in>(address);
            std::memset(in.sin_zero, 0, sizeof in.sin_zero);
            out.keep(&in, sizeof in);
            return out;
        }
        case AF_INET6: {
            if (size < sizeof(sockaddr_in6)) too("short");
            auto in = read<sockaddr_in6>(address);
            in.sin6_flowinfo = 0;
            out.keep(&in, sizeof in);
            return out;
        }
        case AF_UNIX: {
            const char* const path = reinterpret_cast<const char*>(address) + path_offset;
            std::size_t length = size - path_offset;
            const bool is_path = length != 0 && *path != '\0';
            // Linux accepts a path of all 108 bytes without a NUL, and returns it with one: that is
            // longer than a sockaddr_un.
            if (is_path) length = ::strnlen(path, length);
            if (length > longest_path) too("long");
            const auto un = read<sockaddr_un>(address, path_offset + length);
            if (is_path && length < longest_path) ++length;  // the kernel counts the NUL, too
            out.keep(&un, path_offset + length);
            return out;
        }
        default:
            throw configuration_error("configuration_error: endpoint: address family " +
                                      std::to_string(family) + " is none of IPv4, IPv6 and UNIX");
    }
}

endpoint endpoint::parse(std::string_view text) {
    if (text.starts_with(unix_prefix)) return local(text.substr(unix_prefix.size()));
    const std::size_t colon = text.rfind(':');
    if (colon != text.npos) {
        std::string_view host = text.substr(0, colon);
        const bool bracketed = host.size() >= 2 && host.front() == '[' && host.back() == ']';
        if (bracketed) host = host.substr(1, host.size() - 2);
        // An IPv6 address needs brackets: without them its last group looks like the port.
        if (bracketed == (host.find(':') != host.npos)) {
            const auto port = number_in<std::uint16_t>(text.substr(colon + 1));
            if (!port) refuse(text, quoted(text.substr(colon + 1)) + " is no port: 0 to 65535");
            return numeric(host, *port, text);
        }
    }
    refuse(text,
           "is none of \"IPV4:PORT\", \"[IPV6]:PORT\", \"unix:PATH\" and \"unix:@NAME\"; names are "
           "resolved by "
           "tg::resolve");
}

std::string endpoint::text() const {
    if (is_local()) return std::string(unix_prefix) + address();
    const std::string port_text = ':' + std::to_string(port());
    return family() == AF_INET6 ? '[' + address() + ']' + port_text : address() + port_text;
}

std::string endpoint::address() const {
    std::array<char, INET6_ADDRSTRLEN> out{};
    if (family() == AF_INET) {
        const auto in = read<sockaddr_in>(&storage_);
        return ::inet_ntop(AF_INET, &in.sin_addr, out.data(), out.size());
    }
    if (family() == AF_INET6) {
        const auto in = read<sockaddr_in6>(&storage_);
        const std::string host = ::inet_ntop(AF_INET6, &in.sin6_addr, out.data(), out.size());
        return in.sin6_scope_id == 0 ? host : host + '%' + scope_text(in.sin6_scope_id);
    }
    std::string_view path = bytes().substr(path_offset);
    if (path.empty()) return {};
    if (path.front() == '\0') return '@' + std::string(path.substr(1));
    path = path.substr(0, path.find('\0'));
    return (path.front() == '@' ? "./" : "") + std::string(path);
}

std::uint16_t endpoint::port() const noexcept {
    if (is_local()) return 0;
    static_assert(offsetof(sockaddr_in, sin_port) == offsetof(sockaddr_in6, sin6_port));
    return ntohs(read<sockaddr_in>(&storage_).sin_port);
}

std::size_t endpoint::hash() const noexcept { return std::hash<std::string_view>{}(bytes()); }

bool operator==(const endpoint& a, const endpoint& b) noexcept { return a.bytes() == b.bytes(); }

void endpoint::keep(const void* address, std::size_t size) noexcept {
    std::memcpy(&storage_, address, size);
    size_ = static_cast<socklen_t>(size);
}

std::string_view endpoint::bytes() const noexcept {
    return {reinterpret_cast<const char*>(&storage_), size_};
}

}  // namespace tokengate
