// SPDX-License-Identifier: MIT
#pragma once

#include <liburing.h>

#include <cstddef>
#include <cstdint>
#include <span>

/// A ring of buffers from which the kernel chooses when data arrives. Without it, each waiting
/// receive would hold a buffer.
///
///     // throws a std::system_error that names the call
///     buffer_ring buffers(ring, 7, 256, 4096);
///     // on a receive without a buffer:
///     sqe->flags |= IOSQE_BUFFER_SELECT;  sqe->buf_group = buffers.group();
///     if (done.flags & IORING_CQE_F_BUFFER) {              // also if the result is 0 or an error
///         const std::uint16_t id = buffers.take(done);
///         use(buffers.buffer(id, done.res));
///         buffers.give_back(id);
///     }
///
/// Only the ring's thread uses it, constructor and destructor included (for the latter see
/// `retire`). The ring outlives this object, and the receives that select from the group end before
/// it is destroyed. A buffer belongs to the kernel until a completion brings it, and to the caller
/// from `take` until `give_back`. While all buffers are lent, a receive completes with -ENOBUFS, at
/// times before there is data for it. A multishot receive ends with that, and has to be issued
/// again once a buffer was given back.

namespace tokengate::detail {

class buffer_ring {
public:
    /// `buffers` is a power of two, at most 32768. `group` must not be in use on this ring.
    buffer_ring(io_uring& ring, std::uint16_t group, unsigned buffers, std::size_t bytes_each);
    ~buffer_ring();
    buffer_ring(const buffer_ring&) = delete;
    buffer_ring& operator=(const buffer_ring&) = delete;

    /// Takes the buffer that this completion brought: it belongs to the caller now. Call it once
    /// for each completion with IORING_CQE_F_BUFFER.
    std::uint16_t take(const io_uring_cqe& done) noexcept {
        ++lent_;
        return static_cast<std::uint16_t>(done.flags >> IORING_CQE_BUFFER_SHIFT);
    }

    /// The first `length` bytes of a buffer.
    [[nodiscard]] std::span<std::byte> buffer(std::uint16_t id, std::size_t length) const noexcept {
        return {bytes_ + id * bytes_each_, length};
    }

    /// Lets the kernel fill the buffer again. Call it once for each `take`, in any order.
    void give_back(std::uint16_t id) noexcept {
        --lent_;
        offer(id, 0);
        // release: this thread's reads of the buffer come before the kernel's next write.
        io_uring_buf_ring_advance(shared_, 1);
    }

    /// Unregisters the buffers from the kernel. Lent ones stay readable until the destructor, which
    /// any thread may then call.
    void retire() noexcept;

    /// Buffers that were taken and not yet given back.
    [[nodiscard]] unsigned lent() const noexcept { return lent_; }
    [[nodiscard]] std::uint16_t group() const noexcept { return group_; }

private:
    void offer(std::uint16_t id, int behind_tail) noexcept {
        io_uring_buf_ring_add(shared_, bytes_ + id * bytes_each_,
                              static_cast<unsigned>(bytes_each_), id,
                              io_uring_buf_ring_mask(buffers_), behind_tail);
    }
    [[nodiscard]] std::size_t mapped_bytes() const noexcept;

    io_uring& ring_;
    // One mapping: the entries that the kernel reads, then the buffers.
    io_uring_buf_ring* shared_ = nullptr;
    std::byte* bytes_ = nullptr;
    std::size_t bytes_each_;
    unsigned buffers_;
    unsigned lent_ = 0;
    bool retired_ = false;  // unregistered, or the attempt failed
    bool leaked_ = false;   // the kernel refused to unregister them
    std::uint16_t group_;
};

}  // namespace tokengate::detail
