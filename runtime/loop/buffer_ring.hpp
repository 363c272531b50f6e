// SPDX-License-Identifier: MIT
#pragma once

#include <liburing.h>

#include <cstddef>
#include <cstdint>
#include <span>

/// Buffers that the kernel chooses from when data is there, instead of one that each waiting receive holds.
///
///     buffer_ring buffers(ring, 7, 256, 4096);             // throws std::system_error that names the call
///     sqe->flags |= IOSQE_BUFFER_SELECT;  sqe->buf_group = buffers.group();      // on a receive without a buffer
///     if (done.flags & IORING_CQE_F_BUFFER) {              // whatever its result: it may be 0 or an error
///         const std::uint16_t id = buffers.take(done);
///         use(buffers.buffer(id, done.res));
///         buffers.give_back(id);
///     }
///
/// The thread of the ring alone, constructor and destructor included. The ring outlives this, and the receives that
/// select from the group have ended before it goes. A buffer is the kernel's until a completion brings it, the caller's
/// from `take` until `give_back`. While all are lent, a receive completes with -ENOBUFS, at times before there is data
/// for it; a multishot one ends with that, and has to be issued again once some buffer was given back.

namespace tokengate::detail {

class buffer_ring {
public:
    /// `buffers` is a power of two, at most 32768; `group` is not in use on this ring.
    buffer_ring(io_uring& ring, std::uint16_t group, unsigned buffers, std::size_t bytes_each);
    ~buffer_ring();
    buffer_ring(const buffer_ring&) = delete;
    buffer_ring& operator=(const buffer_ring&) = delete;

    /// The buffer that this completion brought is the caller's: once for each completion with IORING_CQE_F_BUFFER.
    std::uint16_t take(const io_uring_cqe& done) noexcept {
        ++lent_;
        return static_cast<std::uint16_t>(done.flags >> IORING_CQE_BUFFER_SHIFT);
    }

    /// The first `length` bytes of a buffer.
    [[nodiscard]] std::span<std::byte> buffer(std::uint16_t id, std::size_t length) const noexcept {
        return {bytes_ + id * bytes_each_, length};
    }

    /// The kernel may fill it again. Once for each `take`, in any order.
    void give_back(std::uint16_t id) noexcept {
        --lent_;
        offer(id, 0);
        io_uring_buf_ring_advance(
            shared_, 1);  // release: our reads of the buffer come before the kernel's next write
    }

    /// The kernel forgets the buffers; what is lent stays readable until the destructor, which any thread may call then.
    void retire() noexcept;

    [[nodiscard]] unsigned lent() const noexcept {
        return lent_;
    }  ///< taken, and not yet given back
    [[nodiscard]] std::uint16_t group() const noexcept { return group_; }

private:
    void offer(std::uint16_t id, int behind_tail) noexcept {
        io_uring_buf_ring_add(shared_, bytes_ + id * bytes_each_,
                              static_cast<unsigned>(bytes_each_), id,
                              io_uring_buf_ring_mask(buffers_), behind_tail);
    }
    [[nodiscard]] std::size_t mapped_bytes() const noexcept;

    io_uring& ring_;
    io_uring_buf_ring* shared_ = nullptr;  // one mapping: what the kernel reads, then the buffers
    std::byte* bytes_ = nullptr;
    std::size_t bytes_each_;
    unsigned buffers_;
    unsigned lent_ = 0;
    bool retired_ = false;  // the kernel knows them no more
    bool leaked_ = false;   // … or would not let go of them
    std::uint16_t group_;
};

}  // namespace tokengate::detail
