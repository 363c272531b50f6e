// SPDX-License-Identifier: MIT
#pragma once

#include "loop/buffer_ring.hpp"

#include <tokengate/detail/socket_wait.hpp>

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

/// The buffers of one loop into which the kernel receives, and the pieces that are lent from them.
/// A stream lends a piece on to the user. The user may keep it without limit, drop it on any
/// thread, and keep it after the loop has ended.
///
///     provided_buffers& pool = executor.buffers();        // its loop's thread
///     piece* came = pool.take(flags, result);             // IORING_CQE_F_BUFFER
///     give_back(came);                                    // any thread
///
/// A piece dropped on another thread waits in a list until the loop runs out of buffers and takes
/// the list. When the loop has ended, the pieces still lent keep the memory; the last piece frees
/// it.

namespace tokengate::detail {

class provided_buffers {
public:
    static constexpr unsigned count = 256;
    static constexpr std::size_t bytes_each = 4096;
    static constexpr std::uint16_t group_id = 0;

    explicit provided_buffers(io_uring& ring);
    provided_buffers(const provided_buffers&) = delete;
    provided_buffers& operator=(const provided_buffers&) = delete;

    // ---- called on the loop's thread ------------------------------------------------------------

    /// The buffer that a completion with IORING_CQE_F_BUFFER names.
    [[nodiscard]] piece* take(std::uint32_t flags, std::int32_t length) noexcept;
    /// Whether the kernel has a free buffer, after the pieces that other threads gave back have
    /// been reclaimed.
    [[nodiscard]] bool any_left() noexcept;
    [[nodiscard]] unsigned lent() const noexcept { return ring_.lent(); }
    /// Called when the loop receives no more. Deletes this, now or with the last piece.
    void retire() noexcept;

    // ---- called on any thread -------------------------------------------------------------------

    void give_back(piece* used) noexcept;

private:
    ~provided_buffers() = default;

    [[nodiscard]] bool is_here() const noexcept;
    void reclaim() noexcept;

    buffer_ring ring_;
    std::vector<piece> pieces_;  // by buffer id

    /// Guards the members below. Taken by a thread that gives back a piece of another loop, and by
    /// the loop that reclaims such pieces.
    std::mutex mutex_;
    piece* returned_ = nullptr;
    bool retired_ = false;
    unsigned left_ = 0;  // once retired: the pieces still lent
};

/// A piece that owns its memory, for use when no buffer is left. Throws std::bad_alloc.
[[nodiscard]] piece* make_piece();

}  // namespace tokengate::detail
