// SPDX-License-Identifier: MIT
#pragma once

#include <liburing.h>

#include <chrono>
#include <cstdint>
#include <optional>

/// An io_uring of one thread, with as many of the wished-for setup flags as the kernel grants.
///
///     ring r(256);                                          // throws ring_unavailable: cause and remedy
///     io_uring_prep_nop(r.entry());
///     r.submit();
///     r.for_each_completion([](const io_uring_cqe& done) { … });
///
/// Made, used and waited on by one thread (SINGLE_ISSUER where granted), or with `changes_thread` by one after the
/// other; may be destroyed by another once that one has left it. Completions that the kernel has but cannot place (CQ
/// overflow) are fetched by the next enter; nothing is lost.

namespace tokengate::detail {

class ring {
public:
    explicit ring(unsigned entries, bool changes_thread = false);
    ~ring();
    ring(const ring&) = delete;
    ring& operator=(const ring&) = delete;

    [[nodiscard]] int descriptor() const noexcept { return ring_.ring_fd; }
    /// For what is registered with it.
    [[nodiscard]] io_uring& raw() noexcept { return ring_; }
    [[nodiscard]] bool has_msg_ring() const noexcept { return has_msg_ring_; }

    /// Between the two the calling thread enters the ring without a look-up of its file. Both on the same thread, and
    /// nobody else enters meanwhile. Where the kernel refuses, nothing changes.
    void begin_use() noexcept { static_cast<void>(io_uring_register_ring_fd(&ring_)); }
    void end_use() noexcept {
        if (ring_.enter_ring_fd != ring_.ring_fd)
            static_cast<void>(io_uring_unregister_ring_fd(&ring_));
    }

    /// A submission entry; makes room by submitting when the queue is full. Null only if the kernel will take nothing until
    /// completions are reaped (EBUSY).
    io_uring_sqe* entry() noexcept;

    /// Hands what is prepared to the kernel.
    void submit() noexcept;

    /// Whether a turn of the loop has to enter the kernel: something to submit, or the kernel has work that only an enter
    /// brings to the completion queue.
    [[nodiscard]] bool wants_enter() const noexcept {
        return io_uring_sq_ready(&ring_) != 0 ||
               (__atomic_load_n(ring_.sq.kflags, __ATOMIC_RELAXED) &
                (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW));
    }
    [[nodiscard]] bool has_entries() const noexcept { return io_uring_sq_ready(&ring_) != 0; }
    [[nodiscard]] bool has_completions() const noexcept { return io_uring_cq_ready(&ring_) != 0; }

    /// Submits, and lets the kernel bring what it owes, without waiting.
    void enter() noexcept;

    /// Submits and sleeps until a completion is there or the time has passed. No timeout: until a completion.
    void wait(std::optional<std::chrono::nanoseconds> timeout) noexcept;

    template <class Visit>
    void for_each_completion(Visit visit) noexcept {
        io_uring_cqe* done;
        while (io_uring_cq_ready(&ring_) != 0 && io_uring_peek_cqe(&ring_, &done) == 0) {
            const io_uring_cqe copy = *done;
            io_uring_cqe_seen(&ring_,
                              done);  // before the visit, which may submit and need the room
            visit(copy);
        }
    }

private:
    io_uring ring_{};
    bool has_msg_ring_ = false;
};

}  // namespace tokengate::detail
