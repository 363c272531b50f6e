// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

/// What the gate and those who start tokens are to look at: bits of two words of a runtime. While a word is 0 it is all that
/// anybody reads.

namespace tokengate::detail {

/// What somebody looks at, or has said; bits of shared_state::attention.
enum attention_bits : std::uint32_t {
    counting = 1,
    timing_some = 2,  ///< one token in 16
    timing_all = 4,
    tracing = 8,
    observing = 16,
    holding = 32,   ///< the gate holds some; see holds.hpp
    limiting = 64,  ///< the backlog has a limit
    watching = counting | timing_some | timing_all | tracing | observing | limiting
};

/// Bits of shared_state::at_start: what a token is to be asked before it starts.
enum start_bits : std::uint32_t { stopping_all = 1, killing = 2 };

}  // namespace tokengate::detail
