// SPDX-License-Identifier: MIT

// Waves of 4, 8, 16 … tokens, with four kinds of work in turn. The sample compares every result
// with that of the same function, called directly on one pinned thread. It also relates the time of
// the wave to the time of these direct calls:
//
//     efficiency = Σ time of the direct calls ÷ (cores × time of the wave)

#include "support/command_line.hpp"
#include "support/json.hpp"
#include "support/live_line.hpp"
#include "support/workload.hpp"

#include <tokengate/tokengate.hpp>

#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <numeric>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace tg = tokengate;

namespace {

using steady = std::chrono::steady_clock;
using milliseconds = std::chrono::duration<double, std::milli>;

// ---- the operations -----------------------------------------------------------------------------

/// The result of a token, with its times.
struct outcome {
    std::uint64_t fingerprint = 0;
    bool threw = false;
    steady::time_point started, ended;
};

template <auto Work, class... Arguments>
outcome observed(Arguments... arguments) {
    outcome seen;
    seen.started = steady::now();
    try {
        seen.fingerprint = workload::fingerprint(Work(arguments...));
    } catch (const std::exception&) {
        seen.threw = true;  // counted as failed; the rest of the wave continues
    }
    seen.ended = steady::now();
    return seen;
}

const tg::operation cpu_crunch{{.name = "cpu_crunch", .weight = tg::weight::light},
                               observed<workload::cpu_crunch, unsigned>};
const tg::operation string_transform{{.name = "string_transform", .weight = tg::weight::light},
                                     observed<workload::string_transform, std::uint64_t>};
const tg::operation data_sort{{.name = "data_sort", .weight = tg::weight::medium},
                              observed<workload::data_sort, std::size_t>};
const tg::operation hash_chain{{.name = "hash_chain", .weight = tg::weight::heavy},
                               observed<workload::hash_chain, std::string, unsigned>};

/// Token i of a wave.
tg::token<outcome> token_of(unsigned i) {
    switch (i % 4) {
        case 0: return cpu_crunch(60 + i % 25);
        case 1: return string_transform(31 * i);
        case 2: return data_sort(400 + i % 300);
        default: return hash_chain("wave_seed_" + std::to_string(i), 120 + i % 80);
    }
}

/// The same work as token_of(i), without a token.
std::uint64_t direct_call(unsigned i) {
    switch (i % 4) {
        case 0: return workload::fingerprint(workload::cpu_crunch(60 + i % 25));
        case 1: return workload::fingerprint(workload::string_transform(31 * i));
        case 2: return workload::fingerprint(workload::data_sort(400 + i % 300));
        default:
            return workload::fingerprint(workload::hash_chain("wave_seed_" + std::to_string(i),
                                                              120 + i % 80));
    }
}

// ---- the comparison -----------------------------------------------------------------------------

std::vector<int> usable_cpus() {
    cpu_set_t mask;
    if (sched_getaffinity(0, sizeof mask, &mask) != 0)
        throw std::system_error(errno, std::generic_category(), "affinity");
    std::vector<int> cpus;
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
        if (CPU_ISSET(cpu, &mask)) cpus.push_back(cpu);
    return cpus;
}

/// Calls the functions from `first` to below `last` on a thread pinned to `cpu`, stores their
/// results in `expected`, and returns the time that the calls took.
milliseconds call_directly(unsigned first, unsigned last, int cpu,
                           std::vector<std::uint64_t>& expected) {
    milliseconds taken{};
    std::thread([&] {
        cpu_set_t only;
        CPU_ZERO(&only);
        CPU_SET(cpu, &only);
        sched_setaffinity(0, sizeof only, &only);
        // Not measured: the first calls on a thread allocate and initialize its state.
        for (unsigned i = 0; i < 4; ++i) static_cast<void>(direct_call(i));
        const auto began = steady::now();
        for (unsigned i = first; i < last; ++i) expected[i] = direct_call(i);
        taken = steady::now() - began;
    }).join();
    return taken;
}

// ---- a wave -------------------------------------------------------------------------------------

struct wave {
    unsigned tokens = 0;
    unsigned ok = 0;
    milliseconds elapsed{}, direct{};
    double span_overlap = 0, busy_overlap = 0, efficiency = 0;

    [[nodiscard]] unsigned failed() const { return tokens - ok; }
    [[nodiscard]] double tok_per_s() const { return tokens / elapsed.count() * 1e3; }
    [[nodiscard]] double ms_per_token() const { return elapsed.count() / tokens; }
};

milliseconds busy_time(const tg::runtime& runtime) {
    const std::vector<std::uint64_t> busy = runtime.snapshot().busy_ns;
    return std::chrono::nanoseconds(std::accumulate(busy.begin(), busy.end(), std::uint64_t{0}));
}

tg::task<wave> run_wave(const tg::runtime& runtime, unsigned size, const std::vector<int>& cpus) {
    wave now{.tokens = size};
    std::vector<std::uint64_t> expected(size);

    // Half of the direct calls run before the wave and half after it, on the first and on the last
    // CPU in use, so that other programs disturb the calls and the wave alike. These calls block
    // the main coroutine's thread. Meanwhile the executors have nothing to do and sleep.
    now.direct = call_directly(0, size / 2, cpus.front(), expected);
    const milliseconds busy_before = busy_time(runtime);

    const auto began = steady::now();
    std::vector<tg::token<outcome>> tokens;
    tokens.reserve(size);
    for (unsigned i = 0; i < size; ++i) tokens.push_back(token_of(i));
    const std::vector<outcome> outcomes = co_await tg::when_all(std::move(tokens));
    now.elapsed = steady::now() - began;

    now.direct +=
        call_directly(size / 2, size, cpus[std::min<std::size_t>(cpus.size(), runtime.cores()) - 1],
                      expected);

    milliseconds spans{};
    for (unsigned i = 0; i < size; ++i) {
        const outcome& seen = outcomes[i];
        if (!seen.threw && seen.fingerprint == expected[i]) ++now.ok;
        spans += seen.ended - seen.started;
    }
    now.span_overlap = spans / now.elapsed;
    now.busy_overlap = (busy_time(runtime) - busy_before) / now.elapsed;
    now.efficiency = now.direct / (runtime.cores() * now.elapsed);
    co_return now;
}

tg::task<std::vector<wave>> run_waves(const tg::runtime& runtime, unsigned count,
                                      const std::vector<int>& cpus) {
    support::live_line live;
    std::vector<wave> waves;
    for (unsigned i = 0; i < count; ++i) {
        const unsigned size = 4U << i;
        live.show("wave " + std::to_string(i + 1) + " of " + std::to_string(count) + ": " +
                  std::to_string(size) + " tokens");
        waves.push_back(co_await run_wave(runtime, size, cpus));
    }
    co_return waves;
}

// ---- the report ---------------------------------------------------------------------------------

/// Prints the report. Returns whether every token returned the expected result.
bool report(const std::vector<wave>& waves, unsigned cores, std::size_t cpus,
            const std::optional<std::string>& json_file) {
    std::printf("%5s %9s %9s %7s %10s %10s %10s %8s %8s %11s\n", "", "", "", "", "", "", "", "span",
                "busy", "");
    std::printf("%5s %9s %9s %7s %10s %10s %10s %8s %8s %11s\n", "wave", "tokens", "ok", "failed",
                "ms", "tok/s", "ms/token", "overlap", "overlap", "efficiency");
    wave total;
    std::vector<support::json> rows;
    double flattest = 0, steepest = 0;
    for (std::size_t i = 0; i < waves.size(); ++i) {
        const wave& w = waves[i];
        std::printf("%5zu %9u %9u %7u %10.3f %10.0f %10.5f %8.2f %8.2f %11.3f\n", i + 1, w.tokens,
                    w.ok, w.failed(), w.elapsed.count(), w.tok_per_s(), w.ms_per_token(),
                    w.span_overlap, w.busy_overlap, w.efficiency);
        rows.push_back(support::json()
                           .add("tokens", w.tokens)
                           .add("ok", w.ok)
                           .add("failed", w.failed())
                           .add("elapsed_ms", w.elapsed.count())
                           .add("tok_per_s", w.tok_per_s())
                           .add("ms_per_token", w.ms_per_token())
                           .add("span_overlap", w.span_overlap)
                           .add("busy_overlap", w.busy_overlap)
                           .add("efficiency", w.efficiency));
        total.tokens += w.tokens;
        total.ok += w.ok;
        total.elapsed += w.elapsed;
        if (i < 8) continue;
        flattest = i == 8 ? w.ms_per_token() : std::min(flattest, w.ms_per_token());
        steepest = std::max(steepest, w.ms_per_token());
    }
    std::printf("%5s %9u %9u %7u %10.3f %10.0f %10.5f\n", "all", total.tokens, total.ok,
                total.failed(), total.elapsed.count(), total.tok_per_s(), total.ms_per_token());
    if (waves.size() > 9)
        std::printf("\nflatness from wave 9 on (longest ÷ shortest ms a token): %.3f\n",
                    steepest / flattest);
    if (cores > cpus)
        std::printf(
            "\nNote: %u cores on %zu CPUs. Efficiency cannot pass %.2f, and the overlaps count "
            "time in which a core "
            "waits for its CPU.\n",
            cores, cpus, static_cast<double>(cpus) / cores);
    support::write_json(json_file, support::json()
                                       .add("waves", rows)
                                       .add("tokens", total.tokens)
                                       .add("failed", total.failed()));
    return total.failed() == 0;
}

}  // namespace

int main(int argc, char** argv) try {
    support::command_line line(
        argc, argv, "waves",
        "doubling waves of four kinds of work, from 4 tokens; every result is checked.");
    const unsigned count =
        line.number("--waves", 1, 20, "how many waves (default: 15)").value_or(15);
    const std::string spill = line.choice("--spill", {"saturated", "never"},
                                          "may light and medium work leave its home range?");
    const std::string watch =
        line.choice("--watch", {"off", "metrics", "trace"}, "what the runtime keeps of its tokens");
    const auto cores = line.cores();
    const auto json_file = line.json_file();
    line.finish();

    const std::vector<int> cpus = usable_cpus();
    tg::runtime runtime{{.cores = cores,
                         .spill = spill == "never" ? tg::spill::never : tg::spill::when_saturated,
                         .trace_events = watch == "trace" ? 65'536U : 0U,
                         .metrics = watch == "metrics"}};
    const std::vector<wave> waves = runtime.run(run_waves(runtime, count, cpus));
    return report(waves, runtime.cores(), cpus.size(), json_file) ? 0 : 1;
} catch (const std::exception& error) {
    std::fprintf(stderr, "waves: %s\n", error.what());
    return 1;
}
