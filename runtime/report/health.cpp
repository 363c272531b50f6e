// SPDX-License-Identifier: MIT
#include "report/health.hpp"

#include "gate/guard.hpp"
#include "gate/selection.hpp"
#include "lifecycle/runtime_core.hpp"
#include "report/metrics.hpp"
#include "token/context.hpp"

#include <tokengate/gate.hpp>
#include <tokengate/runtime.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

namespace tokengate {

namespace detail {

namespace {

constexpr std::uint64_t too_few = 5;

using records = std::vector<const operation_record*>;

std::map<std::string_view, records> operations_by_name() {
    std::map<std::string_view, records> found;
    for (const operation_record* each : known_operations())
        if (each->index >= first_operation) found[each->name].push_back(each);
    return found;
}

void take(operation_health& health, const operation_totals& from) noexcept {
    using std::chrono::nanoseconds;
    health.admitted = from.admitted;
    health.started = from.started;
    health.completed = from.completed;
    health.failed = from.failed;
    health.killed = from.killed;
    health.timed_out = from.timed_out;
    health.refused = from.refused;
    health.expired = from.expired;
    health.retries = from.retries;
    health.queue_p50 = nanoseconds(from.queue_wait.quantile(0.5));
    health.queue_p99 = nanoseconds(from.queue_wait.quantile(0.99));
    health.run_p50 = nanoseconds(from.run_time.quantile(0.5));
    health.run_p99 = nanoseconds(from.run_time.quantile(0.99));
}

/// Empty if nothing of the operation has been counted, it is not paused and no guard blocks it.
std::optional<operation_health> health_of(const shared_state& runtime, std::string_view name,
                                          const records& of) {
    operation_health health{.operation = name};
    operation_totals totals;
    for (const operation_record* each : of) {
        const guard_desk* desk = runtime.guards.find(each->index);
        if (desk && health.blocked.empty()) health.blocked = desk->blocked();
        if (desk && !runtime.options.metrics) desk->add_to(health);
        totals.add(runtime, each->index);
    }
    if (runtime.options.metrics) take(health, totals);
    const std::uint64_t failures = health.failed + health.timed_out;
    if (const std::uint64_t runs = health.completed + failures; runs != 0)
        health.failure_rate = static_cast<double>(failures) / static_cast<double>(runs);
    health.grade = grade_of(health.completed, failures);
    health.paused = runtime.holds.paused({name});
    const bool counted =
        health.admitted != 0 || health.started != 0 || health.refused != 0 || health.retries != 0;
    if (!counted && !health.paused && health.blocked.empty()) return {};
    return health;
}

}  // namespace

health grade_of(std::uint64_t succeeded, std::uint64_t failed) noexcept {
    const std::uint64_t runs = succeeded + failed;
    if (runs < too_few) return health::unknown;
    // 95 of 100 gives the same double as the literal 0.95.
    const double share = static_cast<double>(succeeded) / static_cast<double>(runs);
    return share >= 0.95  ? health::excellent
           : share >= 0.8 ? health::healthy
           : share >= 0.5 ? health::at_risk
                          : health::problematic;
}

std::vector<operation_health> health_of_all(const shared_state& runtime) {
    std::vector<operation_health> all;
    for (const auto& [name, of] : operations_by_name())
        if (auto found = health_of(runtime, name, of)) all.push_back(*std::move(found));
    return all;
}

std::optional<operation_health> health_of(const shared_state& runtime, std::string_view name) {
    const auto known = operations_by_name();
    return health_of(runtime, name, known.at(name));
}

bool release_guards(const shared_state& runtime, std::string_view name) {
    bool any = false;
    const auto known = operations_by_name();
    for (const operation_record* each : known.at(name))
        if (guard_desk* desk = runtime.guards.find(each->index)) any |= desk->release();
    return any;
}

snapshot counts_of(shared_state& runtime) {
    snapshot now;
    now.held = runtime.holds.held();
    now.paused = runtime.holds.paused({});
    for (const storage tier : storage_tiers)
        now.waiting_for_permit += runtime.at_gate.waiting_for_permit(tier);
    now.ended = runtime.count_ended();
    now.admitted = runtime.count_admitted();
    for (const auto& each : runtime.executors) {
        const std::uint64_t in_place = each->counts().in_place.load();
        now.ended += in_place;
        now.admitted += in_place;
    }
    for (const weight w : weight_classes) now.waiting += runtime.at_gate.waiting(w);
    now.pins = runtime.registry.size();
    {
        const std::scoped_lock lock(runtime.orphans);
        now.domains = runtime.orphaned_domains;
    }
    for (const auto& each : runtime.executors) {
        const executor_counts& counts = each->counts();
        now.domains += counts.live_domains.load();
        now.redirections += counts.redirections.load();
        now.sticky_bypassed += counts.sticky_bypassed.load();
        now.retries += counts.retries.load();
        const bool controls = runtime.is_control(each->position());
        if (!controls) now.busy_ns.push_back(each->busy_ns());
        now.cores.push_back({.executor = each->position(),
                             .core = runtime.core_of(each->position()),
                             .queued = controls
                                           ? 0
                                           : static_cast<std::uint64_t>(std::max(
                                                 runtime.loads.occupancy(each->position()), 0)),
                             .busy_ns = each->busy_ns(),
                             .parked = each->loop.parked()});
    }
    return now;
}

}  // namespace detail

// ---- runtime and gate_control -------------------------------------------------------------------

snapshot runtime::snapshot() const {
    tokengate::snapshot now = detail::counts_of(*core_);
    now.operations = detail::health_of_all(*core_);
    return now;
}

bool gate_control::release(std::string_view operation) {
    return detail::release_guards(*of_, detail::settled(operation).operation());
}

std::optional<operation_health> gate_control::health(std::string_view operation) const {
    return detail::health_of(*of_, detail::settled(operation).operation());
}

}  // namespace tokengate
