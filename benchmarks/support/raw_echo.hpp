// SPDX-License-Identifier: MIT
#pragma once

#include "raw_ring.hpp"
#include "tcp.hpp"

#include <poll.h>
#include <sys/eventfd.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

/// The hand-written limit of a TCP echo server: one thread, one ring, no coroutine, no abstraction.
///
///     tcp::listener listener;
///     rival::raw_echo echo(listener.descriptor(), rival::raw_echo::mode::one_shot);
///     pinned_thread server(0, [&] { echo.run(); });
///     …
///     echo.stop();          // any thread; run() closes what is open and returns
///     server.join();
///
/// How a reply is made:
///   one_shot   receive, then send, then receive: each waits for the one before, as a coroutine that awaits both does.
///              (Linking the send and the next receive, with one completion for both, was tried and gained nothing.)
///   multishot  one receive for the life of a connection, into buffers that the kernel picks. The 2048 buffers are
///              everybody's: peers that send 8 MiB and read none of it keep the others waiting.
///
/// Two of them with listeners of the same port (SO_REUSEPORT), one a thread, are two rings. Everything but stop()
/// belongs to the thread of run(); figures() is for whoever has joined it. Throws std::system_error where the ring or
/// the listener fails; what a connection suffers is counted.

namespace rival {

class raw_echo {
public:
    enum class mode { one_shot, multishot };

    struct counts {
        std::uint64_t connections = 0;
        std::uint64_t bytes = 0;     // received, and then sent or failed
        std::uint64_t failures = 0;  // connections that ended with an error
    };

    raw_echo(int listener, mode how)
        : listener_(listener), mode_(how), wake_(eventfd(0, EFD_CLOEXEC)) {
        tcp::check(wake_ >= 0, "eventfd");
    }
    ~raw_echo() { close(wake_); }
    raw_echo(const raw_echo&) = delete;
    raw_echo& operator=(const raw_echo&) = delete;

    void stop() noexcept { eventfd_write(wake_, 1); }
    [[nodiscard]] const counts& figures() const noexcept { return counts_; }

    void run() {
        ring_.emplace(512U, 8192U);
        if (mode_ == mode::multishot) buffers_.emplace(*ring_, buffer_count, buffer_size);
        accept();
        io_uring_sqe* woken = ring_->entry();
        io_uring_prep_poll_add(woken, wake_, POLLIN);
        io_uring_sqe_set_data64(woken, tag_woken);
        while (!stopping_ || accepting_ || alive_ != 0) {
            ring_->submit_and_wait();
            ring_->for_each_completion([this](const io_uring_cqe& done) { handle(done); });
            if (!starving_.empty() && free_buffers_ != 0) feed();
        }
        buffers_.reset();
        ring_.reset();
    }

private:
    static constexpr unsigned buffer_size = 4096;
    static constexpr unsigned short buffer_count = 2048, none = 0xffff;
    enum tag : std::uint64_t {
        tag_received,
        tag_sent,
        tag_accepted,
        tag_woken,
        tag_ignored,
        tags = 8
    };

    /// Aligned, so that a tag fits below its address.
    struct alignas(64) connection {
        int descriptor = -1;
        unsigned sent = 0;            // of what is being sent
        unsigned length = 0;          // of what is being sent; one_shot
        unsigned short first = none;  // buffers to send, in the order of their receipt; multishot
        unsigned short last = none;
        bool receiving = false;         // multishot
        bool failed = false;            // multishot
        std::byte buffer[buffer_size];  // untouched with multishot, and then without memory
    };
    struct piece {
        unsigned length;
        unsigned short next;
    };

    void handle(const io_uring_cqe& done) {
        const std::uint64_t which = done.user_data % tags;
        auto* of = reinterpret_cast<connection*>(done.user_data - which);
        switch (which) {
            case tag_received:
                return mode_ == mode::multishot ? received_multishot(*of, done)
                                                : received_one_shot(*of, done.res);
            case tag_sent:
                return mode_ == mode::multishot ? sent_multishot(*of, done.res)
                                                : sent_one_shot(*of, done.res);
            case tag_accepted: return accepted(done);
            case tag_woken: return end();
            default: return;
        }
    }

    // ---- connections

    void accept() {
        io_uring_sqe* entry = ring_->entry();
        io_uring_prep_multishot_accept(entry, listener_, nullptr, nullptr, SOCK_CLOEXEC);
        io_uring_sqe_set_data64(entry, tag_accepted);
        accepting_ = true;
    }

    void accepted(const io_uring_cqe& done) {
        accepting_ = (done.flags & IORING_CQE_F_MORE) != 0;
        if (done.res < 0 && done.res != -ECANCELED && done.res != -ECONNABORTED)
            raw_ring::check(done.res, "accept");
        if (done.res >= 0 && stopping_) close(done.res);
        if (stopping_) return;
        if (!accepting_) accept();
        if (done.res < 0) return;
        const auto index = static_cast<std::size_t>(done.res);
        if (connections_.size() <= index) connections_.resize(index + 1);
        if (!connections_[index])
            connections_[index].reset(new connection);  // not make_unique: no zeroes
        connection& made = *connections_[index];
        made.descriptor = done.res;
        made.failed = false;
        ++alive_;
        ++counts_.connections;
        mode_ == mode::multishot ? receive_multishot(made) : receive(made, 0);
    }

    void drop(connection& of, bool failed) noexcept {
        counts_.failures += failed && !stopping_ ? 1 : 0;
        close(of.descriptor);
        of.descriptor = -1;
        --alive_;
    }

    /// Nothing is left to its fate: every receive ends by itself, and then its connection.
    void end() {
        stopping_ = true;
        if (accepting_) {
            io_uring_sqe* entry = ring_->entry();
            io_uring_prep_cancel64(entry, tag_accepted, 0);
            io_uring_sqe_set_data64(entry, tag_ignored);
        }
        for (const auto& each : connections_)
            if (each && each->descriptor >= 0) shutdown(each->descriptor, SHUT_RDWR);
    }

    static std::uint64_t data(connection& of, tag what) noexcept {
        return reinterpret_cast<std::uint64_t>(&of) + what;
    }

    // ---- one_shot

    /// After a reply the next request is not there yet: POLL_FIRST spares the attempt that would find nothing.
    void receive(connection& into, unsigned short hint) {
        io_uring_sqe* entry = ring_->entry();
        io_uring_prep_recv(entry, into.descriptor, into.buffer, buffer_size, 0);
        entry->ioprio = hint;
        io_uring_sqe_set_data64(entry, data(into, tag_received));
    }
    void send(connection& to, const std::byte* from, unsigned length) {
        io_uring_sqe* entry = ring_->entry();
        io_uring_prep_send(entry, to.descriptor, from, length, MSG_NOSIGNAL);
        io_uring_sqe_set_data64(entry, data(to, tag_sent));
    }

    void received_one_shot(connection& of, int result) {
        if (result <= 0) return drop(of, result < 0);
        counts_.bytes += static_cast<unsigned>(result);
        of.sent = 0;
        of.length = static_cast<unsigned>(result);
        send(of, of.buffer, of.length);
    }
    void sent_one_shot(connection& of, int result) {
        if (result < 0) return drop(of, true);
        of.sent += static_cast<unsigned>(result);
        if (of.sent == of.length) return receive(of, IORING_RECVSEND_POLL_FIRST);
        send(of, of.buffer + of.sent, of.length - of.sent);
    }

    // ---- multishot

    void receive_multishot(connection& into) {
        io_uring_sqe* entry = ring_->entry();
        io_uring_prep_recv_multishot(entry, into.descriptor, nullptr, 0, 0);
        entry->flags |= IOSQE_BUFFER_SELECT;
        entry->buf_group = 0;
        io_uring_sqe_set_data64(entry, data(into, tag_received));
        into.receiving = true;
    }

    void received_multishot(connection& of, const io_uring_cqe& done) {
        of.receiving = (done.flags & IORING_CQE_F_MORE) != 0 || done.res == -ENOBUFS;
        if (done.flags & IORING_CQE_F_BUFFER) {
            const auto buffer = static_cast<unsigned short>(done.flags >> IORING_CQE_BUFFER_SHIFT);
            --free_buffers_;
            done.res > 0 && !of.failed ? append(of, buffer, static_cast<unsigned>(done.res))
                                       : give_back(buffer);
        }
        if (done.res == -ENOBUFS) starving_.push_back(&of);
        if (of.receiving) return;
        if (done.res > 0 && !of.failed) return receive_multishot(of);
        of.failed |= done.res < 0;
        end_multishot(of);
    }

    /// One send at a time, lest they overtake each other.
    void append(connection& of, unsigned short buffer, unsigned length) {
        counts_.bytes += length;
        pieces_[buffer] = {length, none};
        const bool idle = of.first == none;
        (idle ? of.first : pieces_[of.last].next) = buffer;
        of.last = buffer;
        if (!idle) return;
        of.sent = 0;
        send(of, buffers_->at(buffer), length);
    }

    void sent_multishot(connection& of, int result) {
        const piece current = pieces_[of.first];
        of.sent += result > 0 ? static_cast<unsigned>(result) : 0;
        if (result >= 0 && of.sent < current.length) {
            send(of, buffers_->at(of.first) + of.sent, current.length - of.sent);
            return;
        }
        next_piece(of);
        if (result < 0) {
            of.failed = true;
            while (of.first != none) next_piece(of);
            shutdown(of.descriptor, SHUT_RDWR);  // ends its receive
        } else if (of.first != none) {
            of.sent = 0;
            send(of, buffers_->at(of.first), pieces_[of.first].length);
        }
        end_multishot(of);
    }
    void next_piece(connection& of) noexcept {
        const unsigned short next = pieces_[of.first].next;
        give_back(of.first);
        of.first = next;
    }
    void give_back(unsigned short buffer) noexcept {
        buffers_->give(buffer);
        ++free_buffers_;
    }
    /// Dropped once its receive has ended for good and nothing is left to send.
    void end_multishot(connection& of) {
        if (!of.receiving && of.first == none) drop(of, of.failed);
    }
    /// Those that starve count as receiving until they do again.
    void feed() {
        for (connection* each : starving_) receive_multishot(*each);
        starving_.clear();
    }

    const int listener_;
    const mode mode_;
    const int wake_;
    std::optional<raw_ring> ring_;
    std::optional<buffer_ring> buffers_;
    std::array<piece, buffer_count> pieces_{};
    std::size_t free_buffers_ = buffer_count;
    std::vector<connection*> starving_;  // whose receive found no buffer
    std::vector<std::unique_ptr<connection>>
        connections_;  // by descriptor; kept for the next one there
    std::size_t alive_ = 0;
    bool accepting_ = false, stopping_ = false;
    counts counts_;
};

}  // namespace rival
