// SPDX-License-Identifier: MIT
#pragma once

#include "../support/contender.hpp"
#include "../support/tally.hpp"

#include <cstdint>

/// `size` empty pieces of work, started from one thread and awaited, on `threads` CPUs: from the first one made
/// until all have ended and their memory has been given back. Each counts itself in a word of its own thread.

namespace spawn {

/// Runs it, and says how many have run.
template <class Run>
std::uint64_t counted(Run run) {
    run();
    return tally::take();
}

}  // namespace spawn
