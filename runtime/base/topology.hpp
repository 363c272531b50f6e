// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <vector>

/// Which CPUs this process may use, and how many cores these are worth.
///
///     std::vector<unsigned> cpus = affinity_cpus();                      // taskset, cpuset
///     unsigned cores = usable_cores(cpus.size(), cgroup_cpu_quota());    // limited by the quota
///
/// The affinity mask limits where the process may run. A cgroup's quota limits for how long, and
/// the mask does not show it. The functions have no state, and any thread may call them. They throw
/// only what allocation and std::filesystem::path may throw. If the system does not provide a
/// value, there is no limit.

namespace tokengate::detail {

/// The CPUs of the calling thread's affinity mask, ascending. All of them, also beyond 1024. Never
/// empty: if the mask cannot be read, CPUs 0 … online - 1.
[[nodiscard]] std::vector<unsigned> affinity_cpus();

/// The CPU time that the control groups of this process allow, in CPUs: the smallest quota ÷ period
/// of its group and all groups above it, of cgroup v2 (cpu.max) and v1 (cpu.cfs_quota_us). Empty if
/// no group has a limit. `root` is the directory that has /proc and /sys/fs/cgroup.
[[nodiscard]] std::optional<double> cgroup_cpu_quota(const std::filesystem::path& root = "/");

/// How many cores to use of `cpus` CPUs under `quota`. A quota of 2.5 CPUs keeps three cores busy.
/// At least 1.
[[nodiscard]] unsigned usable_cores(std::size_t cpus, std::optional<double> quota) noexcept;

/// Whether the machine has this CPU and it is online. It may still lie outside the affinity mask.
[[nodiscard]] bool cpu_exists(unsigned cpu, const std::filesystem::path& root = "/");

/// Binds the calling thread to one CPU. On failure it returns false with the reason in errno, and
/// the thread's affinity is unchanged.
[[nodiscard]] bool pin_this_thread(unsigned cpu) noexcept;

}  // namespace tokengate::detail
