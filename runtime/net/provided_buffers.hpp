// SPDX-License-Identifier: MIT
#pragma once

#include "loop/buffer_ring.hpp"

#include <tokengate/detail/socket_wait.hpp>

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

/// The buffers of one loop that the kernel receives into, and the pieces that are lent from them: to streams, and from
/// there to users, who may keep them for as long as they like, drop them on any thread, and outlive the loop with them.
///
///     provided_buffers& pool = executor.buffers();        // its loop's thread
///     piece* came = pool.take(flags, result);             // IORING_CQE_F_BUFFER
///     give_back(came);                                    // any thread
///
/// A piece dropped on another thread waits in a list until its loop looks for buffers. When the loop has ended, what is
/// still lent keeps the memory; the last piece frees it.

namespace tokengate::detail {

class provided_buffers {
public:
    static constexpr unsigned count = 256;
    static constexpr std::size_t bytes_each = 4096;
    static constexpr std::uint16_t group_id = 0;

    explicit provided_buffers(io_uring& ring);
    provided_buffers(const provided_buffers&) = delete;
    provided_buffers& operator=(const provided_buffers&) = delete;

    // ---- the loop's thread ----

    /// The buffer that a completion with IORING_CQE_F_BUFFER brought.
    [[nodiscard]] piece* take(std::uint32_t flags, std::int32_t length) noexcept;
    /// Whether the kernel has one left, once those that others gave back are counted in.
    [[nodiscard]] bool any_left() noexcept;
    [[nodiscard]] unsigned lent() const noexcept { return ring_.lent(); }
    /// Its loop receives no more. Deletes this, now or with the last piece.
    void retire() noexcept;

    // ---- any thread ----

    void give_back(piece* used) noexcept;

private:
    ~provided_buffers() = default;

    [[nodiscard]] bool is_here() const noexcept;
    void reclaim() noexcept;

    buffer_ring ring_;
    std::vector<piece> pieces_;  // by buffer

    std::mutex
        mutex_;  // guards what follows; taken for pieces that end elsewhere, and to look for them
    piece* returned_ = nullptr;
    bool retired_ = false;
    unsigned left_ = 0;  // lent, once retired
};

/// A piece that owns its memory, for when no buffer is left; throws std::bad_alloc.
[[nodiscard]] piece* make_piece();

}  // namespace tokengate::detail
