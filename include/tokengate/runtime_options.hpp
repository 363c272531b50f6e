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

/// What one chooses when a runtime is made; see runtime.hpp. All of it has a default.
///
///     tg::runtime runtime{{.cores = 8, .backlog = {.limit = 10'000}, .metrics = true}};
///
/// Plain values: the runtime takes a copy. Errors: its constructor throws configuration_error for a value that it cannot keep.

namespace tokengate {

/// How many operations of a tier run at a time; see options.hpp. At least 1 each.
struct storage_limits {
    int slow = 10;
    int moderate = 25;
    int fast = 50;
    int insane = 70;
};

/// How many tokens may wait at the gate: for a permit, for room, or because they are held. Those of conducted chains that
/// have started pass, and count for nothing.
struct backlog_options {
    std::size_t limit = 0;  ///< 0: none
    backlog_policy policy = backlog_policy::wait;
};

struct runtime_options {
    std::optional<unsigned>
        cores{};  ///< default: CPUs of the affinity mask, at most the cgroup's quota rounded up
    unsigned workers_per_core =
        1;  ///< executors that share a CPU; above 1 for operations that block
    std::vector<unsigned> cpus{};  ///< CPUs to pin to, in turn; default: the affinity mask
    tokengate::spill spill = tokengate::spill::when_saturated;
    storage_limits storage{};
    digest_policy digest = digest_policy::full;
    /// An idle executor looks this long before it sleeps; 0 with more executors than CPUs.
    time_span spin = std::chrono::microseconds(50);
    unsigned ring_entries =
        256;  ///< of each loop's submission queue; a power of two from 8 to 32768
    /// Most threads for tg::blocking. Calls that wait need no CPU, so their number follows what they wait for (a disk, a
    /// name server), which 64 at a time keep busy; a thread costs some 20 KiB, and exists only once there is work for it.
    unsigned blocking_threads = 64;
    time_span blocking_idle =
        std::chrono::seconds(10);  ///< one that found no work for so long ends
    backlog_options backlog{};
    /// Of which tokens the times are taken, for histograms and health. Any but off means metrics; those mean sampled.
    tokengate::timing timing = tokengate::timing::off;
    /// Hears every step of every token from the gate on (`created` when the gate gets it), on the thread where it is taken,
    /// in order for each token. It must be quick; what it throws goes to on_warning.
    std::function<void(const token_step&)> observer{};
    stall_options stall{};  ///< says who keeps a core for too long; default: off
    /// How many events each thread keeps for runtime::trace(), rounded up to a power of two: the last ones, 32 bytes each.
    /// 0: none are noted, and nothing is paid. At most 16,777,216.
    std::size_t trace_events = 0;
    /// Count by operation and core, and measure how long tokens wait and run and how fast cores wake; see `metrics`.
    bool metrics = false;
    std::function<void(const failure&)> on_failure{};  ///< default: one line on stderr. Any thread
    std::function<void(std::string_view)> on_warning{};  ///< default: one line on stderr
};

}  // namespace tokengate
