// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

/// What each step costs in the simulation, in nanoseconds of virtual time. README.md beside this file says where each figure
/// comes from, and which are guesses.

namespace simulation {

using time_ns = std::uint64_t;

struct costs {
    // ---- every scheduler ----
    time_ns make = 34;             ///< a token or task is made
    time_ns start_end = 30;        ///< it starts and ends
    time_ns list_item = 2;         ///< an item in a chain that changes hands
    time_ns push = 62;             ///< one contended push, of one item or of a chain
    time_ns receive = 48;          ///< the receiver fetches what came
    time_ns seen_after = 100;      ///< a store of one core reaches the poll of another
    time_ns lock = 62;             ///< one operation under a lock that several cores use
    time_ns wake_message = 1'500;  ///< MSG_RING or futex, paid by the one who wakes
    time_ns wake = 30'000;         ///< until a sleeping core runs
    time_ns spin = 50'000;         ///< a core without work polls so long before it sleeps
    time_ns foreign_data =
        400;             ///< a token runs where neither its maker nor its queue was: cache misses
    bool moving = true;  ///< a step of a chain takes longer on another core, as its workload says
    // ---- TokenGate ----
    time_ns route = 14;          ///< a routing decision
    time_ns turn = 60;           ///< a loop's turn: looks at the clock, the mailbox, the load table
    time_ns membarrier = 3'000;  ///< paid by a core that takes from another's queues
    time_ns interrupted = 400;   ///< paid by each core that runs meanwhile
    time_ns look_at_core = 20;   ///< one cache line of another core, in a row of such
    time_ns scan_every = 10'000;   ///< a spinning core looks at the others so often
    time_ns old_turn = 50'000;     ///< a turn is old, a run long, from here on
    time_ns turn_limit = 200'000;  ///< a turn ends at the first measured run after so long
    // ---- stealing ----
    time_ns deque = 10;         ///< the owner's push or pop
    time_ns steal_least = 200;  ///< an attempt at a random victim, failed or not
    time_ns steal_most = 400;
};

}  // namespace simulation
