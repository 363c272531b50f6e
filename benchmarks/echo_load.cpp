// SPDX-License-Identifier: MIT

/// Loads an echo server over TCP and tells how fast and how late it answers. Exit status 1 where anything went wrong.
///
///     echo_load --host 127.0.0.1 --port 7000 --connections 64 --seconds 2 --bytes 64 --threads 1 --json FILE

#include "support/echo_load.hpp"

#include "../samples/support/command_line.hpp"
#include "../samples/support/json.hpp"

#include <cstdio>
#include <exception>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

/// The samples' command lines know numbers and choices only: an address is taken out before.
std::string take_host(std::vector<char*>& arguments) {
    std::string host = "127.0.0.1";
    for (auto at = arguments.begin(); at != arguments.end();) {
        const std::string_view text = *at;
        const auto value = text == "--host" ? at + 1 : at;
        if ((text != "--host" && !text.starts_with("--host=")) || value == arguments.end()) {
            ++at;
            continue;
        }
        host = value == at ? text.substr(std::string_view("--host=").size())
                           : std::string_view(*value);
        at = arguments.erase(at, value + 1);
    }
    return host;
}

int run(int argc, char** argv) {
    std::vector<char*> arguments(argv, argv + argc);
    const std::string host = take_host(arguments);
    support::command_line line(
        static_cast<int>(arguments.size()), arguments.data(), "echo_load",
        "Loads a TCP echo server; --host takes an IPv4 address (default: 127.0.0.1).");
    const unsigned port =
        line.number("--port", 1, 65535, "of the server (default: 7000)").value_or(7000);
    echo_load::options how;
    how.connections =
        line.number("--connections", 1, 100'000, "open at a time (default: 64)").value_or(64);
    how.seconds = line.number("--seconds", 1, 3600, "measured (default: 2)").value_or(2);
    how.bytes = line.number("--bytes", 1, 1U << 20U, "a request (default: 64)").value_or(64);
    how.threads =
        line.number("--threads", 1, 256, "of the client, no more than connections (default: 1)")
            .value_or(1);
    const auto file = line.json_file();
    line.finish();

    how.to = tcp::address_of(host, static_cast<std::uint16_t>(port));
    const echo_load::figures seen = echo_load(how).run();
    const auto& [connect, reset, closed, mismatch, lost] = seen.failed;
    support::json told;
    told.add("connections", how.connections).add("bytes", how.bytes).add("threads", how.threads);
    told.add("seconds", seen.seconds).add("requests", seen.requests);
    told.add("requests_per_second", seen.requests_per_second());
    std::printf("%.0f requests/s", seen.requests_per_second());
    for (const auto& [name, quantile] : {std::pair{"p50", 0.5}, std::pair{"p90", 0.9},
                                         std::pair{"p99", 0.99}, std::pair{"p99.9", 0.999}}) {
        const std::uint64_t ns = seen.latencies.quantile(quantile);
        std::printf("  %s %.1f us", name, static_cast<double>(ns) * 1e-3);
        told.add(std::string(name) + "_ns", ns);
    }
    std::printf("  max %.1f us\n", static_cast<double>(seen.latencies.max()) * 1e-3);
    told.add("max_ns", seen.latencies.max())
        .add("failed_connect", connect)
        .add("failed_reset", reset);
    told.add("failed_closed", closed).add("failed_mismatch", mismatch).add("failed_lost", lost);
    if (seen.failed.any())
        std::fprintf(
            stderr, "failed: connect %llu, reset %llu, closed %llu, mismatch %llu, lost %llu\n",
            static_cast<unsigned long long>(connect), static_cast<unsigned long long>(reset),
            static_cast<unsigned long long>(closed), static_cast<unsigned long long>(mismatch),
            static_cast<unsigned long long>(lost));
    support::write_json(file, told);
    return seen.failed.any() || seen.requests == 0 ? 1 : 0;
}

}  // namespace

int main(int argc, char** argv) {
    try {
        return run(argc, argv);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "echo_load: %s\n", error.what());
        return 1;
    }
}
