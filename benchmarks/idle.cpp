// SPDX-License-Identifier: MIT

/// What an idle runtime does: nothing. A runtime with work behind it, a token that waits for a byte on a pipe and
/// another that sleeps for an hour, is watched for five seconds. `wakeups` are the times that any of the process's
/// threads but this one was switched to, `cpu_us` the CPU time they took, both a second.

#include <tokengate/tokengate.hpp>

#include <benchmark/benchmark.h>

#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

namespace {

namespace tg = tokengate;
using namespace std::chrono_literals;

/// Of the threads of this process but the calling one, from /proc.
struct activity {
    std::uint64_t switches = 0;
    std::uint64_t cpu_ns = 0;
};

activity of_others() {
    activity sum;
    const std::string self = std::to_string(syscall(SYS_gettid));
    for (const auto& thread : std::filesystem::directory_iterator("/proc/self/task")) {
        if (thread.path().filename() == self) continue;
        std::ifstream status(thread.path() / "status");
        for (std::string line; std::getline(status, line);)
            if (const std::size_t at = line.find("ctxt_switches:"); at != line.npos)
                sum.switches += std::stoull(line.substr(at + 14));
        std::uint64_t on_cpu = 0;
        std::ifstream(thread.path() / "schedstat") >> on_cpu;
        sum.cpu_ns += on_cpu;
    }
    return sum;
}

tg::task<int> work(int n) {
    co_await tg::sleep_for(1ms);
    co_return n;
}
const tg::operation working{{.name = "working"}, work};

tg::task<> wait_long() { co_await tg::sleep_for(1h); }
const tg::operation waiting{{.name = "waiting"}, wait_long};

void idle(benchmark::State& state) {
    tg::runtime runtime{{.cores = static_cast<unsigned>(state.range(0))}};
    runtime.start();
    for (int i = 0; i < 100; ++i)
        if (runtime.submit(working(i)).get() != i) state.SkipWithError("a wrong result");
    auto sleeper = runtime.submit(waiting());
    std::this_thread::sleep_for(200ms);  // the executors have stopped spinning long ago
    activity before, after;
    std::chrono::duration<double> watched{};
    for (auto _ : state) {
        before = of_others();
        const auto began = std::chrono::steady_clock::now();
        std::this_thread::sleep_for(5s);
        after = of_others();
        watched = std::chrono::steady_clock::now() - began;
    }
    state.counters["wakeups"] =
        static_cast<double>(after.switches - before.switches) / watched.count();
    state.counters["cpu_us"] =
        static_cast<double>(after.cpu_ns - before.cpu_ns) / 1000 / watched.count();
    runtime.stop(1s, 0s);
    try {
        sleeper.get();
        state.SkipWithError("an hour has passed");
    } catch (const tg::token_stopped&) {}
}

BENCHMARK(idle)
    ->Arg(1)
    ->Arg(2)
    ->Arg(8)
    ->ArgName("cores")
    ->Unit(benchmark::kMillisecond)
    ->Iterations(1);

}  // namespace

BENCHMARK_MAIN();
