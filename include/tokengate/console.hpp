// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/time_span.hpp>

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

/// The console is an HTTP server on the runtime's control loop: a page to observe a runtime and to
/// operate its gate. It is a library of its own, tokengate-console (also for pkg-config), which the
/// runtime does not need. It serves `/` (the page), `/metrics`, `/snapshot.json`,
/// `/tokens.json?operation=&state=&limit=` and `/trace.json`. It takes POST `/gate/pause`,
/// `/gate/resume` and `/gate/drain` with `{"operation": NAME}` or `{"operation": null}` and the
/// header `Authorization: Bearer TOKEN`. The console listens from its construction on, and answers
/// while the runtime runs (run, start); in between, connections wait. It does not keep the runtime
/// alive. A thread of its own writes the answers, so requests do not delay tokens. Every client
/// that reaches the port may read; without a token, no client may operate the gate. There is no
/// TLS: beyond this machine, use an SSH tunnel or a proxy. See docs/how-to/console.md.
///
///     tg::runtime runtime;
///     tg::console console(runtime, {.port = 9180, .token = secret});
///     std::cout << console.url() << '\n';  // http://127.0.0.1:9180/
///     return runtime.run(serve);
///
/// Thread safety: A console may be made and destroyed on any thread. If a thread of the runtime
/// destroys it, the port is closed soon after the destructor.
///
/// Lifetime: A console must not outlive its runtime.
///
/// Errors: The constructor throws configuration_error for an invalid option. It throws
/// std::system_error, which names the address, if it cannot listen at that address.

namespace tokengate {

class runtime;

struct console_options {
    std::string address = "127.0.0.1";  ///< numeric, IPv4 or IPv6
    std::uint16_t port = 0;             ///< 0: the kernel chooses
    /// A client that knows the token may operate the gate; if it is empty, no client may. At least
    /// 16 visible ASCII characters, such as those of `openssl rand -hex 32`.
    std::string token{};
    unsigned connections = 256;  ///< at a time, at least 1; others wait to be accepted
    /// In whole seconds, from 1 s to 24 h. If no whole request has arrived on a connection for so
    /// long, or its answer has not moved, the console closes it.
    time_span idle_timeout = std::chrono::seconds(10);
};

class console {
public:
    explicit console(runtime& of, const console_options& options = {});
    ~console();
    console(const console&) = delete;
    console& operator=(const console&) = delete;

    /// The port at which it listens, also if the kernel chose it.
    [[nodiscard]] std::uint16_t port() const noexcept;
    [[nodiscard]] std::string url() const;

private:
    struct parts;
    std::unique_ptr<parts> parts_;
};

}  // namespace tokengate
