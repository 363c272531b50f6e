// SPDX-License-Identifier: MIT
#include "health.hpp"

#include "context.hpp"
#include "guard.hpp"
#include "metrics.hpp"
#include "runtime_core.hpp"

#include <chrono>
#include <map>
#include <string>
#include <utility>

namespace tokengate::detail {

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

/// None if there is nothing to say.
std::optional<operation_health> health_of(const runtime_core& runtime, std::string_view name, const records& of) {
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
    const bool counted = health.admitted != 0 || health.started != 0 || health.refused != 0 || health.retries != 0;
    if (!counted && !health.paused && health.blocked.empty()) return {};
    return health;
}

}  // namespace

health grade_of(std::uint64_t succeeded, std::uint64_t failed) noexcept {
    const std::uint64_t runs = succeeded + failed;
    if (runs < too_few) return health::unknown;
    const double share = static_cast<double>(succeeded) / static_cast<double>(runs);  // 95 of 100 is 0.95 exactly
    return share >= 0.95  ? health::excellent
           : share >= 0.8 ? health::healthy
           : share >= 0.5 ? health::at_risk
                          : health::problematic;
}

std::vector<operation_health> health_of_all(const runtime_core& runtime) {
    std::vector<operation_health> all;
    for (const auto& [name, of] : operations_by_name())
        if (auto found = health_of(runtime, name, of)) all.push_back(*std::move(found));
    return all;
}

std::optional<operation_health> health_of(const runtime_core& runtime, std::string_view name) {
    const auto known = operations_by_name();
    return health_of(runtime, name, known.at(name));
}

bool release_guards(const runtime_core& runtime, std::string_view name) {
    bool any = false;
    const auto known = operations_by_name();
    for (const operation_record* each : known.at(name))
        if (guard_desk* desk = runtime.guards.find(each->index)) any |= desk->release();
    return any;
}

}  // namespace tokengate::detail
