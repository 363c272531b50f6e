// SPDX-License-Identifier: MIT
#pragma once

#include <unistd.h>
#include <utility>

/// Owns a file descriptor: closes it when it ends, unless it was released or moved from.
///
///     unique_fd file(::open(path, O_RDONLY | O_CLOEXEC));
///     if (!file) throw …;                                  // any negative number is no descriptor
///
/// One thread at a time, as any value.

namespace tokengate::detail {

class unique_fd {
public:
    unique_fd() noexcept = default;
    explicit unique_fd(int fd) noexcept : fd_(fd) {}
    unique_fd(unique_fd&& other) noexcept : fd_(other.release()) {}

    unique_fd& operator=(unique_fd&& other) noexcept {
        unique_fd taken(
            std::move(other));  // first, so that an assignment to itself keeps the descriptor
        std::swap(fd_, taken.fd_);
        return *this;
    }

    /// What close says is not looked at, on purpose. Linux has given the number back before it reports EIO or EINTR, so
    /// closing again could hit a descriptor that another thread just opened; and a destructor has nobody to tell. Who
    /// must know that data arrived calls fsync before: it reports what close would, and what close misses.
    ~unique_fd() {
        if (fd_ >= 0) ::close(fd_);
    }

    [[nodiscard]] int get() const noexcept { return fd_; }
    [[nodiscard]] explicit operator bool() const noexcept { return fd_ >= 0; }

    /// The caller closes it from now on.
    [[nodiscard]] int release() noexcept { return std::exchange(fd_, -1); }

private:
    int fd_ = -1;
};

}  // namespace tokengate::detail
