// SPDX-License-Identifier: MIT

/// Two pinned threads that sleep in std::atomic's wait, which spins for a moment first: what one would write
/// without a library.

#include "../support/pinned_thread.hpp"
#include "problem.hpp"

#include <atomic>
#include <cstdint>

namespace {

struct alignas(128) word {
    std::atomic<std::uint64_t> value{0};  // release by its writer, acquire by the other thread

    void set(std::uint64_t to) noexcept {
        value.store(to, std::memory_order_release);
        value.notify_one();
    }
    std::uint64_t next(std::uint64_t seen) const noexcept {
        value.wait(seen, std::memory_order_acquire);
        return value.load(std::memory_order_acquire);
    }
};

double trips(std::uint64_t count) {
    word ping, pong;
    pinned_thread there(1, [&] {
        std::uint64_t seen = 0;
        for (std::uint64_t i = 0; i < count; ++i) {
            seen = ping.next(seen);
            pong.set(ping_pong::answer(seen));
        }
    });
    double seconds = 0;
    pinned_thread here(0, [&] {
        const auto began = contest::clock::now();
        std::uint64_t seen = 0;
        bool right = true;
        for (std::uint64_t trip = 1; trip <= count; ++trip) {
            ping.set(trip);
            seen = pong.next(seen);
            right &= seen == ping_pong::answer(trip);
        }
        seconds = contest::seconds_since(began);
        ping_pong::expect(right);
    });
    here.join();
    there.join();
    return seconds;
}

}  // namespace

int main(int argc, char** argv) {
    const contest::request asked(argc, argv);
    return contest::answer(asked, {{"atomic_wait", [&] {
                                        ping_pong::only(asked, ping_pong::asleep);
                                        return ping_pong::sample(asked, trips(asked.size));
                                    }}});
}
