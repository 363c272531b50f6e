// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/endpoint.hpp>
#include <tokengate/listener.hpp>
#include <tokengate/stream.hpp>
#include <tokengate/time_span.hpp>

#include <string_view>

/// UNIX streams: between processes of one machine. See stream.hpp, listener.hpp.
///
///     auto listener = tg::local::listen("/run/store.sock");      // "@store": in the abstract namespace, without a file
///     tg::local::stream store = co_await tg::local::connect("/run/store.sock");
///
/// The file of a listener stays when it is closed, and another one cannot be bound there before it is removed. Errors:
/// std::system_error that names the endpoint; configuration_error for a path that is none.

namespace tokengate::local {

using stream = tokengate::stream;
using listener = tokengate::listener;

[[nodiscard]] inline listener listen(std::string_view path, const listen_options& options = {}) {
    return listener::open(endpoint::local(path), options);
}

[[nodiscard]] inline detail::connecting connect(std::string_view path,
                                                time_span limit = time_span::max()) {
    return {endpoint::local(path), limit};
}

}  // namespace tokengate::local
