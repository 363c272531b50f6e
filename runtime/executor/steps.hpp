// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/core_context.hpp>
#include <tokengate/detail/token_record.hpp>

#include <cstdint>
#include <string>

/// What each step of an instrumented token (`watched`) does: counting, timing, tracing, calling the
/// observer, judging its operation.
///
/// Admission decides whether a token is instrumented, by shared_state::attention and by the options
/// of its operation; the decision holds to the token's end. Other tokens do not pass through this
/// code. All steps run on the thread where they are taken.

namespace tokengate::detail {

// detail/admission.hpp declares two more steps: watch_in_place, for a child that runs in place and
// takes all its steps at once; and watch_next, for a group that goes on with its next child.

/// The gate has admitted the token.
void watch_admission(core_context& core, token_record& token) noexcept;
void watch_held(core_context& core, const token_record& token) noexcept;
void watch_refused(core_context& core, const token_record& token) noexcept;
/// The token has been routed, and is about to leave for that position.
void watch_routed(core_context& core, token_record& token, unsigned position) noexcept;
void watch_start(core_context& core, token_record& token) noexcept;
/// The token's state is final; after this call its notes are gone.
void watch_end(core_context& core, token_record& token) noexcept;
/// A loop hands control to a body, and has it back. The body's token may have ended by then.
void watch_segment_begin(core_context& core, const token_record& token) noexcept;
void watch_segment_end(core_context& core) noexcept;

/// Begins to instrument a token that has been running without it.
void watch_from_now(token_record& token) noexcept;

}  // namespace tokengate::detail
