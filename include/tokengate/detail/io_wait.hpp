// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/io_request.hpp>
#include <tokengate/detail/suspension.hpp>

#include <coroutine>
#include <cstdint>

/// A body that awaits one kernel operation on its own loop. It is the base of the awaitables for
/// files and sockets. They fill in the entry in their constructor, and therefore never move. They
/// turn the result into a value or an exception.
///
///     struct awaiter : detail::io_wait {
///         explicit awaiter(int fd) : io_wait("sync the file") {
///             io_uring_prep_fsync(sqe(), fd, 0);
///         }
///         void await_resume() {
///             if (const int result = finished(); result < 0) throw …;
///         }
///     };
///
/// A stop cancels the operation. If the kernel has achieved a result all the same, the body gets
/// the result, otherwise token_stopped. The frame, and with it every buffer in it, stays unchanged
/// until the kernel's last completion. Errors: wrong_thread; token_stopped before the request
/// reached the kernel; std::bad_alloc.

namespace tokengate::detail {

class io_wait : public suspension, public io_request {
public:
    io_wait(const io_wait&) = delete;
    io_wait& operator=(const io_wait&) = delete;

    bool await_ready() const noexcept { return false; }
    bool await_suspend(std::coroutine_handle<> awaiting);

protected:
    /// `what` completes "… was asked to stop: it did not".
    explicit io_wait(const char* what) noexcept : what_(what) { completed = &complete; }
    ~io_wait() = default;

    /// The kernel's result, negative for an errno. Throws token_stopped if a stop ended the wait.
    std::int32_t finished();
    [[nodiscard]] std::uint32_t flags() const noexcept { return flags_; }

    /// For awaitables that continue by themselves (a rest to be written): they start again with a
    /// new entry, from within `completed`.
    static void complete(event_loop& loop, io_request& request, std::int32_t result,
                         std::uint32_t flags, bool last) noexcept;

    std::int32_t result_ = 0;
    std::uint32_t flags_ = 0;
    const char* what_;
};

}  // namespace tokengate::detail
