// SPDX-License-Identifier: MIT
#pragma once

#include "descriptor_limit.hpp"

#include <tokengate/tokengate.hpp>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <system_error>
#include <utility>

/// The common part of the sample servers: a listener on each core, which serves there the clients
/// that it accepts, until SIGINT or SIGTERM. Then the server accepts no more clients, gives those
/// connected some time to finish, and disconnects the rest. If descriptors run out, the server goes
/// on to serve connected clients, and further ones wait.
///
///     support::server settings{.at = {"127.0.0.1", 7000}, .clients_per_core = 1000};
///     return runtime.run(support::serve_until_signal(settings, serve_client, runtime.cores()));

namespace support {

namespace tg = tokengate;

struct server {
    tg::endpoint at;
    std::size_t clients_per_core = 10'000;  ///< further clients wait in the kernel's queue
    std::chrono::seconds grace{5};
};

using client_handler = tg::task<> (*)(tg::tcp::stream client);

/// A client that disconnects in the middle is no failure of the server.
inline tg::task<> serve_one(tg::tcp::stream client, client_handler serve) {
    try {
        co_await serve(std::move(client));
    } catch (const std::system_error& error) {
        if (error.code() != std::errc::connection_reset && error.code() != std::errc::broken_pipe)
            throw;
    }
}

/// Whether accept may succeed later: descriptors and memory become free again, and a client that
/// disconnected before it was accepted is no failure of the server.
inline bool passes(const std::error_code& failure) {
    for (const int passing : {EMFILE, ENFILE, ENOBUFS, ENOMEM, ECONNABORTED})
        if (failure == std::error_code(passing, std::system_category())) return true;
    return false;
}

inline tg::task<> accept_clients(tg::tcp::listener& listener, tg::scope& clients,
                                 client_handler serve) {
    for (;;) {
        tg::tcp::stream client;
        try {
            client = co_await listener.accept();
        } catch (const std::system_error& failure) {
            if (!passes(failure.code())) throw;
            std::fprintf(stderr, "%s\n", failure.what());
        }
        if (client.is_open())
            // Waits while this core has clients_per_core clients.
            co_await clients.spawn(serve_one(std::move(client), serve));
        else
            // Meanwhile clients wait in the kernel's queue.
            co_await tg::sleep_for(std::chrono::milliseconds(100));
    }
}

inline tg::task<> wait_for(tg::event& event) { co_await event.wait(); }

/// One core's part of the server. The scope waits for the clients on every path out.
inline tg::task<> serve_core(const server& settings, client_handler serve, tg::event& closing) {
    const auto body = [&](tg::scope& clients) -> tg::task<> {
        tg::tcp::listener listener = tg::tcp::listen(settings.at);
        co_await tg::when_any(tg::as_token(accept_clients(listener, clients, serve)),
                              tg::as_token(wait_for(closing)));
    };
    co_await tg::with_scope(tg::scope_options{.limit = settings.clients_per_core,
                                              .on_failure = tg::on_failure::report},
                            body);
}

inline tg::task<> serve_all_cores(const server& settings, client_handler serve, tg::event& closing,
                                  unsigned cores) {
    const auto body = [&](tg::scope& parts) -> tg::task<> {
        for (unsigned core = 0; core < cores; ++core)
            co_await parts.spawn(tg::as_token(serve_core(settings, serve, closing), core));
    };
    co_await tg::with_scope(body);  // if one core cannot listen, the scope stops all
}

inline tg::task<> close_on_signal(tg::event& closing, std::chrono::seconds grace) {
    const int which = co_await tg::signal(SIGINT, SIGTERM);
    std::fprintf(stderr, "signal %d: no more clients are accepted; those connected have %lld s\n",
                 which, static_cast<long long>(grace.count()));
    closing.set();
    co_await tg::sleep_for(grace);
}

/// The main task of a server. Returns 0, also if it had to disconnect clients.
inline tg::task<int> serve_until_signal(server settings, client_handler serve, unsigned cores) {
    raise_descriptor_limit();
    tg::event closing;
    // The first to end stops the other: all clients have gone, or their time is over.
    co_await tg::when_any(tg::as_token(serve_all_cores(settings, serve, closing, cores)),
                          tg::as_token(close_on_signal(closing, settings.grace)));
    co_return 0;
}

}  // namespace support
