// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/endpoint.hpp>
#include <tokengate/listener.hpp>
#include <tokengate/stream.hpp>
#include <tokengate/time_span.hpp>

/// TCP over IPv4 and IPv6. See stream.hpp, listener.hpp.
///
///     auto listener = tg::tcp::listen({"127.0.0.1", 0});
///     tg::tcp::stream server = co_await tg::tcp::connect({"::1", 7000}, 2s);
///
/// Errors: std::system_error that names the endpoint; std::errc::timed_out when the time is over; configuration_error
/// for an endpoint of another family.

namespace tokengate::detail {

/// Throws configuration_error unless it is IPv4 or IPv6.
const endpoint& check_internet(const endpoint& address);

}  // namespace tokengate::detail

namespace tokengate::tcp {

using stream = tokengate::stream;
using listener = tokengate::listener;

/// Listens when it returns; does not wait, and may be called on any thread.
[[nodiscard]] inline listener listen(const endpoint& at, const listen_options& options = {}) {
    return listener::open(detail::check_internet(at), options);
}

[[nodiscard]] inline detail::connecting connect(const endpoint& to,
                                                time_span limit = time_span::max()) {
    return {detail::check_internet(to), limit};
}

}  // namespace tokengate::tcp
