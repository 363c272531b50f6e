// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/io_wait.hpp>

/// Waits for a descriptor that another library reads: its epoll descriptor, the socket of a database client, a pipe.
///
///     co_await tg::readable(descriptor);                               // then let the library read
///     co_await tg::with_timeout(tg::readable(descriptor), 100ms);      // a single wait: needs no token
///
/// Returns once poll(2) would say that a read does not block: there is something, or the end, or an error that the read
/// will tell. One wait, one answer; nothing stays armed. The descriptor remains the caller's, must stay open until the
/// await returns (one that is closed meanwhile may be waited for until a stop), and need not be non-blocking. Any number of
/// tokens may wait for the same one; all are woken.
///
/// Errors: token_stopped if the token is asked to stop; std::system_error, with the descriptor's number, for what cannot be
/// polled; wrong_thread, std::bad_alloc.

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
