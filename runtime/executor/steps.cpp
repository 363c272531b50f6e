// SPDX-License-Identifier: MIT
#include "executor/steps.hpp"

#include "executor/executor.hpp"
#include "executor/guard_steps.hpp"
#include "executor/shared.hpp"
#include "gate/attention.hpp"
#include "token/notes.hpp"
#include "token/operation_stats.hpp"
#include "token/trace_ring.hpp"

#include <tokengate/detail/admission.hpp>
#include <tokengate/detail/promise.hpp>

#include <new>
#include <utility>

namespace tokengate::detail {

namespace {

/// Selects one token in 16, whatever the rhythm in which a thread makes tokens. It tests the upper
/// bits of a multiplicative hash of the sequence (Knuth, The Art of Computer Programming, volume 3,
/// 6.4).
bool is_sampled(const token_record& token) noexcept {
    return token.sequence.load() * 0x9e3779b97f4a7c15U >> 60 == 0;
}

std::uint32_t attention_of(const core_context& core) noexcept {
    return core.runtime->attention.load(std::memory_order_relaxed);
}

/// Reads the clock at most once for all instruments of one step, and not at all if none needs it.
class step_clock {
public:
    std::uint64_t ns() noexcept { return ns_ != 0 ? ns_ : ns_ = event_loop::steady_ns(); }

private:
    std::uint64_t ns_ = 0;
};

operation_stats* stats_of(const core_context& core, const token_record& token) noexcept {
    return core.host->stats_of(token.operation.load()->index);
}

void trace(const core_context& core, trace_kind kind, const token_record& token,
           std::uint64_t argument, step_clock& clock) noexcept {
    if (trace_ring* ring = core.host->trace.get())
        ring->note(kind, token.sequence.load(), token.operation.load(), argument, clock.ns());
}

void tell(core_context& core, const token_record& token, token_state step,
          step_clock& clock) noexcept {
    if (attention_of(core) & observing)
        core.host->observe({token.id(), step, core.runtime->core_of(core.position),
                            std::chrono::nanoseconds(clock.ns())});
}

token_notes* make_notes(core_context& core, const token_record& token) noexcept {
    const std::uint32_t attention = attention_of(core);
    if (!(attention & timing_all) && !((attention & timing_some) && is_sampled(token)))
        return nullptr;
    try {
        return new (core.pool->allocate(sizeof(token_notes), slab_kind::object)) token_notes;
    } catch (const std::bad_alloc&) {
        return nullptr;  // the token's times are then not known
    }
}

void note_admission(core_context& core, token_record& token, step_clock& clock) noexcept {
    token_notes* notes = guarded_notes(token);
    if (!notes) notes = make_notes(core, token);
    promise_base::of(token).keep_notes(notes);
    if (notes) notes->admitted_ns = clock.ns();
    if (operation_stats* stats = stats_of(core, token)) stats->admitted.add(1);
    trace(core, trace_kind::spawned, token, core.current ? core.current->sequence.load() : 0,
          clock);
    tell(core, token, token_state::created, clock);
    tell(core, token, token_state::waiting, clock);
}

void note_start(core_context& core, token_record& token, step_clock& clock) noexcept {
    operation_stats* stats = stats_of(core, token);
    if (stats) stats->started.add(1);
    guard_start(core, token);
    if (token_notes* notes = promise_base::of(token).notes()) {
        notes->started_ns = clock.ns();
        if (stats) stats->queue_wait.record(notes->started_ns - notes->admitted_ns);
    }
    tell(core, token, token_state::executing, clock);
}

void count_end(operation_stats& stats, const token_record& token) noexcept {
    switch (outcome_of(token)) {
        case run_outcome::completed: stats.completed.add(1); break;
        case run_outcome::failed: stats.failed.add(1); break;
        case run_outcome::timed_out: stats.timed_out.add(1); break;
        case run_outcome::killed: stats.killed.add(1); break;
        case run_outcome::refused: stats.refused.add(1); break;
        case run_outcome::expired: stats.expired.add(1); break;
    }
}

/// The awaiter that the end is about to resume in the same segment; null if there is none.
const token_record* continued_by(const core_context& core, token_record& token) noexcept {
    // As end_token does.
    const std::uintptr_t claimed = token.shared_owner().load(std::memory_order_acquire);
    if (claimed <= owner_dropped) return nullptr;
    const auto& heard_by = *reinterpret_cast<const waiter*>(claimed);
    const bool here = heard_by.home == core.host && !heard_by.done;
    return here ? static_cast<const coroutine_waiter&>(heard_by).token : nullptr;
}

}  // namespace

void watch_from_now(token_record& token) noexcept {
    if (token.flags & watched) return;
    promise_base::of(token).keep_notes(nullptr);
    token.flags |= watched;
}

void watch_admission(core_context& core, token_record& token) noexcept {
    step_clock clock;
    token.flags |= watched;
    note_admission(core, token, clock);
}

void watch_routed(core_context& core, token_record& token, unsigned position) noexcept {
    step_clock clock;
    trace(core, trace_kind::admitted, token, position, clock);
    tell(core, token, token_state::admitted, clock);
}

void watch_held(core_context& core, const token_record& token) noexcept {
    step_clock clock;
    trace(core, trace_kind::paused, token, token.created_ns.load(), clock);
}

void watch_refused(core_context& core, const token_record& token) noexcept {
    step_clock clock;
    trace(core, trace_kind::refused, token, token.created_ns.load(), clock);
}

void watch_start(core_context& core, token_record& token) noexcept {
    step_clock clock;
    note_start(core, token, clock);
}

void watch_in_place(core_context& core, token_record& token) noexcept {
    step_clock clock;
    note_admission(core, token, clock);
    tell(core, token, token_state::admitted, clock);
    trace(core, trace_kind::in_place_begin, token, token.created_ns.load(), clock);
    note_start(core, token, clock);
}

void watch_next(core_context& core, token_record& awaiter) noexcept {
    step_clock clock;
    trace(core, trace_kind::continued, awaiter, awaiter.created_ns.load(), clock);
}

void watch_end(core_context& core, token_record& token) noexcept {
    step_clock clock;
    operation_stats* stats = stats_of(core, token);
    if (stats) count_end(*stats, token);
    guard_end(core, token);
    promise_base& promise = promise_base::of(token);
    if (token_notes* notes = promise.notes()) {
        if (stats && notes->started_ns != 0) stats->run_time.record(clock.ns() - notes->started_ns);
        forget(*core.pool, *notes);
        promise.keep_notes(nullptr);
    }
    if (token.stop.load() & stop_killed) core.host->forget_kill_reason(token);
    if (core.host->trace) {
        trace(core, trace_kind::ended, token, static_cast<std::uint64_t>(token.state.load()),
              clock);
        if (const token_record* next = continued_by(core, token))
            trace(core, trace_kind::continued, *next, next->created_ns.load(), clock);
    }
    tell(core, token, token.state.load(), clock);
}

void watch_segment_begin(core_context& core, const token_record& token) noexcept {
    step_clock clock;
    trace(core, trace_kind::segment_begin, token, token.created_ns.load(), clock);
}

void watch_segment_end(core_context& core) noexcept {
    if (trace_ring* ring = core.host->trace.get())
        ring->note(trace_kind::segment_end, 0, nullptr, 0, event_loop::steady_ns());
}

}  // namespace tokengate::detail
