// SPDX-License-Identifier: MIT
#include "base/topology.hpp"
#include "executor/stall_detector.hpp"
#include "lifecycle/runtime_core.hpp"
#include "token/trace_ring.hpp"

#include <tokengate/error.hpp>

#include <bit>
#include <chrono>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>

namespace tokengate::detail {

namespace {

// Without the control loop; see load_table::most_positions.
constexpr unsigned most_positions = 1023;

template <class... Parts>
configuration_error bad_option(const Parts&... parts) {
    std::string text = "configuration_error: runtime_options.";
    const auto add = [&](const auto& part) {
        if constexpr (std::is_arithmetic_v<std::remove_cvref_t<decltype(part)>>)
            text += std::to_string(part);
        else
            text += part;
    };
    (add(parts), ...);
    return configuration_error(text);
}

}  // namespace

core_layout settle(runtime_options& options) {
    if (options.cores && *options.cores == 0)
        throw bad_option("cores is 0: at least 1, or leave it out for every usable CPU");
    if (options.workers_per_core == 0) throw bad_option("workers_per_core is 0: at least 1");
    for (unsigned cpu : options.cpus)
        if (!cpu_exists(cpu))
            throw bad_option("cpus names CPU ", cpu,
                             ", which this machine does not have (or has offline)");
    const std::pair<const char*, int> limits[] = {{"slow", options.storage.slow},
                                                  {"moderate", options.storage.moderate},
                                                  {"fast", options.storage.fast},
                                                  {"insane", options.storage.insane}};
    for (const auto& [name, limit] : limits)
        if (limit < 1)
            throw bad_option("storage.", name, " is ", limit,
                             ": a tier admits at least 1 operation at a time");
    if (options.spin.count() < 0) throw bad_option("spin is negative: 0 or more");
    if (options.ring_entries < 8 || options.ring_entries > 32768 ||
        !std::has_single_bit(options.ring_entries))
        throw bad_option("ring_entries is ", options.ring_entries,
                         ": a power of two from 8 to 32768");
    if (options.blocking_threads == 0)
        throw bad_option(
            "blocking_threads is 0: at least 1; none is started before the first blocking call");
    if (options.blocking_idle.count() < 0) throw bad_option("blocking_idle is negative: 0 or more");
    if (options.timing > timing::full)
        throw bad_option("timing does not exist: off, sampled or full");
    if (options.timing != timing::off) options.metrics = true;
    if (options.metrics && options.timing == timing::off) options.timing = timing::sampled;
    if (options.backlog.policy > backlog_policy::shed_oldest)
        throw bad_option("backlog.policy does not exist: wait, reject or shed_oldest");
    const std::chrono::nanoseconds threshold = options.stall.threshold;
    if (threshold != threshold.zero() && threshold < stall_detector::shortest_threshold)
        throw bad_option("stall.threshold is ", threshold.count(),
                         " ns: at least 10 ms, since several short operations may take that long "
                         "between two looks at the "
                         "loop's mail; or 0 for no detector");
    if (options.trace_events > trace_ring::most_events)
        throw bad_option("trace_events is ", options.trace_events, ": at most ",
                         trace_ring::most_events, " a thread, of 32 bytes each; 0 for no trace");
    if (options.spill > spill::never)
        throw bad_option("spill does not exist: when_saturated or never");
    if (options.digest > digest_policy::minimal)
        throw bad_option("digest does not exist: full, short_ or minimal");
    if (options.cpus.empty()) options.cpus = affinity_cpus();
    core_layout layout{
        options.cores.value_or(usable_cores(options.cpus.size(), cgroup_cpu_quota())),
        options.workers_per_core};
    if (std::uint64_t{layout.cores} * layout.workers_per_core > most_positions)
        throw bad_option("cores × workers_per_core is ",
                         std::uint64_t{layout.cores} * layout.workers_per_core, ": at most ",
                         most_positions);
    return layout;
}

}  // namespace tokengate::detail
