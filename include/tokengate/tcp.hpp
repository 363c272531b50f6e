// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/endpoint.hpp>
#include <tokengate/listener.hpp>
#include <tokengate/stream.hpp>
#include <tokengate/time_span.hpp>

/// TCP over IPv4 and IPv6. See stream.hpp and listener.hpp.
///
///     auto listener = tg::tcp::listen({"127.0.0.1", 0});
///     tg::tcp::stream server = co_await tg::tcp::connect({"::1", 7000}, 2s);
///
/// Thread safety: `listen` may be called on any thread.
///
/// Errors: std::system_error, which names the endpoint, with std::errc::timed_out when the timeout
/// of `connect` is over. configuration_error for an endpoint of another family. From `connect` also
/// token_stopped if the token is asked to stop, and wrong_thread where no event loop runs.
///
/// Stop: A stop ends the wait of `connect` with token_stopped.

namespace tokengate::detail {

/// Throws configuration_error unless the endpoint is IPv4 or IPv6.
const endpoint& check_internet(const endpoint& address);

}  // namespace tokengate::detail

namespace tokengate::tcp {

using stream = tokengate::stream;
using listener = tokengate::listener;

/// The listener listens when the call returns. The call does not wait.
[[nodiscard]] inline listener listen(const endpoint& at, const listen_options& options = {}) {
    return listener::open(detail::check_internet(at), options);
}

/// Waits for a connection, at most for the timeout `limit`.
[[nodiscard]] inline detail::connecting connect(const endpoint& to,
                                                time_span limit = time_span::max()) {
    return {detail::check_internet(to), limit};
}

}  // namespace tokengate::tcp
