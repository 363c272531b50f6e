// SPDX-License-Identifier: MIT
#pragma once

#include "net/socket_core.hpp"

#include <cstdint>

/// The state of a stream between the operations on it: what has arrived and is not read, and how
/// the stream ended, if it has. socket_core.hpp says which thread may access it when.

namespace tokengate::detail {

class stream_core final : public source_core {
public:
    stream_core(int fd, const endpoint& remote)
        : source_core(fd, remote), is_tcp(!remote.is_local()) {}

    const bool is_tcp;

    /// Removes and returns the oldest piece; null if there is none.
    piece* take_piece() noexcept;
    [[nodiscard]] piece* first() const noexcept { return first_; }
    /// For use once all pieces are taken: 0 at the end of the stream, a negative errno for an
    /// error, goes_on otherwise. An end or an error is returned once.
    std::int32_t take_end() noexcept { return std::exchange(end_, goes_on); }
    static constexpr std::int32_t goes_on = 1;

    /// The socket is probably empty, so a plain receive polls first instead of trying to receive.
    /// Accessed by the inward user.
    bool seems_empty = false;

private:
    ~stream_core() override;

    void prepare(executor& here, io_request& request) override;
    void keep(executor& here, std::int32_t result, std::uint32_t flags) noexcept override;
    [[nodiscard]] bool is_full() const noexcept override { return waiting_ >= most_waiting; }

    // As many as one multishot receive brings at a time when much has arrived.
    static constexpr unsigned most_waiting = 32;

    piece* first_ = nullptr;
    piece* last_ = nullptr;
    unsigned waiting_ = 0;
    std::int32_t end_ = goes_on;
    piece* own_ = nullptr;  // a piece with its own memory, into which the request receives
    bool ran_dry_ = false;  // the last request found no free buffer
};

}  // namespace tokengate::detail
