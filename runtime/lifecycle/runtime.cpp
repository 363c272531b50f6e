// SPDX-License-Identifier: MIT
#include <tokengate/runtime.hpp>

#include "lifecycle/runtime_core.hpp"
#include "token/operations.hpp"

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

runtime_core::runtime_core(runtime_options&& chosen, core_layout layout)
    : shared_state(std::move(chosen), layout) {
    asymmetric_lock::prepare();
    signals = &signals_;
    stop_.of = this;
    stop_.run = [](hook* self) noexcept {
        runtime_core& core = *static_cast<stop_hook*>(self)->of;
        // Pairs with only_insiders_are_left.
        core.stop_seen_.store(true, std::memory_order_release);
        core.control().begin_to_end();
    };
    release_.of = this;
    release_.run = [](hook* self) noexcept {
        static_cast<release_hook*>(self)->of->release_some();
    };
    // With more threads than CPUs, a spinning thread would keep another from running.
    const bool crowded = layout.positions() > options.cpus.size();
    const auto spin_ns = crowded ? 0 : static_cast<std::uint64_t>(options.spin.count());
    for (unsigned position = 0; position <= layout.positions(); ++position)
        executors.push_back(std::make_unique<executor>(
            *this, position, options.ring_entries, position == layout.positions() ? 0 : spin_ns));
    std::vector<event_loop*> loops;
    for (const auto& each : executors) loops.push_back(&each->loop);
    for (const auto& each : executors) each->loop.connect(loops);

    try {
        if (options.stall.threshold.count() != 0) stalls.emplace(*this);
        // Opened here, where a failure reaches the caller. The thread that hosts it later finds it
        // open.
        control().loop.open();
        for (unsigned position = 0; position < positions(); ++position)
            executors[position]->launch(options.cpus[core_of(position) % options.cpus.size()]);
        for (unsigned position = 0; position < positions(); ++position)
            executors[position]->wait_until_up();
        if (stalls) stalls->start();
    } catch (...) {
        join_executors();
        throw;
    }
}

runtime_core::~runtime_core() {
    lease.retire();  // first: with_runtime must not find members that are being destroyed
    lower_at_start(~std::uint32_t{0});
}

std::vector<token_info> runtime_core::tokens(bool services) const {
    std::vector<token_info> found;
    const std::uint64_t ended = count_ended();
    const std::uint64_t admitted = count_admitted();
    // Room for nearly all live tokens: growing the vector takes longer than the scan.
    if (admitted > ended) found.reserve(admitted - ended);
    look([&](const token_info& info, const operation_record& operation) {
        if (services || !is_service(operation)) found.push_back(info);
    });
    return found;
}

}  // namespace detail

// ---- runtime ------------------------------------------------------------------------------------

namespace {

time_span usual_grace(time_span deadline) noexcept {
    return deadline.count() == time_span::max().count()
               ? deadline
               : time_span(std::chrono::nanoseconds(deadline) / 2);
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

/// Unadmitted tokens may still hold domains. Then the last of these domains frees the core.
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
        std::string text = "~runtime waits for " + std::to_string(left.survivors.size()) +
                           " tokens that have not ended:";
        for (std::size_t i = 0; i < std::min<std::size_t>(left.survivors.size(), 10); ++i)
            text += ' ' + left.survivors[i].id.text() + " (" +
                    std::string(name_of(left.survivors[i].state)) + ')';
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

}  // namespace tokengate
