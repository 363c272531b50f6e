// SPDX-License-Identifier: MIT
#pragma once

#include <sched.h>
#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <concepts>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <functional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

/// The frame of a contender: a small program that solves one problem in one or several ways and says what that took.
///
///     int main(int argc, char** argv) {
///         const contest::request asked(argc, argv);
///         tg::runtime runtime{{.cores = asked.threads}};                       // made outside of what is timed
///         return contest::answer(asked, {
///             {"tasks", [&] { return runtime.run(fib(asked.size)); }},         // returns the result; the frame times it
///             {"echo", [&] { return contest::sample{.result = 0, .seconds = 1, .items = 5000}; }},  // times itself
///         });
///     }
///
/// Options: `--list` prints the names of the ways; else `--way NAME --size N --shape N --threads T --warm-ups K`.
/// What `size` and `shape` mean is the problem's. The process keeps to the first T CPUs that it may use, except
/// with `--threads 0`: all of them. The chosen way runs K times unmeasured and once measured, then one line of JSON
/// says the result, which the driver (run.py) checks, the time, the CPU time of all threads, and the peak of
/// resident memory since the process began. What a way throws ends the program with status 1 and a line on stderr;
/// a way that cannot solve this case throws does_not_take_part, and nothing is printed.

namespace contest {

struct request {
    std::string way;
    std::uint64_t size = 1;
    std::uint64_t shape = 0;
    unsigned threads = 0;
    unsigned warm_ups = 1;
    bool list = false;

    request(int argc, char** argv) {
        for (int i = 1; i < argc; ++i) {
            const std::string_view option = argv[i];
            if (option == "--list") {
                list = true;
                continue;
            }
            if (i + 1 == argc) refuse(option);
            const std::string_view value = argv[++i];
            if (option == "--way")
                way = value;
            else if (option == "--size")
                size = number<std::uint64_t>(value);
            else if (option == "--shape")
                shape = number<std::uint64_t>(value);
            else if (option == "--threads")
                threads = number<unsigned>(value);
            else if (option == "--warm-ups")
                warm_ups = number<unsigned>(value);
            else
                refuse(option);
        }
        if (threads != 0) keep_to_cpus();
        threads = static_cast<unsigned>(cpus().size());
    }

    /// The CPUs that this process may use, in order.
    [[nodiscard]] static std::vector<int> cpus() {
        cpu_set_t usable;
        CPU_ZERO(&usable);
        if (sched_getaffinity(0, sizeof usable, &usable) != 0)
            throw std::system_error(errno, std::generic_category(), "sched_getaffinity");
        std::vector<int> all;
        for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
            if (CPU_ISSET(cpu, &usable)) all.push_back(cpu);
        return all;
    }

private:
    [[noreturn]] static void refuse(std::string_view argument) {
        std::fprintf(stderr, "unknown or incomplete: %.*s\n", static_cast<int>(argument.size()),
                     argument.data());
        std::exit(2);
    }
    template <class Number>
    static Number number(std::string_view text) {
        Number value{};
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
        if (error != std::errc{} || end != text.data() + text.size()) refuse(text);
        return value;
    }
    void keep_to_cpus() const {
        const std::vector<int> usable = cpus();
        cpu_set_t few;
        CPU_ZERO(&few);
        for (unsigned i = 0; i < threads && i < usable.size(); ++i) CPU_SET(usable[i], &few);
        if (sched_setaffinity(0, sizeof few, &few) != 0)
            throw std::system_error(errno, std::generic_category(), "sched_setaffinity");
    }
};

struct sample {
    std::uint64_t result = 0;  ///< what the driver compares with the known value
    double seconds = 0;
    double items = 1;  ///< the time is divided by them where the problem says so
    std::vector<std::pair<std::string, double>> more =
        {};  ///< further figures by name, each for a column of its own
};

struct does_not_take_part {};

using clock = std::chrono::steady_clock;

inline double seconds_since(clock::time_point began) {
    return std::chrono::duration<double>(clock::now() - began).count();
}

/// The value that a share of `q` of all are not above.
template <class Number>
Number quantile(std::vector<Number> of, double q) {
    const auto at =
        of.begin() + static_cast<std::ptrdiff_t>(q * static_cast<double>(of.size() - 1) + 0.5);
    std::nth_element(of.begin(), at, of.end());
    return *at;
}

/// One way to solve the problem.
struct way {
    std::string name;
    std::function<sample()> run;

    template <std::invocable Run>
    way(std::string named, Run solve) : name(std::move(named)) {
        if constexpr (std::same_as<std::invoke_result_t<Run&>, sample>)
            run = std::move(solve);
        else
            run = [solve = std::move(solve)]() mutable {
                const auto began = clock::now();
                const auto result = static_cast<std::uint64_t>(solve());
                return sample{.result = result, .seconds = seconds_since(began)};
            };
    }
};

inline double cpu_seconds() {
    rusage used{};
    getrusage(RUSAGE_SELF, &used);
    const auto seconds = [](const timeval& time) {
        return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
    };
    return seconds(used.ru_utime) + seconds(used.ru_stime);
}

/// Not ru_maxrss, in which a child has what its parent had.
inline std::uint64_t peak_memory_kib() {
    std::ifstream status("/proc/self/status");
    for (std::string word; status >> word;)
        if (std::uint64_t kib = 0; word == "VmHWM:" && status >> kib) return kib;
    return 0;
}

inline void print(const sample& seen, double cpu, std::uint64_t memory_kib) {
    std::printf(
        "{\"result\": %llu, \"seconds\": %.9g, \"items\": %.9g, \"cpu_seconds\": %.6g, "
        "\"memory_kib\": %llu",
        static_cast<unsigned long long>(seen.result), seen.seconds, seen.items, cpu,
        static_cast<unsigned long long>(memory_kib));
    for (const auto& [name, value] : seen.more) std::printf(", \"%s\": %.6g", name.c_str(), value);
    std::printf("}\n");
}

/// For `return` in main.
inline int answer(const request& asked, const std::vector<way>& ways) try {
    if (asked.list) {
        for (const way& each : ways) std::printf("%s\n", each.name.c_str());
        return 0;
    }
    const auto chosen = std::find_if(ways.begin(), ways.end(),
                                     [&](const way& each) { return each.name == asked.way; });
    if (chosen == ways.end()) throw std::invalid_argument("no such way: " + asked.way);
    for (unsigned i = 0; i < asked.warm_ups; ++i) static_cast<void>(chosen->run());
    const double before = cpu_seconds();
    const sample seen = chosen->run();
    print(seen, cpu_seconds() - before, peak_memory_kib());
    return 0;
} catch (const does_not_take_part&) {
    return 0;
} catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
}

}  // namespace contest
