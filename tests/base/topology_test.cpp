// SPDX-License-Identifier: MIT
#include "base/topology.hpp"

#include <doctest/doctest.h>

#include <sched.h>
#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <stdexcept>
#include <string>
#include <thread>

namespace fs = std::filesystem;
using namespace tokengate::detail;

namespace {

/// A root directory of our own making, gone with its object.
class fake_root {
public:
    fake_root() {
        std::string path = (fs::temp_directory_path() / "tokengate-topology-XXXXXX").string();
        if (!::mkdtemp(path.data())) throw std::runtime_error("no temporary directory");
        path_ = path;
    }
    ~fake_root() {
        std::error_code ignored;
        fs::remove_all(path_, ignored);
    }
    fake_root(const fake_root&) = delete;
    fake_root& operator=(const fake_root&) = delete;

    fake_root& with(const fs::path& file, const std::string& text) {
        fs::create_directories((path_ / file).parent_path());
        std::ofstream(path_ / file) << text;
        return *this;
    }
    [[nodiscard]] const fs::path& path() const { return path_; }

private:
    fs::path path_;
};

/// Runs `body` on a thread of its own, so that what it does to its affinity ends with it.
template <typename Body>
void on_own_thread(Body body) {
    std::thread(body).join();
}

}  // namespace

TEST_SUITE("topology") {
    TEST_CASE("the affinity mask lists existing CPUs, ascending") {
        const std::vector<unsigned> cpus = affinity_cpus();
        REQUIRE_FALSE(cpus.empty());
        CHECK(std::is_sorted(cpus.begin(), cpus.end()));
        CHECK(std::adjacent_find(cpus.begin(), cpus.end()) == cpus.end());
        for (unsigned cpu : cpus) CHECK(cpu_exists(cpu));
    }

    TEST_CASE("a pinned thread sees one CPU and runs there") {
        for (unsigned cpu : affinity_cpus()) {
            bool pinned = false;
            int runs_on = -1;
            std::vector<unsigned> seen;
            on_own_thread([&] {
                pinned = pin_this_thread(cpu);
                seen = affinity_cpus();
                runs_on = ::sched_getcpu();
            });
            CHECK(pinned);
            CHECK(seen == std::vector<unsigned>{cpu});
            CHECK(runs_on == static_cast<int>(cpu));
        }
    }

    TEST_CASE("a pin that cannot be had says why and changes nothing") {
        for (unsigned cpu : {8191U, 1U << 20, std::numeric_limits<unsigned>::max()}) {
            CAPTURE(cpu);
            bool pinned = true;
            int reason = 0;
            std::vector<unsigned> before, after;
            on_own_thread([&] {
                before = affinity_cpus();
                errno = 0;
                pinned = pin_this_thread(cpu);
                reason = errno;
                after = affinity_cpus();
            });
            CHECK_FALSE(pinned);
            CHECK(reason == EINVAL);
            CHECK(before == after);
        }
    }

    TEST_CASE("cores: the CPUs, or fewer where the quota pays for fewer") {
        CHECK(usable_cores(8, std::nullopt) == 8);
        CHECK(usable_cores(8, 2.0) == 2);
        CHECK(usable_cores(8, 2.5) == 3);
        CHECK(usable_cores(8, 0.1) == 1);
        CHECK(usable_cores(2, 64.0) == 2);
        CHECK(usable_cores(0, std::nullopt) == 1);
        CHECK(usable_cores(0, 0.0) == 1);
        CHECK(usable_cores(4, -1.0) == 1);
        CHECK(usable_cores(4, std::numeric_limits<double>::infinity()) == 4);
    }

    TEST_CASE("cgroup v2: the group's own quota") {
        fake_root root;
        root.with("proc/self/cgroup", "0::/app\n")
            .with("sys/fs/cgroup/app/cpu.max", "150000 100000\n");
        CHECK(cgroup_cpu_quota(root.path()) == 1.5);
    }

    TEST_CASE("cgroup v2: the tightest of all groups above wins, whatever the periods") {
        fake_root root;
        root.with("proc/self/cgroup", "0::/system.slice/pod/app\n")
            .with("sys/fs/cgroup/system.slice/pod/app/cpu.max", "400000 100000\n")
            .with("sys/fs/cgroup/system.slice/pod/cpu.max", "100000 50000\n")
            .with("sys/fs/cgroup/system.slice/cpu.max", "max 100000\n");
        CHECK(cgroup_cpu_quota(root.path()) == 2.0);
    }

    TEST_CASE("cgroup v2: max, a missing file and nonsense are no limit") {
        CHECK(cgroup_cpu_quota(fake_root().path()) == std::nullopt);
        for (const char* text : {"max 100000\n", "", "soon\n", "100000\n", "-1 100000\n",
                                 "0 100000\n", "100000 0\n"}) {
            CAPTURE(text);
            fake_root root;
            root.with("proc/self/cgroup", "0::/\n").with("sys/fs/cgroup/cpu.max", text);
            CHECK(cgroup_cpu_quota(root.path()) == std::nullopt);
        }
    }

    TEST_CASE("cgroup v2 in a container: the mount begins at the group") {
        for (const char* group :
             {"0::/\n", "0::/docker/0123456789ab\n", "0::/../other\n", "0::/../../\n"}) {
            CAPTURE(group);
            fake_root root;
            root.with("proc/self/cgroup", group).with("sys/fs/cgroup/cpu.max", "50000 100000\n");
            CHECK(cgroup_cpu_quota(root.path()) == 0.5);
        }
    }

    TEST_CASE("cgroup v1: quota and period, -1 is none") {
        fake_root root;
        root.with("proc/self/cgroup", "5:memory:/app\n4:cpu,cpuacct:/app/a:b\n0::/app\n")
            .with("sys/fs/cgroup/cpu,cpuacct/app/a:b/cpu.cfs_quota_us", "300000\n")
            .with("sys/fs/cgroup/cpu,cpuacct/app/a:b/cpu.cfs_period_us", "100000\n")
            .with("sys/fs/cgroup/cpu,cpuacct/app/cpu.cfs_quota_us", "-1\n")
            .with("sys/fs/cgroup/cpu,cpuacct/app/cpu.cfs_period_us", "100000\n");
        CHECK(cgroup_cpu_quota(root.path()) == 3.0);
        root.with("sys/fs/cgroup/cpu,cpuacct/app/a:b/cpu.cfs_quota_us", "-1\n");
        CHECK(cgroup_cpu_quota(root.path()) == std::nullopt);
    }

    TEST_CASE("cgroup v1: only the cpu controller counts") {
        fake_root root;
        root.with("proc/self/cgroup",
                  "3:cpuset:/x\n2:cpuacct:/x\n1:name=systemd:/x\nnonsense\n:\n::\n")
            .with("sys/fs/cgroup/cpuset/x/cpu.cfs_quota_us", "100000\n")
            .with("sys/fs/cgroup/cpuset/x/cpu.cfs_period_us", "100000\n");
        CHECK(cgroup_cpu_quota(root.path()) == std::nullopt);
    }

    TEST_CASE("this machine's own quota is read without trouble") {
        const std::optional<double> quota = cgroup_cpu_quota();
        if (quota) CHECK(*quota > 0);
        CHECK(usable_cores(affinity_cpus().size(), quota) >= 1);
    }

    TEST_CASE("which CPUs exist") {
        fake_root root;
        root.with("sys/devices/system/cpu/online", "0-2,5,8-9\n");
        std::vector<unsigned> existing;
        for (unsigned cpu = 0; cpu < 32; ++cpu)
            if (cpu_exists(cpu, root.path())) existing.push_back(cpu);
        CHECK(existing == std::vector<unsigned>{0, 1, 2, 5, 8, 9});
        CHECK_FALSE(cpu_exists(std::numeric_limits<unsigned>::max(), root.path()));
        CHECK(cpu_exists(0, fake_root().path()));  // nothing to read: the kernel's count of CPUs
        CHECK_FALSE(cpu_exists(std::numeric_limits<unsigned>::max()));
    }
}
