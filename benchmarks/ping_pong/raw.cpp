// SPDX-License-Identifier: MIT

/// The hand-written limits (support/raw_round_trip.hpp): two threads that spin; two that sleep in rings and send
/// MSG_RING.

#include "../support/raw_round_trip.hpp"
#include "problem.hpp"

int main(int argc, char** argv) {
    const contest::request asked(argc, argv);
    const rival::round_trips how{.here = 0, .there = 1, .trips = asked.size};
    return contest::answer(asked, {{"threads", [&] {
                                        const double ns = asked.shape == ping_pong::awake
                                                              ? rival::spin_round_trip(how)
                                                              : rival::parked_round_trip(how);
                                        return ping_pong::sample(
                                            asked, ns * 1e-9 * static_cast<double>(asked.size));
                                    }}});
}
