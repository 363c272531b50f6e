// SPDX-License-Identifier: MIT

/// Ours: read and write_all in a token for each connection, one core.

#include "problem.hpp"

#include <tokengate/tokengate.hpp>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <future>
#include <span>
#include <utility>

namespace {

namespace tg = tokengate;
using namespace std::chrono_literals;

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

contest::sample run(const contest::request& asked) {
    tg::runtime runtime{{.cores = 1, .cpus = {echo::server_cpu}}};
    runtime.start();
    std::promise<std::uint16_t> port;
    std::future<void> served = runtime.submit(server(&port));
    const contest::sample seen = echo::load(asked, port.get_future().get());
    runtime.stop(5s, 0s);
    try {
        served.get();
    } catch (const tg::token_stopped&) {}
    return seen;
}

}  // namespace

int main(int argc, char** argv) {
    const contest::request asked(argc, argv);
    return contest::answer(asked, {{"streams", [&] { return run(asked); }}});
}
