// SPDX-License-Identifier: MIT
#include <tokengate/runtime.hpp>

#include "health.hpp"
#include "runtime_core.hpp"

#include <tokengate/detail/promise.hpp>
#include <tokengate/operation.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

namespace tokengate {

namespace detail {

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

runtime_core::runtime_core(runtime_options&& chosen, core_layout layout)
    : options(std::move(chosen)),
      lease(*this, options.on_failure),
      slot(lease.slot()),
      attention(initial_attention(options)),
      loads(layout),
      at_gate(layout.positions(), options.storage),
      blocking(std::in_place, options.blocking_threads, options.blocking_idle) {
    asymmetric_lock::prepare();
    stop_.of = this;
    stop_.run = [](hook* self) noexcept {
        runtime_core& core = *static_cast<stop_hook*>(self)->of;
        core.stop_seen_.store(true, std::memory_order_release);  // pairs with only_insiders_are_left
        core.control().begin_to_end();
    };
    sweep_.of = this;
    sweep_.run = [](hook* self) noexcept {
        auto& sweep = *static_cast<sweep_hook*>(self);
        sweep.under_way.exchange(false, std::memory_order_acq_rel);
        sweep.of->control().ask_to_sweep();
    };
    release_.of = this;
    release_.run = [](hook* self) noexcept { static_cast<release_hook*>(self)->of->release_some(); };
    // More threads than CPUs: who spins keeps somebody else from running.
    const bool crowded = layout.positions() > options.cpus.size();
    const auto spin_ns = crowded ? 0 : static_cast<std::uint64_t>(options.spin.count());
    for (unsigned position = 0; position <= layout.positions(); ++position)
        executors.push_back(std::make_unique<executor>(*this, position, options.ring_entries,
                                                       position == layout.positions() ? 0 : spin_ns));
    std::vector<event_loop*> loops;
    for (const auto& each : executors) loops.push_back(&each->loop);
    for (const auto& each : executors) each->loop.connect(loops);

    try {
        if (options.stall.threshold.count() != 0) stalls.emplace(*this);
        control().loop.open();  // here, where it can be reported; whoever hosts it later finds it ready
        for (unsigned position = 0; position < positions(); ++position)
            executors[position]->launch(options.cpus[core_of(position) % options.cpus.size()]);
        for (unsigned position = 0; position < positions(); ++position) executors[position]->wait_until_up();
        if (stalls) stalls->start();
    } catch (...) {
        join_executors();
        throw;
    }
}

void runtime_core::warn(const std::string& text) const noexcept {
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

// ---- looking ------------------------------------------------------------------------------------------------------------

void runtime_core::look(const std::function<void(const token_info&, const operation_record&)>& visit) const {
    const std::uint64_t now = event_loop::wall_ns();
    std::vector<std::uint64_t> contexts;  // of our threads
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
        // Before the gate gets it, it is the runtime's that hosts the thread where it was made.
        const bool ours = state == token_state::created ? made_here(info.id.sequence) : token.runtime.load() == slot;
        if (!ours) return;
        if (const unsigned position = token.position.load(); state != token_state::created && position != no_position)
            info.core = core_of(position);
        if (info.id.created_ns < now) info.age = std::chrono::nanoseconds(now - info.id.created_ns);
        if (state != token_state::created) info.awaited_by_sequence = token.awaited_by.load();
        if (token.flags.load_acquire() & in_domain) {
            const auto* chain = static_cast<const domain*>(token.anchor.load_acquire());
            // If the frame has been used again, this may be anything. If not, the domain lives, or its memory is still mapped.
            if (token.sequence.load() != info.id.sequence) return;
            const operation_record* lead = chain->lead.load_acquire();
            const std::uint64_t created_ns = chain->lead_created_ns.load_acquire();
            const std::uint64_t sequence = chain->lead_sequence.load_acquire();
            // If it still is the same token, and alive, then so was its domain when it was looked at.
            if (token.sequence.load() != info.id.sequence || token.state.load() >= token_state::completed) return;
            info.domain = {lead->name, created_ns, sequence};
        }
        // The frame may have ended and been used again meanwhile: then this is nobody.
        if (token.sequence.load() != info.id.sequence || token.state.load() == token_state::none) return;
        visit(info, *operation);
    });
}

std::vector<token_info> runtime_core::tokens(bool services) const {
    std::vector<token_info> found;
    const std::uint64_t ended = count_ended();
    const std::uint64_t admitted = count_admitted();
    if (admitted > ended) found.reserve(admitted - ended);  // nearly all there are: growing takes longer than looking
    look([&](const token_info& info, const operation_record& operation) {
        if (services || !is_service(operation)) found.push_back(info);
    });
    return found;
}

snapshot runtime_core::counts() {
    snapshot now;
    now.held = holds.held();
    now.paused = holds.paused({});
    for (const storage tier : storage_tiers) now.waiting_for_permit += at_gate.waiting_for_permit(tier);
    now.ended = count_ended();
    now.admitted = count_admitted();
    for (const auto& each : executors) {
        const std::uint64_t in_place = each->counts().in_place.load();
        now.ended += in_place;
        now.admitted += in_place;
    }
    for (const weight w : weight_classes) now.waiting += at_gate.waiting(w);
    now.pins = registry.size();
    {
        const std::scoped_lock lock(orphans);
        now.domains = orphaned_domains;
    }
    for (const auto& each : executors) {
        const executor_counts& counts = each->counts();
        now.domains += counts.live_domains.load();
        now.redirections += counts.redirections.load();
        now.sticky_bypassed += counts.sticky_bypassed.load();
        now.retries += counts.retries.load();
        const bool controls = is_control(each->position());
        if (!controls) now.busy_ns.push_back(each->busy_ns());
        now.cores.push_back(
            {.executor = each->position(),
             .core = core_of(each->position()),
             .queued = controls ? 0 : static_cast<std::uint64_t>(std::max(loads.occupancy(each->position()), 0)),
             .busy_ns = each->busy_ns(),
             .parked = each->loop.parked()});
    }
    return now;
}

}  // namespace detail

// ---- the public face ----------------------------------------------------------------------------------------------------

namespace {

time_span usual_grace(time_span deadline) noexcept {
    return deadline.count() == time_span::max().count() ? deadline : time_span(std::chrono::nanoseconds(deadline) / 2);
}

detail::runtime_core* make_core(runtime_options&& options) {
    const detail::core_layout layout = detail::settle(options);
    detail::check_operations();
    try {
        return new detail::runtime_core(std::move(options), layout);
    } catch (...) {
        detail::forget_runtime();
        throw;
    }
}

/// Unadmitted tokens may still hold domains: then the last of them frees the core.
void abandon(detail::runtime_core* core) {
    {
        const std::scoped_lock lock(core->orphans);
        core->abandoned = core->orphaned_domains != 0;
        if (core->abandoned) core = nullptr;
    }
    delete core;
    detail::forget_runtime();
}

}  // namespace

runtime::runtime(runtime_options options) : core_(make_core(std::move(options)), abandon) {}

runtime::~runtime() {
    for (;;) {
        const stop_report left = core_->stop(std::chrono::seconds(10), std::chrono::seconds(5));
        if (left.complete()) return;
        std::string text =
            "~runtime waits for " + std::to_string(left.survivors.size()) + " tokens that have not ended:";
        for (std::size_t i = 0; i < std::min<std::size_t>(left.survivors.size(), 10); ++i)
            text += ' ' + left.survivors[i].id.text() + " (" + std::string(name_of(left.survivors[i].state)) + ')';
        core_->warn(text);
    }
}

void runtime::run_main(detail::promise_base& main) { core_->run_main(main); }
void runtime::submit_record(detail::token_record& token) { core_->submit(token); }
void runtime::start() { core_->start(); }
stop_report runtime::stop(time_span deadline, std::optional<time_span> grace) {
    return core_->stop(deadline, grace.value_or(usual_grace(deadline)));
}
task<stop_report> runtime::stop_others(time_span deadline, std::optional<time_span> grace) {
    return core_->stop_others(deadline, grace.value_or(usual_grace(deadline)));
}
std::vector<token_info> runtime::tokens() const { return core_->tokens(); }
unsigned runtime::cores() const noexcept { return core_->loads.layout().cores; }
unsigned runtime::executors() const noexcept { return core_->positions(); }

snapshot runtime::snapshot() const {
    tokengate::snapshot now = core_->counts();
    now.operations = detail::health_of_all(*core_);
    return now;
}

}  // namespace tokengate
