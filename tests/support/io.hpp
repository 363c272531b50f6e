// SPDX-License-Identifier: MIT
#pragma once

#include "child.hpp"
#include "leaks.hpp"
#include "waiting.hpp"

#include <tokengate/error.hpp>
#include <tokengate/runtime.hpp>
#include <tokengate/task.hpp>
#include <tokengate/task_token.hpp>
#include <tokengate/tcp.hpp>
#include <tokengate/time.hpp>

#include <doctest/doctest.h>

#include <chrono>
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

inline std::span<const std::byte> bytes_of(std::string_view text) {
    return std::as_bytes(std::span(text));
}
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

/// Says that it begins; on the same loop, the next who runs finds it waiting.
template <class T>
task<T> announced(bool* begun, task<T> work) {
    *begun = true;
    co_return co_await std::move(work);
}

template <class T>
task<T> stopped_then(bool* begun, task<T> work) {
    *begun = true;
    try {
        co_await sleep_for(std::chrono::hours(1));
    } catch (const token_stopped&) {}
    co_return co_await std::move(work);
}

/// Awaited in a token that has been asked to stop, and has heard of it: the text of its token_stopped.
template <class T>
task<std::string> after_a_stop(task<T> work) {
    bool begun = false;
    token<T> there = as_token(stopped_then(&begun, std::move(work)));
    there.admit();
    co_await until([&begun] { return begun; });
    there.request_stop();
    std::string text = "(nothing)";
    try {
        co_await there;
    } catch (const token_stopped& stopped) {
        text = stopped.what();
    }
    co_return text;
}

}  // namespace tokengate::test
