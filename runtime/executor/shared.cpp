// SPDX-License-Identifier: MIT
#include "executor/shared.hpp"

#include "token/context.hpp"

#include <tokengate/detail/promise.hpp>

#include <algorithm>
#include <cstdio>
#include <new>
#include <utility>

namespace tokengate::detail {

namespace {

std::uint32_t initial_attention(const runtime_options& options) noexcept {
    std::uint32_t bits = 0;
    if (options.timing == timing::sampled) bits |= timing_some;
    if (options.timing == timing::full) bits |= timing_all;
    if (options.observer) bits |= observing;
    if (options.metrics) bits |= counting;
    if (options.trace_events != 0) bits |= tracing;
    if (options.backlog.limit != 0) bits |= limiting;
    return bits;
}

}  // namespace

shared_state::shared_state(runtime_options&& chosen, core_layout layout)
    : options(std::move(chosen)),
      lease(*this, options.on_failure),
      slot(lease.slot()),
      attention(initial_attention(options)),
      loads(layout),
      at_gate(layout.positions(), options.storage),
      blocking(std::in_place, options.blocking_threads, options.blocking_idle) {
    sweep_.of = this;
    sweep_.run = [](hook* self) noexcept {
        auto& sweep = *static_cast<sweep_hook*>(self);
        sweep.under_way.exchange(false, std::memory_order_acq_rel);
        sweep.of->control().ask_to_sweep();
    };
}

shared_state::~shared_state() = default;

void shared_state::warn(const std::string& text) const noexcept {
    try {
        if (options.on_warning) {
            options.on_warning(text);
            return;
        }
    } catch (...) {
        std::fprintf(stderr, "tokengate: the warning handler itself threw\n");
    }
    std::fprintf(stderr, "tokengate: %s\n", text.c_str());
}

void shared_state::sweep_gate() noexcept {
    if (this_core && this_core->runtime == this)
        this_core->host->ask_to_sweep();
    else if (!sweep_.under_way.exchange(true, std::memory_order_acq_rel))
        control().loop.post(&sweep_);
}

bool shared_state::tidy_kills() noexcept {
    if (!(at_start.load(std::memory_order_relaxed) & killing)) return false;
    try {
        std::uint64_t met = ~std::uint64_t{0};  // the newest rule that every loop has applied
        for (const auto& each : executors) met = std::min(met, each->kills_met());
        std::vector<token_info> waiting;
        look([&](const token_info& info, const operation_record& operation) {
            if (info.state != token_state::executing && info.state != token_state::created &&
                operation.index != own_operation)
                waiting.push_back(info);
        });
        if (kills.forget(met, waiting)) return true;
        lower_at_start(killing);
        if (!kills.any()) return false;
        raise_at_start(killing);  // a rule was added in between
        return true;
    } catch (const std::bad_alloc&) {
        return true;
    }
}

void shared_state::look(
    const std::function<void(const token_info&, const operation_record&)>& visit) const {
    const std::uint64_t now = event_loop::wall_ns();
    std::vector<std::uint64_t> contexts;  // of this runtime's threads
    for (const auto& each : executors)
        if (const auto number = each->context_number()) contexts.push_back(*number);
    const auto made_here = [&](std::uint64_t sequence) {
        return std::ranges::find(contexts, sequence >> sequence_bits) != contexts.end();
    };
    frame_pool::for_each_slot([&](void* frame, std::size_t) {
        const token_record& token = promise_base::record_in(frame);
        const token_state state = token.state.load_acquire();
        const operation_record* operation = token.operation.load();
        if (state == token_state::none || state >= token_state::completed || !operation) return;
        token_info info;
        info.id = token.id();
        info.state = state;
        // Before admission, a token belongs to the runtime that hosts the thread where it was made.
        const bool ours = state == token_state::created ? made_here(info.id.sequence)
                                                        : token.runtime.load() == slot;
        if (!ours) return;
        if (const unsigned position = token.position.load();
            state != token_state::created && position != no_position)
            info.core = core_of(position);
        if (info.id.created_ns < now) info.age = std::chrono::nanoseconds(now - info.id.created_ns);
        if (state != token_state::created) info.awaited_by_sequence = token.awaited_by.load();
        if (token.flags.load_acquire() & in_domain) {
            const auto* chain = static_cast<const domain*>(token.anchor.load_acquire());
            // If the frame has been reused, the pointer may be anything. If it has not, the domain
            // lives, or its memory is still mapped.
            if (token.sequence.load() != info.id.sequence) return;
            const operation_record* lead = chain->lead.load_acquire();
            const std::uint64_t created_ns = chain->lead_created_ns.load_acquire();
            const std::uint64_t sequence = chain->lead_sequence.load_acquire();
            // If the same token is still there and alive, its domain was alive when it was read.
            if (token.sequence.load() != info.id.sequence ||
                token.state.load() >= token_state::completed)
                return;
            info.domain = {lead->name, created_ns, sequence};
        }
        // The frame may have ended and been reused meanwhile: then the slot holds no token to
        // report.
        if (token.sequence.load() != info.id.sequence || token.state.load() == token_state::none)
            return;
        visit(info, *operation);
    });
}

std::uint64_t shared_state::count_ended() const noexcept {
    std::uint64_t sum = 0;
    for (const auto& each : executors) sum += each->counts().ended.load_acquire();
    return sum;
}

std::uint64_t shared_state::count_admitted() const noexcept {
    std::uint64_t sum = dropped_from_afar.load(std::memory_order_relaxed);
    for (const auto& each : executors) sum += each->counts().admitted.load();
    return sum;
}

}  // namespace tokengate::detail
