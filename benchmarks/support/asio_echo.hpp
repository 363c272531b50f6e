// SPDX-License-Identifier: MIT
#pragma once

#if __has_include(<asio.hpp>)

// asio 1.22 looks for the coroutines of clang where they were before C++20; its own switches put that right. To be
// included before anything else of asio.
#if defined(__clang__) && !defined(ASIO_HAS_CO_AWAIT)
#define ASIO_HAS_CO_AWAIT 1
#define ASIO_HAS_STD_COROUTINE 1
#endif

#include <fcntl.h>
#include <asio/awaitable.hpp>
#include <asio/buffer.hpp>
#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/use_awaitable.hpp>
#include <asio/write.hpp>

#include "tcp.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <system_error>
#include <utility>

/// The echo server that a user of standalone asio would write: coroutines, one io_context, one thread.
///
///     tcp::listener listener;
///     rival::asio_echo echo(listener.descriptor());
///     pinned_thread server(0, [&] { echo.run(); });
///     …
///     echo.stop();          // any thread
///     server.join();
///
/// Two of them with listeners of the same port (SO_REUSEPORT), one a thread, are its fastest shape for two threads. The
/// listener stays the caller's. Everything but stop() belongs to the thread of run(); figures() is for whoever has
/// joined it. What a connection suffers is counted.

namespace rival {

class asio_echo {
public:
    struct counts {
        std::uint64_t connections = 0;
        std::uint64_t bytes = 0;
        std::uint64_t failures = 0;  // connections that ended with an error
    };

    explicit asio_echo(int listener)
        : acceptor_(context_, asio::ip::tcp::v4(), duplicate(listener)) {
        asio::co_spawn(context_, accept(), asio::detached);
    }

    void run() { context_.run(); }
    void stop() { context_.stop(); }
    [[nodiscard]] const counts& figures() const noexcept { return counts_; }

private:
    using socket = asio::ip::tcp::socket;

    static int duplicate(int descriptor) {
        const int made = fcntl(descriptor, F_DUPFD_CLOEXEC, 0);
        ::tcp::check(made >= 0, "dup");
        return made;
    }

    asio::awaitable<void> accept() {
        for (;;) {
            socket accepted = co_await acceptor_.async_accept(asio::use_awaitable);
            ++counts_.connections;
            asio::co_spawn(context_, serve(std::move(accepted)), asio::detached);
        }
    }

    asio::awaitable<void> serve(socket peer) {
        std::array<std::byte, 4096> buffer;
        try {
            for (;;) {
                const std::size_t length =
                    co_await peer.async_read_some(asio::buffer(buffer), asio::use_awaitable);
                counts_.bytes += length;
                co_await asio::async_write(peer, asio::buffer(buffer, length), asio::use_awaitable);
            }
        } catch (const std::system_error& error) {
            counts_.failures += error.code() != asio::error::eof ? 1 : 0;
        }
    }

    counts counts_;                // before the context, which destroys the coroutines that count
    asio::io_context context_{1};  // one thread: asio leaves out what more would need
    asio::ip::tcp::acceptor acceptor_;
};

}  // namespace rival

#endif
