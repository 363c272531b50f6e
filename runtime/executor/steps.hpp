// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/core_context.hpp>
#include <tokengate/detail/token_record.hpp>

#include <cstdint>
#include <string>

/// What is done at each step of a watched token: counting, timing, tracing, telling the observer, judging its operation.
///
/// Whether a token is watched is decided when the gate gets it, by shared_state::attention and by what its operation asks
/// for, and holds to its end; those that nobody watches do not come here. All on the thread where the step is taken.

namespace tokengate::detail {

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
