// SPDX-License-Identifier: MIT
#pragma once

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

/// Candidates that do the same work in turn, A B A B …, within one benchmark; and what is said of them.
///
///     side_by_side rounds(state, items);
///     for (auto _ : state) {
///         stopwatch watch;
///         ours();
///         rounds.note("ours", watch.lap());       // the first one noted is the subject
///         theirs();
///         rounds.note("theirs", watch.lap());
///     }
///     rounds.report();
///
/// The counters, all medians over the rounds: `ours` and `theirs`, ns an item; `ours_iqr` and `theirs_iqr`, the
/// distance between their quartiles; `ours/theirs`, the ratio within a round, which outlives a change of the machine's
/// mood between rounds. The benchmark uses manual time: what it shows is the subject's.

class stopwatch {
public:
    /// Seconds since it was made, or since the last lap.
    double lap() noexcept {
        const auto now = std::chrono::steady_clock::now();
        const std::chrono::duration<double> took = now - std::exchange(began_, now);
        return took.count();
    }

private:
    std::chrono::steady_clock::time_point began_ = std::chrono::steady_clock::now();
};

class side_by_side {
public:
    side_by_side(benchmark::State& state, double items_per_round)
        : state_(state), items_(items_per_round) {}

    void note(const std::string& name, double seconds) {
        const auto found = std::find_if(candidates_.begin(), candidates_.end(),
                                        [&](const auto& c) { return c.name == name; });
        candidate& noted =
            found != candidates_.end() ? *found : candidates_.emplace_back(candidate{name, {}});
        noted.ns.push_back(seconds * 1e9 / items_);
        if (&noted == &candidates_.front()) state_.SetIterationTime(seconds);
    }

    /// A ratio is given only for those that were noted in every round, as the subject is.
    void report() {
        if (candidates_.empty()) return;
        const candidate& subject = candidates_.front();
        for (const candidate& each : candidates_) {
            state_.counters[each.name] = quantile(each.ns, 0.5);
            state_.counters[each.name + "_iqr"] = quantile(each.ns, 0.75) - quantile(each.ns, 0.25);
            if (&each == &subject || each.ns.size() != subject.ns.size() || is_part(each)) continue;
            std::vector<double> ratios;
            for (std::size_t i = 0; i < each.ns.size(); ++i)
                ratios.push_back(subject.ns[i] / each.ns[i]);
            state_.counters[subject.name + "/" + each.name] = quantile(std::move(ratios), 0.5);
        }
        state_.SetItemsProcessed(static_cast<std::int64_t>(items_) *
                                 static_cast<std::int64_t>(subject.ns.size()));
    }

private:
    struct candidate {
        std::string name;
        std::vector<double> ns;
    };

    /// `ours.make` is a part of `ours`, no rival.
    [[nodiscard]] bool is_part(const candidate& of) const {
        return of.name.find('.') != std::string::npos;
    }

    static double quantile(std::vector<double> of, double q) {
        const auto at =
            of.begin() + static_cast<std::ptrdiff_t>(q * static_cast<double>(of.size() - 1) + 0.5);
        std::nth_element(of.begin(), at, of.end());
        return *at;
    }

    benchmark::State& state_;
    double items_;
    std::vector<candidate> candidates_;
};
