// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

/// Requests to the gate and to the threads that start tokens: bits of two words of a runtime. While
/// a word is 0, a token's path reads nothing else.

namespace tokengate::detail {

/// Instruments and gate controls in force; bits of shared_state::attention.
enum attention_bits : std::uint32_t {
    counting = 1,
    timing_some = 2,  ///< one token in 16
    timing_all = 4,
    tracing = 8,
    observing = 16,
    holding = 32,   ///< the gate holds some tokens; see holds.hpp
    limiting = 64,  ///< the backlog has a limit
    watching = counting | timing_some | timing_all | tracing | observing | limiting
};

/// Bits of shared_state::at_start: the requests that a token checks before it starts.
enum start_bits : std::uint32_t { stopping_all = 1, killing = 2 };

}  // namespace tokengate::detail
