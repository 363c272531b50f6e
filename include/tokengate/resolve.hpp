// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/endpoint.hpp>
#include <tokengate/error.hpp>
#include <tokengate/task.hpp>

#include <sys/socket.h>

#include <string>
#include <vector>

/// The addresses of a host by its name, as the system's resolver knows them (/etc/hosts, DNS, whatever nsswitch.conf
/// says).
///
///     std::vector<tg::endpoint> found = co_await tg::resolve("example.org", "https");
///     for (const tg::endpoint& each : found) …                  // best first (RFC 6724), each once, never none
///
/// The resolver can only block, so it runs by tg::blocking, whose rules hold: a stop takes the request back while it
/// waits for a thread; once asked, a name server is waited for, as long as resolv.conf lets it take. An address and a
/// port that are numbers need no thread and no wait.
///
/// Errors: resolve_error; those of tg::blocking.

namespace tokengate {

/// The name or the service is not known, or nobody could tell. what() names both.
class resolve_error : public error {
public:
    resolve_error(const std::string& text, int code) : error(text), code_(code) {}
    /// One of <netdb.h>'s EAI_ constants: EAI_NONAME no such host or service, EAI_AGAIN perhaps later, …
    [[nodiscard]] int code() const noexcept { return code_; }

private:
    int code_;
};

/// `service` is a number, or a name of /etc/services, whatever the protocol; `family` AF_INET, AF_INET6, or either.
[[nodiscard]] task<std::vector<endpoint>> resolve(std::string host, std::string service,
                                                  sa_family_t family = AF_UNSPEC);

}  // namespace tokengate
