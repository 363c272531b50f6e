// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/core_context.hpp>
#include <tokengate/detail/token_record.hpp>

#include <cstdint>
#include <string>

/// What is done at each step of a watched token: counting, timing, tracing, telling the observer, judging its operation.
///
/// Whether a token is watched is decided when the gate gets it, by runtime_core::attention and by what its operation asks
/// for, and holds to its end; those that nobody watches do not come here. All on the thread where the step is taken.

namespace tokengate::detail {

/// What somebody looks at, or has said; bits of runtime_core::attention.
enum attention_bits : std::uint32_t {
    counting = 1,
    timing_some = 2,  ///< one token in 16
    timing_all = 4,
    tracing = 8,
    observing = 16,
    holding = 32,   ///< the gate holds some; see gate_rules.hpp
    limiting = 64,  ///< the backlog has a limit
    watching = counting | timing_some | timing_all | tracing | observing | limiting
};

/// Bits of runtime_core::at_start: what a token is to be asked before it starts.
enum start_bits : std::uint32_t { stopping_all = 1, killing = 2 };

/// The times of one token, on the steady clock; 0 while unknown. In the frame pool, from its admission to its end; with a
/// quarantine from the call on.
struct token_notes {
    std::uint64_t admitted_ns = 0;
    std::uint64_t started_ns = 0;
    std::string* arguments = nullptr;  ///< with a quarantine; owned
};
void forget(frame_pool& pool, token_notes& notes) noexcept;

// A child that runs in place takes all its steps at once: watch_in_place, in detail/admission.hpp; so does watch_next stand
// there, for a group that goes on with its next child.

/// The gate has it.
void watch_admission(core_context& core, token_record& token) noexcept;
void watch_held(core_context& core, const token_record& token) noexcept;
void watch_refused(core_context& core, const token_record& token) noexcept;
/// It has been routed, and is about to leave for that position.
void watch_routed(core_context& core, token_record& token, unsigned position) noexcept;
void watch_start(core_context& core, token_record& token) noexcept;
/// Its state is final; after this its notes are gone.
void watch_end(core_context& core, token_record& token) noexcept;
/// A loop hands control to a body, and has it back. The token that was given it may have ended by then.
void watch_segment_begin(core_context& core, const token_record& token) noexcept;
void watch_segment_end(core_context& core) noexcept;

/// Makes watched one that has been running unwatched.
void watch_from_now(token_record& token) noexcept;

}  // namespace tokengate::detail
