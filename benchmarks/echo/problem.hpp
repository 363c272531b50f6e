// SPDX-License-Identifier: MIT
#pragma once

#include "../support/contender.hpp"
#include "../support/echo_load.hpp"
#include "../support/pinned_thread.hpp"
#include "../support/tcp.hpp"

#include <cstdint>
#include <stdexcept>

/// TCP echo over loopback with `size` connections for `shape` milliseconds: the server on CPU 0, the load on CPU 1
/// (support/echo_load.hpp, closed loop, 64 bytes). The result is the number of requests that went wrong; every
/// reply is compared, and what a connection suffers counts. "p99_us": the 99th percentile of a request's time.

namespace echo {

constexpr int server_cpu = 0, client_cpu = 1;

inline contest::sample load(const contest::request& asked, std::uint16_t port) {
    echo_load::figures seen;
    pinned_thread client(client_cpu, [&] {
        echo_load::options how;
        how.to = tcp::address_of("127.0.0.1", port);
        how.connections = static_cast<unsigned>(asked.size);
        how.seconds = static_cast<double>(asked.shape) / 1000;
        seen = echo_load(how).run();
    });
    client.join();
    const echo_load::errors& failed = seen.failed;
    if (seen.requests == 0) throw std::runtime_error("no request was answered");
    return {.result = failed.connect + failed.reset + failed.closed + failed.mismatch + failed.lost,
            .seconds = seen.seconds,
            .items = static_cast<double>(seen.requests),
            .more = {{"p99_us", static_cast<double>(seen.latencies.quantile(0.99)) / 1000}}};
}

/// A server of support/: made from a listener, with run() and stop().
template <class Server, class... Mode>
contest::sample serve(const contest::request& asked, Mode... mode) {
    tcp::listener listener;
    Server server(listener.descriptor(), mode...);
    pinned_thread serving(server_cpu, [&] { server.run(); });
    const contest::sample seen = load(asked, listener.port());
    server.stop();
    serving.join();
    if (server.figures().connections < asked.size)
        throw std::runtime_error("the server missed connections");
    return seen;
}

}  // namespace echo
