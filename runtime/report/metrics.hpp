// SPDX-License-Identifier: MIT
#pragma once

#include "base/histogram.hpp"
#include "token/operation_stats.hpp"

#include <tokengate/token_info.hpp>

#include <cstdint>
#include <string>

/// What a runtime has counted, for its own reports and for Prometheus.
///
/// Thread safety: any thread; no executor is stopped for it.

namespace tokengate::detail {

struct shared_state;

/// The counts of one operation, summed over all executors.
struct operation_totals {
    std::uint64_t admitted = 0;
    std::uint64_t started = 0;
    std::uint64_t completed = 0;
    std::uint64_t failed = 0;
    std::uint64_t killed = 0;
    std::uint64_t timed_out = 0;
    std::uint64_t expired = 0;
    std::uint64_t refused = 0;
    std::uint64_t retries = 0;
    histogram_sum queue_wait;
    histogram_sum run_time;

    void add(const operation_stats& from) noexcept;
    /// Adds what all executors have counted of an operation, and what was rejected before it
    /// reached one. Without runtime_options::metrics that is nothing.
    void add(const shared_state& runtime, std::uint32_t index) noexcept;
};

/// The metrics in Prometheus' text format, version 0.0.4. `now` is a snapshot of this runtime.
/// Throws std::bad_alloc.
[[nodiscard]] std::string metrics_text(shared_state& runtime, const snapshot& now);

}  // namespace tokengate::detail
