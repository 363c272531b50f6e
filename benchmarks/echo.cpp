// SPDX-License-Identifier: MIT

/// TCP echo over loopback: ns a request, servers in turn on CPU 0, the load from CPU 1 (echo_load.hpp, closed loop, 64
/// bytes).
///
///   tokengate     read and write_all in a token for each connection, one core
///   raw           a hand-written liburing loop that does nothing else, receive and send one after the other
///   raw multishot the same with one receive for the life of a connection, into buffers that the kernel picks
///   asio          its coroutines on one io_context (where asio is installed)
///
/// `….p99` are the 99th percentiles of a request's time, in µs; all medians over the rounds. Each checks that every reply
/// was right, that no connection failed, and that the server counted what the client did.

#include "support/asio_echo.hpp"
#include "support/echo_load.hpp"
#include "support/pinned_thread.hpp"
#include "support/raw_echo.hpp"
#include "support/side_by_side.hpp"

#include <tokengate/tokengate.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace {

namespace tg = tokengate;
using namespace std::chrono_literals;

constexpr int server_cpu = 0, client_cpu = 1;

/// How long each round lasts; more for figures that are to be kept.
double seconds_a_round() {
    const char* given = std::getenv("ECHO_SECONDS");
    return given ? std::atof(given) : 0.5;
}

echo_load::figures load(std::uint16_t port, unsigned connections) {
    echo_load::figures seen;
    pinned_thread client(client_cpu, [&] {
        echo_load::options how;
        how.to = tcp::address_of("127.0.0.1", port);
        how.connections = connections;
        how.seconds = seconds_a_round();
        seen = echo_load(how).run();
    });
    client.join();
    if (seen.failed.any() || seen.requests == 0) throw std::runtime_error("the load saw errors");
    return seen;
}

// ---- ours ---------------------------------------------------------------------------------------------------------------

tg::task<> serve_client(tg::tcp::stream client) {
    std::array<std::byte, 4096> buffer;
    while (const std::size_t came = co_await client.read(buffer))
        co_await client.write_all(std::span(buffer).first(came));
}

tg::task<> serve(std::promise<std::uint16_t>* port) {
    const auto body = [](tg::scope& clients, std::promise<std::uint16_t>* to) -> tg::task<> {
        tg::tcp::listener listener = tg::tcp::listen({"127.0.0.1", 0});
        to->set_value(listener.local_endpoint().port());
        for (;;) {
            tg::tcp::stream client = co_await listener.accept();
            co_await clients.spawn(serve_client(std::move(client)));
        }
    };
    const auto bound = [&](tg::scope& clients) { return body(clients, port); };
    co_await tg::with_scope(bound);
}
const tg::operation server{{.name = "server"}, serve};

echo_load::figures ours(unsigned connections) {
    tg::runtime runtime{{.cores = 1, .cpus = {server_cpu}}};
    runtime.start();
    std::promise<std::uint16_t> port;
    std::future<void> served = runtime.submit(server(&port));
    echo_load::figures seen = load(port.get_future().get(), connections);
    runtime.stop(5s, 0s);
    try {
        served.get();
    } catch (const tg::token_stopped&) {}
    return seen;
}

// ---- the rivals ---------------------------------------------------------------------------------------------------------

template <class Server, class... Mode>
echo_load::figures rival_server(unsigned connections, Mode... mode) {
    tcp::listener listener;
    Server echo(listener.descriptor(), mode...);
    pinned_thread serving(server_cpu, [&] { echo.run(); });
    echo_load::figures seen = load(listener.port(), connections);
    echo.stop();
    serving.join();
    if (echo.figures().connections < connections) throw std::runtime_error("a server missed connections");
    return seen;
}

// -------------------------------------------------------------------------------------------------------------------------

void echo(benchmark::State& state) {
    const auto connections = static_cast<unsigned>(state.range(0));
    using mode = rival::raw_echo::mode;
    const std::vector<std::pair<std::string, std::function<echo_load::figures()>>> servers{
        {"tokengate", [&] { return ours(connections); }},
        {"raw", [&] { return rival_server<rival::raw_echo>(connections, mode::one_shot); }},
        {"raw multishot", [&] { return rival_server<rival::raw_echo>(connections, mode::multishot); }},
#ifdef TOKENGATE_PEER_ASIO
        {"asio", [&] { return rival_server<rival::asio_echo>(connections); }},
#endif
    };
    side_by_side rounds(state, 1);
    std::map<std::string, std::vector<double>> p99;
    for (auto _ : state)
        for (const auto& [name, run] : servers) {
            const echo_load::figures seen = run();
            rounds.note(name, 1 / seen.requests_per_second());
            p99[name].push_back(static_cast<double>(seen.latencies.quantile(0.99)) / 1000);
        }
    rounds.report();
    for (auto& [name, all] : p99) {
        std::nth_element(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(all.size() / 2), all.end());
        state.counters[name + ".p99"] = all[all.size() / 2];
    }
}

BENCHMARK(echo)->Arg(1)->Arg(64)->Arg(1000)->ArgName("connections")->UseManualTime()->Iterations(5);

}  // namespace

BENCHMARK_MAIN();
