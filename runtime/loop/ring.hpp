// SPDX-License-Identifier: MIT
#pragma once

#include <liburing.h>

#include <chrono>
#include <cstdint>
#include <optional>

/// An io_uring of one thread, with as many of the preferred setup flags as the kernel grants.
///
///     ring r(256);             // throws ring_unavailable, with cause and remedy
///     io_uring_prep_nop(r.entry());
///     r.submit();
///     r.for_each_completion([](const io_uring_cqe& done) { … });
///
/// One thread makes the ring, uses it and waits on it (SINGLE_ISSUER where granted). With
/// `changes_thread`, several threads do so one after the other. Another thread may destroy the ring
/// once its thread has left it. If the kernel has completions that it cannot place (CQ overflow),
/// the next enter fetches them; nothing is lost.

namespace tokengate::detail {

class ring {
public:
    explicit ring(unsigned entries, bool changes_thread = false);
    ~ring();
    ring(const ring&) = delete;
    ring& operator=(const ring&) = delete;

    [[nodiscard]] int descriptor() const noexcept { return ring_.ring_fd; }
    /// For registering other things with the ring.
    [[nodiscard]] io_uring& raw() noexcept { return ring_; }
    [[nodiscard]] bool has_msg_ring() const noexcept { return has_msg_ring_; }

    /// Between these two calls the thread enters the ring without a look-up of its file. Both calls
    /// are on the same thread, and no other thread enters meanwhile. If the kernel refuses, nothing
    /// changes.
    void begin_use() noexcept { static_cast<void>(io_uring_register_ring_fd(&ring_)); }
    void end_use() noexcept {
        if (ring_.enter_ring_fd != ring_.ring_fd)
            static_cast<void>(io_uring_unregister_ring_fd(&ring_));
    }

    /// A submission entry. If the queue is full, submits to make room. Null only if the kernel
    /// takes nothing until completions are reaped (EBUSY).
    io_uring_sqe* entry() noexcept;

    /// Hands the prepared entries to the kernel.
    void submit() noexcept;

    /// Whether a turn of the loop has to enter the kernel: there is something to submit, or only an
    /// enter brings what the kernel has to the completion queue.
    [[nodiscard]] bool wants_enter() const noexcept {
        return io_uring_sq_ready(&ring_) != 0 ||
               (__atomic_load_n(ring_.sq.kflags, __ATOMIC_RELAXED) &
                (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW));
    }
    [[nodiscard]] bool has_entries() const noexcept { return io_uring_sq_ready(&ring_) != 0; }
    [[nodiscard]] bool has_completions() const noexcept { return io_uring_cq_ready(&ring_) != 0; }

    /// Submits, and lets the kernel deliver what it owes, without waiting.
    void enter() noexcept;

    /// Submits, and sleeps until there is a completion or the time has passed. Without a timeout:
    /// until there is a completion.
    void wait(std::optional<std::chrono::nanoseconds> timeout) noexcept;

    template <class Visit>
    void for_each_completion(Visit visit) noexcept {
        io_uring_cqe* done;
        while (io_uring_cq_ready(&ring_) != 0 && io_uring_peek_cqe(&ring_, &done) == 0) {
            const io_uring_cqe copy = *done;
            // Before the visit, which may submit and need the room.
            io_uring_cqe_seen(&ring_, done);
            visit(copy);
        }
    }

private:
    io_uring ring_{};
    bool has_msg_ring_ = false;
};

}  // namespace tokengate::detail
