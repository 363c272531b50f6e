// SPDX-License-Identifier: MIT

// Sends back what it receives, with an independent listener on each core:
//
//     echo_server --port 7000 &  nc localhost 7000

#include "support/command_line.hpp"
#include "support/server.hpp"

#include <tokengate/tokengate.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <span>
#include <string>

namespace tg = tokengate;

namespace {

tg::task<> serve_client(tg::tcp::stream client) {
    std::array<std::byte, 4096> buffer;
    while (const std::size_t came = co_await client.read(buffer))
        co_await client.write_all(std::span(buffer).first(came));
}

}  // namespace

int main(int argc, char** argv) {
    support::command_line line(argc, argv, "echo_server",
                               "Sends back what it is sent, until SIGINT or SIGTERM.");
    const std::string host = line.text("--host", "127.0.0.1", "the numeric address to listen on");
    const unsigned port =
        line.number("--port", 1, 65535, "the port (default: 7000)").value_or(7000);
    const unsigned limit =
        line.number("--connections", 1, 1'000'000, "at a time on each core (default: 10000)")
            .value_or(10'000);
    const unsigned grace =
        line.number("--grace", 0, 3600, "seconds that clients have to finish (default: 5)")
            .value_or(5);
    const auto cores = line.cores();
    line.finish();
    try {
        tg::runtime runtime{{.cores = cores}};
        const support::server settings{.at = {host, static_cast<std::uint16_t>(port)},
                                       .clients_per_core = limit,
                                       .grace = std::chrono::seconds(grace)};
        std::fprintf(stderr, "echo_server: %s on %u cores\n", settings.at.text().c_str(),
                     runtime.cores());
        return runtime.run(support::serve_until_signal(settings, serve_client, runtime.cores()));
    } catch (const std::exception& error) {
        std::fprintf(stderr, "echo_server: %s\n", error.what());
        return 1;
    }
}
