// SPDX-License-Identifier: MIT
#pragma once

#include "child.hpp"
#include "leaks.hpp"

#include <tokengate/runtime.hpp>
#include <tokengate/task.hpp>
#include <tokengate/tcp.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// What tests of sockets share.
///
///     run_cleanly([]() -> tg::task<> { … });            // and neither a frame nor a descriptor is left
///     auto [client, server] = co_await connected(kind::tcp6);

namespace tokengate::test {

template <class Main>
void run_cleanly(Main main, runtime_options options = {.cores = 2}) {
    const std::size_t slots = live_slots();
    const std::size_t descriptors = open_descriptors();
    {
        runtime here(std::move(options));
        here.run(std::move(main));
    }
    CHECK(live_slots() == slots);
    CHECK(open_descriptors() == descriptors);
}

inline std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }
inline std::string text_of(std::span<const std::byte> bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// Bytes that do not repeat soon.
inline std::vector<std::byte> pattern(std::size_t size, std::uint32_t seed = 1) {
    std::vector<std::byte> made(size);
    for (std::byte& each : made) {
        seed = seed * 1664525 + 1013904223;
        each = static_cast<std::byte>(seed >> 24);
    }
    return made;
}

struct ends {
    tokengate::stream client;
    tokengate::stream server;
};

inline task<ends> connected(endpoint at) {
    listener from = listener::open(at, {});
    const endpoint to = from.local_endpoint();
    std::chrono::nanoseconds limit = std::chrono::seconds(30);
    tokengate::stream client = co_await detail::connecting(to, limit);
    tokengate::stream server = co_await from.accept();
    co_return ends{std::move(client), std::move(server)};
}
inline task<ends> connected() { return connected(endpoint::loopback_v4(0)); }

/// What it throws: its text.
template <class Error, class T>
task<std::string> thrown_by(task<T> work) {
    std::string text = "(nothing)";
    try {
        co_await std::move(work);
    } catch (const Error& error) {
        text = error.what();
    }
    co_return text;
}

}  // namespace tokengate::test
