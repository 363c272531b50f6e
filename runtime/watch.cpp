// SPDX-License-Identifier: MIT
#include "watch.hpp"

#include "executor.hpp"
#include "runtime_core.hpp"

#include <tokengate/detail/admission.hpp>
#include <tokengate/detail/promise.hpp>

#include <new>
#include <utility>

namespace tokengate::detail {

namespace {

constexpr std::uint64_t one_in = 16;  // with timing::sampled

std::uint32_t attention_of(const core_context& core) noexcept {
    return core.runtime->attention.load(std::memory_order_relaxed);
}

void tell(core_context& core, const token_record& token, token_state step) noexcept {
    if (!(attention_of(core) & observing)) return;
    core.host->observe({token.id(), step, core.runtime->core_of(core.position),
                        std::chrono::nanoseconds(event_loop::steady_ns())});
}

token_notes* make_notes(core_context& core, const token_record& token, std::uint32_t attention) noexcept {
    if (!(attention & timing_all) && !((attention & timing_some) && token.sequence.load() % one_in == 0))
        return nullptr;
    try {
        return new (core.pool->allocate(sizeof(token_notes), slab_kind::object)) token_notes;
    } catch (const std::bad_alloc&) {
        return nullptr;  // then its times are not known
    }
}

}  // namespace

void watch_from_now(token_record& token) noexcept {
    if (token.flags & watched) return;
    promise_base::of(token).keep_notes(nullptr);
    token.flags |= watched;
}

void watch_admission(core_context& core, token_record& token, std::uint32_t attention) noexcept {
    token.flags |= watched;
    token_notes* notes = make_notes(core, token, attention);
    promise_base::of(token).keep_notes(notes);
    if (notes) notes->admitted_ns = event_loop::steady_ns();
    tell(core, token, token_state::waiting);
}

void watch_routed(core_context& core, token_record& token, unsigned) noexcept {
    tell(core, token, token_state::admitted);
}

void watch_start(core_context& core, token_record& token) noexcept {
    if (token_notes* notes = promise_base::of(token).notes()) notes->started_ns = event_loop::steady_ns();
    tell(core, token, token_state::executing);
}

void watch_in_place(core_context& core, token_record& token) noexcept {
    watch_admission(core, token, attention_of(core));
    watch_routed(core, token, core.position);
    watch_start(core, token);
}

void watch_end(core_context& core, token_record& token) noexcept {
    if (token_notes* notes = promise_base::of(token).notes()) {
        core.pool->deallocate(notes, sizeof(token_notes), slab_kind::object);
        promise_base::of(token).keep_notes(nullptr);
    }
    if (token.stop.load() & stop_killed) core.host->forget_kill_reason(token);
    tell(core, token, token.state.load());
}

void watch_segment_begin(core_context&, const token_record&) noexcept {}
void watch_segment_end(core_context&) noexcept {}

}  // namespace tokengate::detail
