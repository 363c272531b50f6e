// SPDX-License-Identifier: MIT
#pragma once

#include "histogram.hpp"
#include "raw_ring.hpp"
#include "tcp.hpp"

#include <algorithm>
#include <barrier>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <random>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

/// A load of echo requests, closed loop: each connection sends, awaits all of it back, compares, and sends anew.
///
///     echo_load::figures seen = echo_load({.to = listener.address(), .connections = 64, .seconds = 2}).run();
///     seen.requests_per_second();   seen.latencies.quantile(0.99);   seen.errors.any();
///
/// Made to cost less than any server: a ring a thread, one enter for all that is due, one completion a request (the send
/// reports failures only, and the receive completes once all is there). Requests are sent straight out of one
/// block of random bytes, at an offset that changes from request to request, so that a reply of old bytes is found out.
///
/// Connections are made, and the load has run for `warm_up`, before it is measured. A latency is the time from where
/// the last reply was seen until this one was, the client's own delay included. Requests in flight at the end are
/// awaited; what was due first counts as a request, all count as latencies. run() takes the threads that it needs, which
/// inherit the caller's CPUs. Throws std::system_error where the client itself cannot go on.

class echo_load {
public:
    struct options {
        sockaddr_in to{};
        unsigned connections = 1;
        unsigned bytes = 64;
        unsigned threads = 1;
        double seconds = 1;
        double warm_up = 0.2;
        double patience = 5;  // how long the last replies are awaited
    };

    /// A connection ends with its first error.
    struct errors {
        std::uint64_t connect = 0;   // could not be made
        std::uint64_t reset = 0;     // ended with an error: reset, broken pipe
        std::uint64_t closed = 0;    // ended by the server before all was back: a short reply
        std::uint64_t mismatch = 0;  // other bytes came back
        std::uint64_t lost = 0;      // no reply in time
        [[nodiscard]] bool any() const noexcept {
            return connect + reset + closed + mismatch + lost != 0;
        }
    };

    struct figures {
        std::uint64_t requests = 0;
        double seconds = 0;
        histogram latencies;  // ns
        errors failed;
        [[nodiscard]] double requests_per_second() const noexcept {
            return seconds > 0 ? static_cast<double>(requests) / seconds : 0;
        }
    };

    explicit echo_load(const options& how) : how_(how), random_(how.bytes + offsets) {
        if (how.connections == 0 || how.bytes == 0 || how.threads == 0 ||
            how.threads > how.connections)
            throw std::invalid_argument(
                "echo_load: no connections, no bytes or no threads, or threads without any");
        std::mt19937_64 engine(seed);
        std::generate(random_.begin(), random_.end(),
                      [&] { return static_cast<std::byte>(engine()); });
    }

    figures run() {
        std::vector<figures> seen(how_.threads);
        std::vector<std::exception_ptr> thrown(how_.threads);
        std::vector<std::thread> threads;
        std::barrier<> ready(static_cast<std::ptrdiff_t>(how_.threads));
        for (unsigned i = 0; i < how_.threads; ++i)
            threads.emplace_back([&, i] {
                try {
                    worker(*this, i).run(ready, seen[i]);
                } catch (...) {
                    thrown[i] = std::current_exception();
                    ready.arrive_and_drop();
                }
            });
        for (std::thread& each : threads) each.join();
        for (const std::exception_ptr& each : thrown)
            if (each) std::rethrow_exception(each);
        figures all;
        for (const figures& each : seen) {
            all.requests += each.requests;
            all.seconds = std::max(all.seconds, each.seconds);
            all.latencies.merge(each.latencies);
            all.failed.connect += each.failed.connect;
            all.failed.reset += each.failed.reset;
            all.failed.closed += each.failed.closed;
            all.failed.mismatch += each.failed.mismatch;
            all.failed.lost += each.failed.lost;
        }
        return all;
    }

private:
    using clock = std::chrono::steady_clock;
    static constexpr unsigned offsets = 4096;
    static constexpr std::uint64_t seed = 20240229;
    static constexpr std::uint64_t failed_send = std::uint64_t{1} << 32,
                                   out_of_patience = failed_send << 1,
                                   ignored = failed_send << 2;  // else the index of a connection

    struct connection {
        int descriptor;  // -1: failed
        bool waiting = false;
        unsigned offset = 0;
        clock::time_point sent{};
        std::unique_ptr<std::byte[]> reply;
    };

    class worker {
    public:
        worker(echo_load& of, unsigned index)
            : how_(of.how_),
              random_(of.random_.data()),
              share_(how_.connections / how_.threads +
                     (index < how_.connections % how_.threads ? 1 : 0)),
              ring_(std::min(2 * share_ + 2, 1024U), 2 * share_ + 4) {}
        ~worker() {
            for (const connection& each : connections_)
                if (each.descriptor >= 0) close(each.descriptor);
        }
        worker(const worker&) = delete;
        worker& operator=(const worker&) = delete;

        void run(std::barrier<>& ready, figures& into) {
            into_ = &into;
            connections_.reserve(share_);
            for (unsigned i = 0; i < share_; ++i) {
                try {
                    connections_.push_back({.descriptor = tcp::connect(how_.to),
                                            .offset = i * 131 % offsets,
                                            .reply = std::make_unique<std::byte[]>(how_.bytes)});
                } catch (const std::system_error&) {
                    ++into.failed.connect;
                }
            }
            exchange(how_.warm_up);
            ready.arrive_and_wait();
            into.latencies = {};
            into.requests = 0;
            exchange(how_.seconds);
            into.seconds = how_.seconds;
        }

    private:
        void exchange(double seconds) {
            const auto began = clock::now();
            until_ =
                began +
                std::chrono::duration_cast<clock::duration>(std::chrono::duration<double>(seconds));
            in_flight_ = 0;
            for (std::size_t i = 0; i < connections_.size(); ++i)
                if (connections_[i].descriptor >= 0) request(i, began);
            // One timeout for all, instead of one for each wait.
            const auto limit = static_cast<long long>((seconds + how_.patience) * 1e9);
            __kernel_timespec patience{limit / 1'000'000'000, limit % 1'000'000'000};
            io_uring_sqe* entry = ring_.entry();
            io_uring_prep_timeout(entry, &patience, 0, 0);
            io_uring_sqe_set_data64(entry, out_of_patience);
            patient_ = true;
            while (in_flight_ != 0 && patient_) turn();
            if (in_flight_ != 0) give_up();
            if (patient_) {
                entry = ring_.entry();
                io_uring_prep_timeout_remove(entry, out_of_patience, 0);
                io_uring_sqe_set_data64(entry, ignored);
            }
            while (patient_ || in_flight_ != 0) turn();
        }

        void turn() {
            ring_.submit_and_wait();
            ring_.for_each_completion([this](const io_uring_cqe& done) { handle(done); });
        }

        void request(std::size_t index, clock::time_point now) {
            connection& on = connections_[index];
            on.offset = (on.offset + 61) % offsets;
            on.sent = now;
            on.waiting = true;
            ++in_flight_;
            io_uring_sqe* send = ring_.entry();
            io_uring_prep_send(send, on.descriptor, random_ + on.offset, how_.bytes,
                               MSG_NOSIGNAL | MSG_WAITALL);
            send->flags |= IOSQE_CQE_SKIP_SUCCESS;
            io_uring_sqe_set_data64(send, failed_send);
            io_uring_sqe* receive = ring_.entry();
            io_uring_prep_recv(receive, on.descriptor, on.reply.get(), how_.bytes, MSG_WAITALL);
            receive->ioprio = IORING_RECVSEND_POLL_FIRST;  // it cannot be there yet
            io_uring_sqe_set_data64(receive, index);
        }

        void handle(const io_uring_cqe& done) {
            if (done.user_data == out_of_patience) patient_ = false;
            if (done.user_data >= failed_send) return;  // the receive of a failed send fails, too
            connection& on = connections_[done.user_data];
            const auto now = clock::now();
            on.waiting = false;
            --in_flight_;
            if (done.res != static_cast<int>(how_.bytes)) return fail(on, done.res);
            if (!std::equal(on.reply.get(), on.reply.get() + how_.bytes, random_ + on.offset)) {
                ++into_->failed.mismatch;
                return end(on);
            }
            into_->latencies.add(static_cast<std::uint64_t>((now - on.sent).count()));
            if (now >= until_) return;
            ++into_->requests;
            request(done.user_data, now);
        }

        void fail(connection& on, int result) noexcept {
            ++(given_up_    ? into_->failed.lost
               : result < 0 ? into_->failed.reset
                            : into_->failed.closed);
            end(on);
        }
        static void end(connection& on) noexcept { close(std::exchange(on.descriptor, -1)); }

        /// What is still awaited ends by itself: the sockets do.
        void give_up() noexcept {
            given_up_ = true;
            for (const connection& each : connections_)
                if (each.waiting) shutdown(each.descriptor, SHUT_RDWR);
        }

        const options& how_;
        const std::byte* random_;
        unsigned share_;
        raw_ring ring_;
        std::vector<connection> connections_;
        figures* into_ = nullptr;
        clock::time_point until_{};
        std::size_t in_flight_ = 0;
        bool patient_ = false, given_up_ = false;
    };

    options how_;
    std::vector<std::byte> random_;
};
