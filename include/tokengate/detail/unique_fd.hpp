// SPDX-License-Identifier: MIT
#pragma once

#include <unistd.h>
#include <utility>

/// Owns a file descriptor. The destructor closes it, unless it was released or moved from.
///
///     unique_fd file(::open(path, O_RDONLY | O_CLOEXEC));
///     if (!file) throw …;                  // any negative number is no descriptor
///
/// One thread at a time, as any value.

namespace tokengate::detail {

class unique_fd {
public:
    unique_fd() noexcept = default;
    explicit unique_fd(int fd) noexcept : fd_(fd) {}
    unique_fd(unique_fd&& other) noexcept : fd_(other.release()) {}

    unique_fd& operator=(unique_fd&& other) noexcept {
        // Released before the swap, so that an assignment to itself keeps the descriptor.
        unique_fd taken(std::move(other));
        std::swap(fd_, taken.fd_);
        return *this;
    }

    /// The result of close is ignored, on purpose. Linux has freed the number before it reports EIO
    /// or EINTR, so a second close could hit a descriptor that another thread has just opened. A
    /// destructor also has no caller to report to. Code that must know whether data arrived calls
    /// fsync before: fsync reports what close would report, and what close misses.
    ~unique_fd() {
        if (fd_ >= 0) ::close(fd_);
    }

    [[nodiscard]] int get() const noexcept { return fd_; }
    [[nodiscard]] explicit operator bool() const noexcept { return fd_ >= 0; }

    /// The caller has to close the descriptor from now on.
    [[nodiscard]] int release() noexcept { return std::exchange(fd_, -1); }

private:
    int fd_ = -1;
};

}  // namespace tokengate::detail
