// SPDX-License-Identifier: MIT
#include "base/topology.hpp"

#include <pthread.h>
#include <sched.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <cmath>
#include <fstream>
#include <limits>
#include <memory>
#include <new>
#include <sstream>
#include <string>
#include <string_view>

namespace tokengate::detail {
namespace {

namespace fs = std::filesystem;

/// A CPU set of any size: cpu_set_t ends at CPU 1023.
class cpu_mask {
public:
    explicit cpu_mask(std::size_t cpus) : bytes_(CPU_ALLOC_SIZE(cpus)), set_(CPU_ALLOC(cpus)) {
        if (!set_) throw std::bad_alloc{};
        CPU_ZERO_S(bytes_, set_.get());
    }

    [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }
    [[nodiscard]] cpu_set_t* get() const noexcept { return set_.get(); }
    [[nodiscard]] bool has(unsigned cpu) const noexcept {
        return CPU_ISSET_S(cpu, bytes_, set_.get());
    }

private:
    struct free_set {
        void operator()(cpu_set_t* set) const noexcept { CPU_FREE(set); }
    };

    std::size_t bytes_;
    std::unique_ptr<cpu_set_t, free_set> set_;
};

/// More CPUs than any kernel is configured for. Prevents a mask from being allocated for a
/// nonsensical CPU number.
constexpr unsigned most_cpus = 1U << 20;

unsigned online_count() noexcept {
    return static_cast<unsigned>(std::max(1L, ::sysconf(_SC_NPROCESSORS_ONLN)));
}

void keep_smaller(std::optional<double>& limit, double quota, double period) {
    if (quota > 0 && period > 0)
        limit = std::min(limit.value_or(std::numeric_limits<double>::infinity()), quota / period);
}

/// v2: "max 100000" or "150000 100000". A group without the file (the root, or no cpu controller)
/// has no limit.
void read_v2(const fs::path& group, std::optional<double>& limit) {
    std::ifstream file(group / "cpu.max");
    double quota = 0, period = 0;
    if (file >> quota >> period) keep_smaller(limit, quota, period);  // "max" is no number
}

/// v1: two files. A quota of -1 means no limit.
void read_v1(const fs::path& group, std::optional<double>& limit) {
    std::ifstream quota_file(group / "cpu.cfs_quota_us"), period_file(group / "cpu.cfs_period_us");
    double quota = 0, period = 0;
    if (quota_file >> quota && period_file >> period) keep_smaller(limit, quota, period);
}

/// Visits `group` below `mount` and every group above it, the mount itself last. In a container,
/// /proc may name the group as the host sees it, while the mount begins at that very group. Then
/// only the mount has the file, and it is the right one.
template <typename Read>
void walk_up(const fs::path& mount, const fs::path& group, Read read,
             std::optional<double>& limit) {
    std::vector<fs::path> parts;
    for (const fs::path& part : group.relative_path().lexically_normal())
        if (part != "." && part != ".." && !part.empty()) parts.push_back(part);
    for (;;) {
        fs::path here = mount;
        for (const fs::path& part : parts) here /= part;
        read(here, limit);
        if (parts.empty()) return;
        parts.pop_back();
    }
}

bool lists(std::string_view controllers, std::string_view wanted) {
    while (!controllers.empty()) {
        const std::size_t comma = std::min(controllers.find(','), controllers.size());
        if (controllers.substr(0, comma) == wanted) return true;
        controllers.remove_prefix(std::min(comma + 1, controllers.size()));
    }
    return false;
}

}  // namespace

std::vector<unsigned> affinity_cpus() {
    std::vector<unsigned> cpus;
    // The kernel returns EINVAL while the set is smaller than its own.
    for (std::size_t size = 1024; size <= most_cpus; size *= 2) {
        const cpu_mask mask(size);
        if (::sched_getaffinity(0, mask.bytes(), mask.get()) == 0) {
            for (unsigned cpu = 0; cpu < size; ++cpu)
                if (mask.has(cpu)) cpus.push_back(cpu);
            break;
        }
        if (errno != EINVAL) break;
    }
    if (cpus.empty())
        for (unsigned cpu = 0; cpu < online_count(); ++cpu) cpus.push_back(cpu);
    return cpus;
}

std::optional<double> cgroup_cpu_quota(const fs::path& root) {
    const fs::path mounts = root / "sys/fs/cgroup";
    std::optional<double> limit;
    std::ifstream groups(root / "proc/self/cgroup");
    // Each line is "hierarchy:controllers:group"; v2 has hierarchy 0 and no controllers.
    for (std::string line; std::getline(groups, line);) {
        const std::size_t first = line.find(':');
        const std::size_t second = first == std::string::npos ? first : line.find(':', first + 1);
        if (second == std::string::npos) continue;
        const std::string controllers = line.substr(first + 1, second - first - 1);
        const fs::path group = line.substr(second + 1);
        if (controllers.empty()) {
            walk_up(mounts, group, read_v2, limit);
            // The place where a machine that still uses v1 mounts v2.
            walk_up(mounts / "unified", group, read_v2, limit);
        } else if (lists(controllers, "cpu")) {
            // "cpu,cpuacct"; "cpu" is a link to it.
            walk_up(mounts / controllers, group, read_v1, limit);
        }
    }
    return limit;
}

unsigned usable_cores(std::size_t cpus, std::optional<double> quota) noexcept {
    double cores = static_cast<double>(std::min<std::size_t>(cpus, most_cpus));
    if (quota) cores = std::min(cores, std::ceil(*quota));
    return cores >= 1 ? static_cast<unsigned>(cores) : 1;
}

bool cpu_exists(unsigned cpu, const fs::path& root) {
    std::ifstream file(root / "sys/devices/system/cpu/online");  // "0-3,8,10-11"
    std::string ranges;
    if (!std::getline(file, ranges) || ranges.empty()) return cpu < online_count();
    std::istringstream list(ranges);
    for (std::string range; std::getline(list, range, ',');) {
        std::istringstream bounds(range);
        unsigned low = 0, high = 0;
        if (!(bounds >> low)) continue;
        if (!(bounds.ignore(1, '-') >> high)) high = low;
        if (low <= cpu && cpu <= high) return true;
    }
    return false;
}

bool pin_this_thread(unsigned cpu) noexcept {
    try {
        if (cpu >= most_cpus) return errno = EINVAL, false;
        const cpu_mask mask(cpu + 1);
        CPU_SET_S(cpu, mask.bytes(), mask.get());
        const int error = ::pthread_setaffinity_np(::pthread_self(), mask.bytes(), mask.get());
        if (error) errno = error;
        return error == 0;
    } catch (const std::bad_alloc&) {
        return errno = ENOMEM, false;
    }
}

}  // namespace tokengate::detail
