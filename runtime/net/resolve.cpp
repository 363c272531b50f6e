// SPDX-License-Identifier: MIT
#include <tokengate/resolve.hpp>

#include "base/quoted.hpp"

#include <tokengate/blocking.hpp>

#include <netdb.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <memory>
#include <string_view>
#include <system_error>
#include <utility>

namespace tokengate {

namespace {

struct question {
    std::string host;
    std::string service;
    sa_family_t family;
};

[[noreturn]] void refuse(const question& of, int code, const std::string& why) {
    throw resolve_error("resolve_error: " + detail::quoted(of.host) + ", service " +
                            detail::quoted(of.service) + ": " + why,
                        code);
}

/// Rejects what getaddrinfo would misread. It parses ports by strtoul, which wraps and skips blanks
/// and signs, and it ends texts at a NUL.
void check(const question& asked) {
    const auto has_nul = [](std::string_view text) { return text.find('\0') != text.npos; };
    if (asked.host.empty() || has_nul(asked.host))
        refuse(asked, EAI_NONAME, "that is no name of a host");
    const std::string& service = asked.service;
    const auto is_letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
    if (std::ranges::any_of(service, is_letter) && !has_nul(service)) return;
    std::uint16_t port;
    const char* const end = service.data() + service.size();
    if (const auto [stop, problem] = std::from_chars(service.data(), end, port);
        problem != std::errc{} || stop != end)
        refuse(asked, EAI_SERVICE, "that is neither a port (0 to 65535) nor the name of a service");
}

using answer = std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)>;

/// Null if `flags` request numbers and the question has names.
answer ask(const question& asked, int flags) {
    addrinfo hints{};
    hints.ai_flags = flags;
    // Without AI_ADDRCONFIG: with it, a host without a network could not resolve its own name.
    // getaddrinfo sorts unreachable addresses last.
    hints.ai_family = asked.family;
    addrinfo* found = nullptr;
    const int code = ::getaddrinfo(asked.host.c_str(), asked.service.c_str(), &hints, &found);
    const int system_code = errno;
    if (code == 0) return {found, &::freeaddrinfo};
    if (code == EAI_NONAME && (flags & AI_NUMERICHOST)) return {nullptr, &::freeaddrinfo};
    refuse(asked, code,
           code == EAI_SYSTEM ? std::system_category().message(system_code) : ::gai_strerror(code));
}

/// The endpoints of the list. Entries that differ only in the socket type count once.
std::vector<endpoint> endpoints_in(const addrinfo* each) {
    std::vector<endpoint> found;
    for (; each; each = each->ai_next) {
        const endpoint next = endpoint::from(each->ai_addr, each->ai_addrlen);
        if (std::ranges::find(found, next) == found.end()) found.push_back(next);
    }
    return found;
}

}  // namespace

task<std::vector<endpoint>> resolve(std::string host, std::string service, sa_family_t family) {
    const question asked{std::move(host), std::move(service), family};
    check(asked);
    if (const answer numeric = ask(asked, AI_NUMERICHOST | AI_NUMERICSERV))
        co_return endpoints_in(numeric.get());
    auto look_up = [&asked] { return endpoints_in(ask(asked, 0).get()); };
    co_return co_await blocking(look_up);
}

}  // namespace tokengate
