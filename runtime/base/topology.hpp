// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <vector>

/// Which CPUs this process may use, and how many cores that is worth.
///
///     std::vector<unsigned> cpus = affinity_cpus();                            // taskset, cpuset
///     unsigned cores = usable_cores(cpus.size(), cgroup_cpu_quota());          // … and no more than the quota pays for
///
/// The affinity mask says where the process may run; a cgroup's quota says for how long, and is invisible to the mask.
/// Functions without state: any thread may call them. They throw nothing but what allocating and std::filesystem::path
/// may; what the system does not tell counts as no limit.

namespace tokengate::detail {

/// The CPUs of the calling thread's affinity mask, ascending; as many as there are, also beyond 1024. Never empty:
/// where the mask cannot be read, CPUs 0 … online - 1.
[[nodiscard]] std::vector<unsigned> affinity_cpus();

/// The CPU time the control groups of this process allow, in CPUs: the smallest quota ÷ period of its group and all groups
/// above it, of cgroup v2 (cpu.max) and v1 (cpu.cfs_quota_us). Nothing where no group sets a limit.
/// `root` is where /proc and /sys/fs/cgroup are looked for.
[[nodiscard]] std::optional<double> cgroup_cpu_quota(const std::filesystem::path& root = "/");

/// How many cores to use of `cpus` CPUs under `quota`: a quota of 2.5 CPUs keeps three cores busy. At least 1.
[[nodiscard]] unsigned usable_cores(std::size_t cpus, std::optional<double> quota) noexcept;

/// Whether the machine has this CPU and it is online. It may still lie outside the affinity mask.
[[nodiscard]] bool cpu_exists(unsigned cpu, const std::filesystem::path& root = "/");

/// Binds the calling thread to one CPU. On failure false, with the reason in errno, and the thread stays where it was.
[[nodiscard]] bool pin_this_thread(unsigned cpu) noexcept;

}  // namespace tokengate::detail
