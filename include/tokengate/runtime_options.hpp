// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/options.hpp>
#include <tokengate/stall.hpp>
#include <tokengate/time_span.hpp>
#include <tokengate/token_info.hpp>

#include <chrono>
#include <cstddef>
#include <functional>
#include <optional>
#include <string_view>
#include <vector>

/// The options of a runtime; see runtime.hpp. Each has a default.
///
///     tg::runtime runtime{{.cores = 8, .backlog = {.limit = 10'000}, .metrics = true}};
///
/// Lifetime: These are plain values; the runtime takes a copy.
///
/// Errors: The constructor of the runtime throws configuration_error for an invalid value.

namespace tokengate {

/// How many operations of a storage tier run at a time; see options.hpp. At least 1 each.
struct storage_limits {
    int slow = 10;
    int moderate = 25;
    int fast = 50;
    int insane = 70;
};

/// How many tokens may wait at the gate: for a permit, for room, or because they are held. Tokens
/// of conducted chains that have started pass, and do not count.
struct backlog_options {
    std::size_t limit = 0;  ///< 0: no limit
    backlog_policy policy = backlog_policy::wait;
};

struct runtime_options {
    /// Default: the CPUs of the affinity mask, at most the cgroup's quota rounded up.
    std::optional<unsigned> cores{};
    /// Executors that share a CPU; above 1 for operations that block. cores × workers_per_core is
    /// at most 1023.
    unsigned workers_per_core = 1;
    std::vector<unsigned> cpus{};  ///< CPUs to pin to, in turn; default: the affinity mask
    tokengate::spill spill = tokengate::spill::when_saturated;
    storage_limits storage{};
    digest_policy digest = digest_policy::full;
    /// An idle executor polls this long before it sleeps; with more executors than CPUs, it does
    /// not poll.
    time_span spin = std::chrono::microseconds(50);
    /// Entries of each loop's submission queue; a power of two from 8 to 32768.
    unsigned ring_entries = 256;
    /// The most threads for tg::blocking, at least 1. Calls that wait need no CPU, so their number
    /// depends on what they wait for (a disk, a name server). 64 at a time keep that busy. A thread
    /// costs some 20 KiB, and exists only once there is work for it.
    unsigned blocking_threads = 64;
    /// A thread for tg::blocking that has found no work for so long ends.
    time_span blocking_idle = std::chrono::seconds(10);
    backlog_options backlog{};
    /// Of which tokens the runtime records the times, for histograms and health. Each value but off
    /// implies metrics; metrics imply sampled.
    tokengate::timing timing = tokengate::timing::off;
    /// Is notified of every step of every token from the gate on, on the thread of the step, in
    /// order for each token. It gets `created` when the gate gets the token. It must be quick; an
    /// exception that it throws goes to on_warning.
    std::function<void(const token_step&)> observer{};
    stall_options stall{};  ///< reports tokens that keep a core for too long; default: off
    /// How many of its last events each thread keeps for runtime::trace(), rounded up to a power of
    /// two, 32 bytes each. 0: none, at no cost. At most 16,777,216.
    std::size_t trace_events = 0;
    /// Count by operation and core, and measure how long tokens wait and run, and how fast cores
    /// wake; see runtime::metrics.
    bool metrics = false;
    /// The failure handler; called on any thread. Default: one line on stderr.
    std::function<void(const failure&)> on_failure{};
    std::function<void(std::string_view)> on_warning{};  ///< default: one line on stderr
};

}  // namespace tokengate
