// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/endpoint.hpp>
#include <tokengate/error.hpp>
#include <tokengate/task.hpp>

#include <sys/socket.h>

#include <string>
#include <vector>

/// `resolve` returns the addresses of a host by its name, as the system's resolver knows them
/// (/etc/hosts, DNS, whatever nsswitch.conf names). The result has at least one endpoint and each
/// endpoint once, best first (RFC 6724). The resolver can only block, so it runs by tg::blocking.
/// If address and port are numbers, `resolve` needs no thread and does not wait.
///
///     std::vector<tg::endpoint> found = co_await tg::resolve("example.org", "https");
///     for (const tg::endpoint& each : found) …  // best first (RFC 6724), each once, never none
///
/// Errors: resolve_error if the name or the service is not known, or the resolver fails. The errors
/// of tg::blocking.
///
/// Stop: If the request still waits for a thread, a stop withdraws it: token_stopped. If the
/// resolver runs, the token waits for it, as long as resolv.conf lets it take, and gets its result.

namespace tokengate {

/// The name or the service is not known, or the resolver failed. what() names both.
class resolve_error : public error {
public:
    resolve_error(const std::string& text, int code) : error(text), code_(code) {}
    /// One of <netdb.h>'s EAI_ constants: EAI_NONAME for no such host or service, EAI_AGAIN for
    /// perhaps later, …
    [[nodiscard]] int code() const noexcept { return code_; }

private:
    int code_;
};

/// `service` is a number, or a name of /etc/services, regardless of the protocol. `family` is
/// AF_INET, AF_INET6, or AF_UNSPEC for either.
[[nodiscard]] task<std::vector<endpoint>> resolve(std::string host, std::string service,
                                                  sa_family_t family = AF_UNSPEC);

}  // namespace tokengate
