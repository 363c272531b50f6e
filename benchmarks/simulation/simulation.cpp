// SPDX-License-Identifier: MIT

/// The hand-over on 4 … 256 cores, in virtual time: the routers and the load table of the runtime among modelled loops,
/// against the same loops as they were before, an ideal central queue, one with a lock, stealing and static round-robin.
///
///     simulation_benchmark [--seed N] [--only STUDY] [--cores N] [--interrupted NS] >figures.csv
///     simulation_benchmark --check                     what must hold, in a few seconds; exits 1 if it does not
///
/// README.md beside this file has the assumptions; docs/simulation.md what came of it.

#include "gated.hpp"
#include "rivals.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace {

using namespace simulation;
using tokengate::weight;

struct contender {
    const char* name;
    std::unique_ptr<machine> (*make)(const costs&, unsigned, const workload&, std::uint64_t);
};

std::unique_ptr<machine> make_gated(const costs& price, unsigned cores, const workload& work,
                                    std::uint64_t seed, features has) {
    return std::make_unique<gated>(price, cores, work, seed, has);
}

constexpr contender ideal{
    "ideal", [](const costs& price, unsigned cores, const workload& work, std::uint64_t seed) {
        return std::unique_ptr<machine>(new central(price, cores, work, seed, true));
    }};
constexpr contender locked{
    "locked", [](const costs& price, unsigned cores, const workload& work, std::uint64_t seed) {
        return std::unique_ptr<machine>(new central(price, cores, work, seed, false));
    }};
constexpr contender thieves{
    "stealing", [](const costs& price, unsigned cores, const workload& work, std::uint64_t seed) {
        return std::unique_ptr<machine>(new stealing(price, cores, work, seed));
    }};
constexpr contender round_robin{"round_robin", [](const costs& price, unsigned cores,
                                                  const workload& work, std::uint64_t seed) {
                                    features has;
                                    has.round_robin = true;
                                    return make_gated(price, cores, work, seed, has);
                                }};
constexpr contender before{
    "before", [](const costs& price, unsigned cores, const workload& work, std::uint64_t seed) {
        return make_gated(price, cores, work, seed, {});
    }};
/// As `now`, but for its order among hungry cores: round them all, asleep or not.
constexpr contender in_turn{"hungry_in_turn", [](const costs& price, unsigned cores,
                                                 const workload& work, std::uint64_t seed) {
                                features has = features::all();
                                has.awake_first = false;
                                return make_gated(price, cores, work, seed, has);
                            }};
constexpr contender now{
    "tokengate", [](const costs& price, unsigned cores, const workload& work, std::uint64_t seed) {
        return make_gated(price, cores, work, seed, features::all());
    }};

constexpr std::array everybody{ideal, locked, thieves, round_robin, before, in_turn, now};

// What each part of the hand-over does: one after the other.
template <bool Hungry, bool Recall, bool Outboxes, bool Mail, bool GiveBack, bool NoRoom,
          bool AwakeFirst = false, bool PastGate = false>
constexpr auto with =
    [](const costs& price, unsigned cores, const workload& work, std::uint64_t seed) {
        return make_gated(price, cores, work, seed,
                          {Hungry, Recall, Outboxes, Mail, GiveBack, NoRoom, AwakeFirst, PastGate,
                           false});
    };
constexpr std::array parts{
    contender{"before", with<false, false, false, false, false, false>},
    contender{"hungry", with<true, false, false, false, false, false>},
    contender{"hungry+recall", with<true, true, false, false, false, false>},
    contender{"hungry+recall+outboxes", with<true, true, true, false, false, false>},
    contender{"hungry+recall+outboxes+mail", with<true, true, true, true, false, false>},
    contender{"recall only", with<false, true, true, true, false, false>},
    contender{"all but give_back", with<true, true, true, true, false, true, true>},
    contender{"all but no_room", with<true, true, true, true, true, false, true>},
    contender{"all but awake_first", with<true, true, true, true, true, true>},
    contender{"all", with<true, true, true, true, true, true, true>},
    contender{"all + past the gate", with<true, true, true, true, true, true, true, true>},
};

// ---- workloads ----------------------------------------------------------------------------------------------------------

workload open_loop(std::string name, double mean_run, std::uint64_t tokens, double load,
                   std::function<token_spec(random_numbers&)> make) {
    workload w;
    w.name = std::move(name);
    w.make = std::move(make);
    w.mean_run = mean_run;
    w.tokens = tokens;
    w.load = load;
    return w;
}

token_spec running(double run) {
    token_spec spec;
    spec.run = static_cast<time_ns>(run);
    return spec;
}

workload constant(std::uint64_t tokens, double load, double run = 10'000) {
    return open_loop("constant", run, tokens, load,
                     [run](random_numbers&) { return running(run); });
}

workload exponential(std::uint64_t tokens, double load) {
    return open_loop("exponential", 10'000, tokens, load,
                     [](random_numbers& random) { return running(random.exponential(10'000)); });
}

workload mixed(std::uint64_t tokens, double load) {
    return open_loop("mixed", (100'000 + 20'000 + 5'000) / 3.0, tokens, load,
                     [](random_numbers& random) {
                         constexpr std::array each{weight::heavy, weight::medium, weight::light};
                         constexpr std::array run{100'000, 20'000, 5'000};
                         const auto which = static_cast<std::size_t>(random.below(3));
                         token_spec spec = running(run[which]);
                         spec.weight = each[which];
                         spec.operation = static_cast<std::uint8_t>(which);
                         return spec;
                     });
}

workload bimodal(std::uint64_t tokens, double load) {
    const double mean = 0.989 * 20'000 + 0.01 * 1e6 + 0.001 * 300e6;
    return open_loop("bimodal", mean, tokens, load, [](random_numbers& random) {
        const std::uint64_t which = random.below(1000);
        return running(which == 0 ? 300e6 : which <= 10 ? 1e6 : 20'000);
    });
}

workload pareto(std::uint64_t tokens, double load) {
    // Alpha 1.2 on 2 µs … 100 ms.
    const double alpha = 1.2, least = 2'000, most = 100e6;
    const double mean = std::pow(least, alpha) / (1 - std::pow(least / most, alpha)) * alpha /
                        (alpha - 1) *
                        (1 / std::pow(least, alpha - 1) - 1 / std::pow(most, alpha - 1));
    return open_loop("pareto", mean, tokens, load, [=](random_numbers& random) {
        return running(random.pareto(alpha, least, most));
    });
}

workload waves(std::vector<std::uint32_t> sizes, double run = 10'000) {
    workload w;
    w.name = "waves";
    w.make = [run](random_numbers&) { return running(run); };
    w.waves = std::move(sizes);
    w.pause = 200'000;  // the cores sleep by then
    return w;
}

/// Tokens that make 16 … 70 children of 20 µs and then compute 200 ms, one after the other.
workload fan_out(std::uint32_t roots, time_ns gap, std::uint32_t children = 0) {
    workload w;
    w.name = gap == 0 ? "fan_out" : "fan_out_slow";
    w.make = [gap, children](random_numbers& random) {
        token_spec spec = running(200e6);
        spec.measured = false;
        spec.children =
            children != 0 ? children : 16 + static_cast<std::uint32_t>(random.below(55));
        spec.child_gap = gap;
        spec.child_run = 20'000;
        return spec;
    };
    w.waves.assign(roots, 1);
    w.pause = 1'000'000;
    return w;
}

/// Roots that make 64 children of a microsecond from inside, with data of their maker's, and end.
workload small_children(std::uint64_t roots, double load) {
    return open_loop("small_children", 65'000, roots, load, [](random_numbers&) {
        token_spec spec = running(1'000);
        spec.measured = false;
        spec.children = 64;
        spec.child_run = 1'000;
        return spec;
    });
}

/// As many chains as asked for at once, all of one length or of Pareto lengths; a step of 1 µs takes `moved` more elsewhere.
workload chains(std::uint32_t count, std::uint32_t steps, bool alike, time_ns moved) {
    workload w;
    w.name = alike ? "chains" : "chains_uneven";
    w.make = [=](random_numbers& random) {
        token_spec spec = running(1'000);
        spec.moved = moved;
        spec.more_steps =
            alike ? steps
                  : static_cast<std::uint32_t>(random.pareto(1.2, steps / 4.0, steps * 64.0));
        return spec;
    };
    w.waves.assign(4, count);
    w.pause = 200'000;
    return w;
}

/// Half of the load are tokens of a millisecond; those that count make one of 20 µs wait behind them or not.
workload behind_long(std::uint64_t tokens, double load) {
    return open_loop("behind_long", 0.1 * 1e6 + 0.9 * 20'000, tokens, load,
                     [](random_numbers& random) {
                         token_spec spec = running(random.below(10) == 0 ? 1e6 : 20'000);
                         spec.operation = spec.run == 20'000 ? 0 : 1;
                         spec.measured = spec.operation == 0;
                         return spec;
                     });
}

// ---- figures ------------------------------------------------------------------------------------------------------------

class figures {
public:
    figures(costs price, std::uint64_t seed, std::string_view only, unsigned only_cores)
        : price_(price), seed_(seed), only_(only), only_cores_(only_cores) {
        std::printf(
            "study,workload,parameter,cores,load,scheduler,tokens,elapsed_ms,throughput,efficiency,"
            "p50_us,p99_us,p999_"
            "us,"
            "max_us,imbalance,messages,wakes,locks,moved,barriers,behind_us\n");
    }

    void row(const char* study, const workload& work, double parameter, unsigned cores,
             const contender& who) {
        if ((!only_.empty() && only_ != study) || (only_cores_ != 0 && only_cores_ != cores))
            return;
        const results r = who.make(price_, cores, work, seed_)->run();
        const double n = static_cast<double>(std::max<std::uint64_t>(r.tokens, 1));
        std::vector<time_ns> waves = r.waves;
        std::printf(
            "%s,%s,%g,%u,%g,%s,%llu,%.3f,%.0f,%.4f,%.3f,%.3f,%.3f,%.3f,%.4f,%.4f,%.4f,%.4f,%.4f,%."
            "5f,%.1f\n",
            study, work.name.c_str(), parameter, cores, work.load, who.name,
            static_cast<unsigned long long>(r.tokens), static_cast<double>(r.elapsed) / 1e6,
            r.throughput, r.efficiency, r.p50 / 1e3, r.p99 / 1e3, r.p999 / 1e3, r.longest / 1e3,
            r.imbalance, static_cast<double>(r.messages) / n, static_cast<double>(r.wakes) / n,
            static_cast<double>(r.locks) / n, static_cast<double>(r.moved) / n,
            static_cast<double>(r.barriers) / n, static_cast<double>(r.behind) / 1e3);
        std::fflush(stdout);
        if (r.stuck || r.run_twice != 0 || !r.counts_agree) {
            std::fprintf(stderr,
                         "%s, %s, %u cores, %s: stuck, tokens ran twice or counts disagree\n",
                         study, work.name.c_str(), cores, who.name);
            failed_ = true;
        }
    }

    [[nodiscard]] bool failed() const { return failed_; }

private:
    costs price_;
    std::uint64_t seed_;
    std::string_view only_;
    unsigned only_cores_;
    bool failed_ = false;
};

constexpr std::array<unsigned, 4> sizes{4, 16, 64, 256};

void all_figures(figures& out) {
    for (const unsigned cores : sizes) {
        const std::uint64_t tokens = 30'000 + 500ULL * std::min(cores, 100U);
        for (const double load : {0.5, 0.8, 0.95})
            for (const workload& work :
                 {constant(tokens, load), exponential(tokens, load), mixed(tokens, load),
                  bimodal(tokens, load), pareto(tokens, load)})
                for (const contender& who : everybody) out.row("open_loop", work, load, cores, who);
    }
    for (const unsigned cores : sizes)
        for (std::uint32_t size = 4; size <= 65'536; size *= 4)
            for (const contender& who : everybody)
                out.row("waves",
                        waves(std::vector<std::uint32_t>(size < 1'024    ? 20
                                                         : size < 65'536 ? 4
                                                                         : 1,
                                                         size)),
                        size, cores, who);
    for (const unsigned cores : sizes)
        for (const contender& who : everybody) {
            out.row("fan_out", fan_out(20, 0), 0, cores, who);
            out.row("fan_out", fan_out(20, 300'000), 300'000, cores, who);
            out.row("small_children", small_children(200 + 40ULL * cores, 0.5), 0, cores, who);
            out.row("small_children", small_children(200 + 40ULL * cores, 0.9), 0, cores, who);
        }
    for (const unsigned cores : sizes)
        for (const double run : {100., 300., 1'000., 3'000., 10'000., 30'000., 100'000.})
            for (const contender& who : everybody)
                out.row("grain", constant(40'000 + 500ULL * cores, 1.5, run), run, cores, who);
    for (const unsigned cores : sizes)
        for (const contender& who : everybody) {
            for (const time_ns moved : {0, 300, 1'000, 3'000, 10'000})
                out.row("chains", chains(4 * cores, 200, true, moved), static_cast<double>(moved),
                        cores, who);
            out.row("chains", chains(4 * cores, 200, false, 1'000), 1'000, cores, who);
        }
    for (const unsigned cores : sizes)
        for (const contender& who : parts) {
            const std::uint64_t tokens = 30'000 + 500ULL * std::min(cores, 100U);
            out.row("parts", bimodal(tokens, 0.5), 0, cores, who);
            out.row("parts", bimodal(tokens, 0.8), 0, cores, who);
            out.row("parts", behind_long(tokens, 0.6), 0, cores, who);
            out.row("parts", fan_out(20, 0), 0, cores, who);
            out.row("parts", fan_out(20, 300'000), 0, cores, who);
            out.row("parts", constant(tokens, 0.8), 0, cores, who);
            out.row("parts", constant(tokens, 0.95), 0, cores, who);
            out.row("parts", pareto(tokens, 0.8), 0, cores, who);
            out.row("parts", small_children(200 + 40ULL * cores, 0.9), 0, cores, who);
            out.row("parts", waves(std::vector<std::uint32_t>(20, 256)), 256, cores, who);
        }
}

// ---- what must hold -----------------------------------------------------------------------------------------------------

bool holds(const workload& work, unsigned cores, const contender& who, std::uint64_t seed,
           bool bounded) {
    const results r = who.make(costs{}, cores, work, seed)->run();
    std::uint64_t made = work.waves.empty() ? r.tokens : 0;
    for (const std::uint32_t each : work.waves) made += each;
    const bool once = !r.stuck && r.run_twice == 0 && r.counts_agree && r.tokens >= made;
    const bool in_time = !bounded || r.behind_1ms == 0;
    if (!once || !in_time)
        std::printf(
            "FAILED: %s, %u cores, load %g, %s, seed %llu: %llu tokens, %llu ran twice, stuck: %d, "
            "counts agree: %d, "
            "longest behind "
            "a run %.0f us, %llu audits over 1 ms\n",
            work.name.c_str(), cores, work.load, who.name, static_cast<unsigned long long>(seed),
            static_cast<unsigned long long>(r.tokens), static_cast<unsigned long long>(r.run_twice),
            r.stuck, r.counts_agree, static_cast<double>(r.behind) / 1e3,
            static_cast<unsigned long long>(r.behind_1ms));
    return once && in_time;
}

int check(std::uint64_t seed) {
    std::setvbuf(stdout, nullptr, _IOLBF, 0);
    std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
    bool all = true;
    unsigned runs = 0;
    for (const unsigned cores : {1U, 2U, 3U, 4U, 16U, 64U})
        for (const workload& work :
             {constant(5'000, 0.9), mixed(5'000, 0.7), exponential(5'000, 0.95),
              bimodal(8'000, 0.5), bimodal(8'000, 0.8), pareto(8'000, 0.6), behind_long(5'000, 0.6),
              waves({4, 16, 1, 256, 4'096}), fan_out(5, 0), fan_out(5, 300'000),
              small_children(100, 0.9), chains(4 * cores, 50, false, 1'000)})
            for (const contender& who : everybody) {
                ++runs;
                all &=
                    holds(work, cores, who, seed, who.name == now.name || who.name == in_turn.name);
            }
    // The bound can be broken: without recall something waits. Otherwise the audit sees nothing, and proves nothing.
    const results without = before.make(costs{}, 4, fan_out(5, 0), seed)->run();
    if (without.behind_1ms == 0) {
        std::printf("FAILED: the audit finds nothing wrong with the design before\n");
        all = false;
    }
    std::printf("%u runs: %s\n", runs, all ? "ok" : "FAILED");
    return all ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
    costs price;
    std::uint64_t seed = 9;
    std::string_view only;
    unsigned only_cores = 0;
    bool checks = false;
    for (int i = 1; i < argc; ++i) {
        const std::string_view option = argv[i];
        if (option == "--check") {
            checks = true;
        } else if (i + 1 < argc && option == "--seed") {
            seed = std::strtoull(argv[++i], nullptr, 10);
        } else if (i + 1 < argc && option == "--only") {
            only = argv[++i];
        } else if (i + 1 < argc && option == "--cores") {
            only_cores = static_cast<unsigned>(std::strtoul(argv[++i], nullptr, 10));
        } else if (i + 1 < argc && option == "--interrupted") {
            price.interrupted = std::strtoull(argv[++i], nullptr, 10);
        } else if (option.substr(0, 12) !=
                   "--benchmark_") {  // those are for Google Benchmark's programs
            std::fprintf(
                stderr,
                "usage: %s [--check] [--seed N] [--only STUDY] [--cores N] [--interrupted NS]\n",
                argv[0]);
            return 2;
        }
    }
    if (checks) return check(seed);
    figures out(price, seed, only, only_cores);
    all_figures(out);
    return out.failed() ? 1 : 0;
}
