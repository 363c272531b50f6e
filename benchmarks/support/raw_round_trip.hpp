// SPDX-License-Identifier: MIT
#pragma once

#include "pinned_thread.hpp"
#include "raw_ring.hpp"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <stdexcept>

/// The hand-written limits of a round trip between two pinned threads: here -> there -> here.
///
///     const double awake = rival::spin_round_trip({.here = 0, .there = 1, .trips = 1'000'000});     // ns each
///     const double parked = rival::parked_round_trip({.here = 0, .there = 1, .trips = 20'000});
///
/// awake    both spin on a word of the other's, each on cache lines of its own.
/// parked   both sleep in rings of their own; MSG_RING puts a completion into the other's ring, and wakes it. The
///          message goes out with the enter that sleeps: one system call a trip and thread.
///
/// Each trip carries its number, `there` answers with what only it computes, and all answers are checked. Both threads
/// are made for the call; the first tenth of the trips is not measured. Throws std::runtime_error where an answer is
/// wrong, std::system_error where a ring or a CPU cannot be had.

namespace rival {

struct round_trips {
    int here = 0;
    int there = 1;
    std::uint64_t trips = 1;
    [[nodiscard]] std::uint64_t warm_up() const noexcept { return trips / 10; }
};

namespace round_trip {

using clock = std::chrono::steady_clock;

constexpr std::uint64_t answer(std::uint64_t trip) noexcept { return trip * 3 + 1; }

/// 32 bits travel with a message in its length, where no result is lost to a sign; 31 of them are used.
constexpr unsigned low(std::uint64_t value) noexcept {
    return static_cast<unsigned>(value & 0x7fffffffU);
}

inline double ns_each(clock::time_point began, std::uint64_t trips) {
    const std::chrono::duration<double, std::nano> took = clock::now() - began;
    return took.count() / static_cast<double>(trips);
}

/// Two lines, as the prefetcher fetches pairs.
struct alignas(128) word {
    std::atomic<std::uint64_t> value{0};  // release by its writer, acquire by the other thread
};

/// Spins without a pause, which would take longer than the trip.
inline std::uint64_t next(const word& from, std::uint64_t seen) noexcept {
    for (;;) {
        const std::uint64_t value = from.value.load(std::memory_order_acquire);
        if (value != seen) return value;
    }
}

/// A ring that others send to. A completion that comes from the ring itself is a message that could not be sent.
class mailbox {
public:
    mailbox() : ring_(8) {}
    [[nodiscard]] int descriptor() const noexcept { return ring_.descriptor(); }

    void send(int to, unsigned message) {
        io_uring_sqe* entry = ring_.entry();
        io_uring_prep_msg_ring(entry, to, message, received, 0);
        entry->flags |= IOSQE_CQE_SKIP_SUCCESS;
        io_uring_sqe_set_data64(entry, failed);
    }
    /// Sends what is to be sent, and sleeps.
    unsigned receive() {
        unsigned message = 0;
        bool there = false;
        do {
            ring_.submit_and_wait();
            ring_.for_each_completion([&](const io_uring_cqe& done) {
                if (done.user_data != received) raw_ring::check(done.res, "MSG_RING");
                message = static_cast<unsigned>(done.res);
                there = true;
            });
        } while (!there);
        return message;
    }
    void flush() { raw_ring::check(io_uring_submit(ring_.get()), "io_uring_enter"); }

private:
    static constexpr std::uint64_t received = 1, failed = 2;
    raw_ring ring_;
};

inline void expect(bool right) {
    if (!right) throw std::runtime_error("round trip: a wrong answer");
}

}  // namespace round_trip

inline double spin_round_trip(const round_trips& how) {
    round_trip::word ping, pong;
    const std::uint64_t all = how.warm_up() + how.trips;
    pinned_thread there(how.there, [&] {
        for (std::uint64_t i = 1; i <= all; ++i)
            pong.value.store(round_trip::answer(round_trip::next(ping, i - 1)),
                             std::memory_order_release);
    });
    double ns = 0;
    bool right = true;
    pinned_thread here(how.here, [&] {
        auto began = round_trip::clock::now();
        std::uint64_t seen = 0;
        for (std::uint64_t i = 1; i <= all; ++i) {
            ping.value.store(i, std::memory_order_release);
            seen = round_trip::next(pong, seen);
            right &= seen == round_trip::answer(i);
            if (i == how.warm_up()) began = round_trip::clock::now();
        }
        ns = round_trip::ns_each(began, how.trips);
    });
    here.join();
    there.join();
    round_trip::expect(right);
    return ns;
}

inline double parked_round_trip(const round_trips& how) {
    std::atomic<int> home{-1}, away{-1};  // the rings; release by who made it, acquire by the other
    const std::uint64_t all = how.warm_up() + how.trips;
    pinned_thread there(how.there, [&] {
        round_trip::mailbox mine;
        away.store(mine.descriptor(), std::memory_order_release);
        away.notify_one();
        home.wait(-1, std::memory_order_acquire);
        const int to = home.load(std::memory_order_acquire);
        for (std::uint64_t i = 1; i <= all; ++i)
            mine.send(to, round_trip::low(round_trip::answer(mine.receive())));
        mine.flush();
        home.wait(to, std::memory_order_acquire);  // its ring lives until the last answer is there
    });
    double ns = 0;
    bool right = true;
    pinned_thread here(how.here, [&] {
        round_trip::mailbox mine;
        home.store(mine.descriptor(), std::memory_order_release);
        home.notify_one();
        away.wait(-1, std::memory_order_acquire);
        const int to = away.load(std::memory_order_acquire);
        auto began = round_trip::clock::now();
        for (std::uint64_t i = 1; i <= all; ++i) {
            mine.send(to, round_trip::low(i));
            right &= mine.receive() == round_trip::low(round_trip::answer(round_trip::low(i)));
            if (i == how.warm_up()) began = round_trip::clock::now();
        }
        ns = round_trip::ns_each(began, how.trips);
        home.store(-1, std::memory_order_release);
        home.notify_one();
    });
    here.join();
    there.join();
    round_trip::expect(right);
    return ns;
}

}  // namespace rival
