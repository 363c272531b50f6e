// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/time_span.hpp>

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

/// A page to watch a runtime by, and to turn its gate: an HTTP server on the runtime's control loop. A library of its own,
/// tokengate-console (pkg-config has it), which the runtime does not need.
///
///     tg::runtime runtime;
///     tg::console console(runtime, {.port = 9180, .token = secret});
///     std::cout << console.url() << '\n';                   // http://127.0.0.1:9180/
///     return runtime.run(serve);
///
/// Serves `/` (the page), `/metrics`, `/snapshot.json`, `/tokens.json?operation=&state=&limit=`, `/trace.json`, and takes
/// POST `/gate/pause`, `/gate/resume`, `/gate/drain` with `{"operation": NAME}` or `{"operation": null}` and the header
/// `Authorization: Bearer TOKEN`. See docs/how-to/console.md.
///
/// It listens from its construction on, and answers while the runtime runs (run, start), which it does not keep alive; in
/// between connections wait. Answers are written by a thread of its own, so that looking holds nobody up. Whoever reaches
/// the port may read; without a token nobody may turn anything. There is no TLS: beyond this machine, let an SSH tunnel
/// or a proxy bring it.
///
/// Thread safety: made and destroyed on any thread; on one of the runtime's own, the port is closed soon after the
/// destructor. Must not outlive the runtime. Errors of the constructor: configuration_error for options that cannot be,
/// std::system_error, which names the address, where that cannot be listened at.

namespace tokengate {

class runtime;

struct console_options {
    std::string address = "127.0.0.1";  ///< numeric, of either family
    std::uint16_t port = 0;             ///< 0: the kernel chooses
    /// Whoever knows it may turn the gate; empty: nobody may. At least 16 visible ASCII characters, such as those of
    /// `openssl rand -hex 32`.
    std::string token{};
    unsigned connections = 256;  ///< at a time; others wait to be accepted
    /// In whole seconds: a connection is closed from which no whole request has come for so long, or whose answer has not
    /// moved.
    time_span idle_timeout = std::chrono::seconds(10);
};

class console {
public:
    explicit console(runtime& of, const console_options& options = {});
    ~console();
    console(const console&) = delete;
    console& operator=(const console&) = delete;

    [[nodiscard]] std::uint16_t port() const noexcept;
    [[nodiscard]] std::string url() const;

private:
    struct parts;
    std::unique_ptr<parts> parts_;
};

}  // namespace tokengate
