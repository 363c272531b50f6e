// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/endpoint.hpp>
#include <tokengate/listener.hpp>
#include <tokengate/stream.hpp>
#include <tokengate/time_span.hpp>

#include <string_view>

/// UNIX streams, between processes of one machine. See stream.hpp and listener.hpp.
///
///     auto listener = tg::local::listen("/run/store.sock");  // "@store": abstract, without a file
///     tg::local::stream store = co_await tg::local::connect("/run/store.sock");
///
/// Thread safety: `listen` may be called on any thread and does not wait.
///
/// Lifetime: The file of a listener stays when the listener is closed. No other listener can be
/// bound there before the file is removed.
///
/// Errors: std::system_error, which names the endpoint, with std::errc::timed_out when the timeout
/// of `connect` is over. configuration_error for an invalid path. From `connect` also token_stopped
/// if the token is asked to stop, and wrong_thread where no event loop runs.
///
/// Stop: A stop ends the wait of `connect` with token_stopped.

namespace tokengate::local {

using stream = tokengate::stream;
using listener = tokengate::listener;

/// The listener listens when the call returns.
[[nodiscard]] inline listener listen(std::string_view path, const listen_options& options = {}) {
    return listener::open(endpoint::local(path), options);
}

/// Waits for a connection, at most for the timeout `limit`.
[[nodiscard]] inline detail::connecting connect(std::string_view path,
                                                time_span limit = time_span::max()) {
    return {endpoint::local(path), limit};
}

}  // namespace tokengate::local
