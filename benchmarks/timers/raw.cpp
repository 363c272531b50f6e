// SPDX-License-Identifier: MIT

/// A timeout of the ring's for each: IORING_OP_TIMEOUT, in a ring of its own.

#include "../support/raw_ring.hpp"
#include "problem.hpp"

#include <cstddef>
#include <vector>

namespace {

using timers::clock;

timers::figures measure(const std::vector<clock::duration>& after) {
    raw_ring ring(4096);
    std::vector<__kernel_timespec> deadlines(after.size());
    const auto began = clock::now();
    const auto first = began + timers::until_first(after.size());
    for (std::size_t i = 0; i < after.size(); ++i) {
        const auto at = (first + after[i]).time_since_epoch().count();
        deadlines[i] = {at / 1'000'000'000, at % 1'000'000'000};
        io_uring_sqe* entry = ring.entry();
        io_uring_prep_timeout(entry, &deadlines[i], 0, IORING_TIMEOUT_ABS);
        io_uring_sqe_set_data64(entry, i);
    }
    raw_ring::check(io_uring_submit(ring.get()), "io_uring_enter");
    timers::figures seen{.arm = contest::seconds_since(began)};
    while (seen.fired < after.size()) {
        ring.submit_and_wait();
        const auto now = clock::now();
        ring.for_each_completion([&](const io_uring_cqe& done) {
            ++seen.fired;
            if (now < first + after[done.user_data]) ++seen.early;
        });
    }
    seen.fire = contest::seconds_since(first);
    return seen;
}

}  // namespace

int main(int argc, char** argv) {
    const contest::request asked(argc, argv);
    return contest::answer(asked,
                           {{"ring_timeouts", [&] { return timers::pinned(asked, measure); }}});
}
