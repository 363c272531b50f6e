// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/io_wait.hpp>

/// `readable` waits for a descriptor that another library reads: its epoll descriptor, the socket
/// of a database client, a pipe. It returns once poll(2) would report that a read does not block.
/// Then there are data, or the end, or an error that the read will report. One wait returns once;
/// nothing stays armed.
///
///     co_await tg::readable(descriptor);  // then let the library read
///     // a single wait: needs no token
///     co_await tg::with_timeout(tg::readable(descriptor), 100ms);
///
/// Thread safety: Any number of tokens may wait for the same descriptor; all are woken.
///
/// Lifetime: The descriptor remains the caller's, and need not be non-blocking. It must stay open
/// until the await returns: if it is closed meanwhile, the wait may last until a stop.
///
/// Errors: token_stopped if the token is asked to stop. std::system_error, with the descriptor's
/// number, if the descriptor cannot be polled. wrong_thread where no event loop runs;
/// std::bad_alloc.
///
/// Stop: A stop ends the wait with token_stopped.

namespace tokengate {

namespace detail {

class readable_wait : public io_wait {
public:
    explicit readable_wait(int descriptor) noexcept;
    void await_resume();

private:
    int descriptor_;
};

}  // namespace detail

[[nodiscard]] inline detail::readable_wait readable(int descriptor) noexcept {
    return detail::readable_wait(descriptor);
}

}  // namespace tokengate
