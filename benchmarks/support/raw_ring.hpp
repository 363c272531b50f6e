// SPDX-License-Identifier: MIT
#pragma once

#include <liburing.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstddef>
#include <initializer_list>
#include <system_error>

/// What the hand-written rivals share of io_uring: a ring with the best flags that the kernel grants, and a ring of
/// buffers for multishot receives. Each belongs to the thread that makes it (SINGLE_ISSUER).
///
///     raw_ring ring(256);
///     io_uring_prep_nop(ring.entry());
///     ring.submit_and_wait();
///     ring.for_each_completion([](const io_uring_cqe& done) { … });
///
/// Errors: std::system_error.

class raw_ring {
public:
    /// `completions`: as many as can be due at a time, so that the kernel never has to keep some apart.
    explicit raw_ring(unsigned entries, unsigned completions = 0) {
        // DEFER_TASKRUN: completions are made where this thread waits for them, in a batch, and interrupt nothing.
        constexpr unsigned basic =
            IORING_SETUP_SUBMIT_ALL | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG;
        int result = -EINVAL;
        for (const unsigned flags :
             {basic | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN, basic, 0U}) {
            io_uring_params parameters{};
            parameters.flags = flags | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
            parameters.cq_entries = completions > 2 * entries ? completions : 2 * entries;
            result = io_uring_queue_init_params(entries, &ring_, &parameters);
            deferred_ = (flags & IORING_SETUP_DEFER_TASKRUN) != 0;
            if (result != -EINVAL) break;
        }
        check(result, "io_uring_setup");
        io_uring_register_ring_fd(
            &ring_);  // spares each enter the look-up of the file; refused by old kernels
    }
    ~raw_ring() { io_uring_queue_exit(&ring_); }
    raw_ring(const raw_ring&) = delete;
    raw_ring& operator=(const raw_ring&) = delete;

    [[nodiscard]] io_uring* get() noexcept { return &ring_; }
    [[nodiscard]] int descriptor() const noexcept { return ring_.ring_fd; }
    [[nodiscard]] bool deferred() const noexcept { return deferred_; }

    /// Makes room by handing over what is there already.
    io_uring_sqe* entry() {
        while (io_uring_sq_space_left(&ring_) == 0) retry([&] { return io_uring_submit(&ring_); });
        return io_uring_get_sqe(&ring_);
    }

    void submit_and_wait(unsigned completions = 1) {
        retry([&] { return io_uring_submit_and_wait(&ring_, completions); });
    }

    template <class Visit>
    unsigned for_each_completion(Visit visit) {
        unsigned head = 0, visited = 0;
        io_uring_cqe* done = nullptr;
        io_uring_for_each_cqe(&ring_, head, done) {
            visit(static_cast<const io_uring_cqe&>(*done));
            ++visited;
        }
        io_uring_cq_advance(&ring_, visited);
        return visited;
    }

    static int check(int result, const char* what) {
        if (result < 0) throw std::system_error(-result, std::generic_category(), what);
        return result;
    }

private:
    template <class Enter>
    static void retry(Enter enter) {
        int result = 0;
        do result = enter();
        while (result == -EINTR || result == -EAGAIN);
        check(result, "io_uring_enter");
    }

    io_uring ring_{};
    bool deferred_ = false;
};

/// Equal buffers that the kernel picks from when data is there, as group 0 of a ring.
class buffer_ring {
public:
    buffer_ring(raw_ring& of, unsigned short count, unsigned size)
        : of_(of), count_(count), size_(size), list_bytes_(count * sizeof(io_uring_buf)) {
        void* mapped =
            mmap(nullptr, list_bytes_ + std::size_t{count} * size, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
        if (mapped == MAP_FAILED) throw std::system_error(errno, std::generic_category(), "mmap");
        list_ = static_cast<io_uring_buf_ring*>(mapped);  // page-aligned, as it has to be
        first_ = static_cast<std::byte*>(mapped) + list_bytes_;
        io_uring_buf_reg registration{};
        registration.ring_addr = reinterpret_cast<unsigned long>(mapped);
        registration.ring_entries = count;
        const int result = io_uring_register_buf_ring(of.get(), &registration, 0);
        if (result < 0) munmap(mapped, list_bytes_ + std::size_t{count} * size);
        raw_ring::check(result, "io_uring_register_buf_ring");
        for (unsigned short i = 0; i < count; ++i) give(i);
    }
    /// Before its ring, and not while a receive is in flight: the kernel writes into the buffers.
    ~buffer_ring() {
        io_uring_unregister_buf_ring(of_.get(), 0);
        munmap(list_, list_bytes_ + std::size_t{count_} * size_);
    }
    buffer_ring(const buffer_ring&) = delete;
    buffer_ring& operator=(const buffer_ring&) = delete;

    [[nodiscard]] std::byte* at(unsigned short buffer) const noexcept {
        return first_ + std::size_t{buffer} * size_;
    }

    void give(unsigned short buffer) noexcept {
        io_uring_buf_ring_add(list_, at(buffer), size_, buffer, io_uring_buf_ring_mask(count_), 0);
        io_uring_buf_ring_advance(list_, 1);
    }

private:
    raw_ring& of_;
    unsigned short count_;
    unsigned size_;
    std::size_t list_bytes_;
    io_uring_buf_ring* list_ = nullptr;
    std::byte* first_ = nullptr;
};
