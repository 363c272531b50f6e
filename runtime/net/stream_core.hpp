// SPDX-License-Identifier: MIT
#pragma once

#include "net/socket_core.hpp"

#include <cstdint>

/// A stream between the operations at it: what has arrived and was not read, and how the stream ended, if that is known.
/// See socket_core.hpp for who may touch it when.

namespace tokengate::detail {

class stream_core final : public source_core {
public:
    stream_core(int fd, const endpoint& remote)
        : source_core(fd, remote), is_tcp(!remote.is_local()) {}

    const bool is_tcp;

    /// Takes out the oldest; null if there is none.
    piece* take_piece() noexcept;
    [[nodiscard]] piece* first() const noexcept { return first_; }
    /// Once all pieces are taken: 0 at the end of the stream, negative for an error, which is told once; 1 if it goes on.
    std::int32_t take_end() noexcept { return std::exchange(end_, goes_on); }
    static constexpr std::int32_t goes_on = 1;

    /// Nothing has arrived that the kernel has not told us: no plain receive is to look before it waits. By who is inward.
    bool seems_empty = false;

private:
    ~stream_core() override;

    void prepare(executor& here, io_request& request) override;
    void keep(executor& here, std::int32_t result, std::uint32_t flags) noexcept override;
    [[nodiscard]] bool is_full() const noexcept override { return waiting_ >= most_waiting; }

    static constexpr unsigned most_waiting =
        32;  // what the kernel brings at a time, when there is much

    piece* first_ = nullptr;
    piece* last_ = nullptr;
    unsigned waiting_ = 0;
    std::int32_t end_ = goes_on;
    piece* own_ = nullptr;  // the request receives into this one
    bool ran_dry_ = false;  // the last one found no buffer
};

}  // namespace tokengate::detail
