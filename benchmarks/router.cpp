// SPDX-License-Identifier: MIT
#include "routing/router.hpp"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <deque>
#include <random>
#include <vector>

/// What a routing decision costs, and how evenly it spreads, on 4 … 256 cores: N + 1 routers decide
/// at once on mixed weights, without threads; the cores are equally drained. Timed are the decisions alone; publishing,
/// draining and pulling from the class FIFOs happen between them. "Time" is that of a round.

namespace {

using namespace tokengate;
using namespace tokengate::detail;

/// What the loops, the gate and the executors around the routers do, as plain counting.
class machine {
public:
    machine(unsigned cores, unsigned drained)
        : loads_({cores, 1}), drained_(drained), queued_(cores), load_(cores) {
        for (unsigned loop = 0; loop <= cores; ++loop) routers_.emplace_back(loads_, loop);
        for (unsigned p = 0; p < cores; ++p) loads_.set_window(p, window_for(400));
        std::mt19937 random(12);
        constexpr std::array each{weight::heavy, weight::medium, weight::light};
        for (weight& w : mix_) w = each[random() % 3];
        decided_.resize(offered_per_core * cores);
    }

    /// One turn of every loop: decisions only. Returns how many.
    __attribute__((noinline)) std::size_t decide() {
        std::size_t decisions = 0, at = 0;
        for (unsigned loop = 0; loop < routers_.size(); ++loop) {
            router& r = routers_[loop];
            std::size_t end = decided_.size() * (loop + 1) / routers_.size();
            for (; at < end; ++at) {
                weight w = mix_[(at + skew_) % mix_.size()];
                decision& d = decided_[at];
                // Behind others that wait, a token of the class waits, too, and is not routed.
                bool behind = waiting_[static_cast<std::size_t>(w)] != 0;
                decisions += !behind;
                d = {behind ? router::no_room : r.route(w), w};
            }
        }
        return decisions;
    }

    /// Delivers, publishes, drains, pulls.
    void carry_out() {
        skew_ += 1031;
        offered_ += decided_.size();
        for (decision d : decided_)
            if (d.to == router::no_room)
                ++waiting_[static_cast<std::size_t>(d.of)], ++gated_;
            else
                ++queued_[d.to];
        for (router& r : routers_)
            for (unsigned p = 0; p < queued_.size(); ++p) r.publish(p);
        drain();
    }

    /// From here on the load counts.
    void settle() { settled_ = load_; }

    /// Until nothing waits.
    void finish() {
        while (ended_ < offered_) drain();
    }

    [[nodiscard]] bool all_counted() const {
        std::uint64_t ran = 0;
        for (unsigned p = 0; p < load_.size(); ++p) {
            if (loads_.occupancy(p) != 0 || !loads_.has_room(p)) return false;
            ran += load_[p];
        }
        return ran == offered_ && waiting_ == decltype(waiting_){};
    }

    [[nodiscard]] double max_over_mean() const {
        std::uint64_t most = 0, all = 0;
        for (unsigned p = 0; p < load_.size(); ++p) {
            most = std::max(most, load_[p] - settled_[p]);
            all += load_[p] - settled_[p];
        }
        return static_cast<double>(most) * static_cast<double>(load_.size()) /
               static_cast<double>(all);
    }

    [[nodiscard]] double share_gated() const {
        return static_cast<double>(gated_) / static_cast<double>(offered_);
    }

    static constexpr unsigned offered_per_core = 128;  // a round

private:
    struct decision {
        unsigned to;
        weight of;
    };

    void drain() {
        for (unsigned p = 0; p < queued_.size(); ++p) {
            auto begun = static_cast<unsigned>(std::min<std::uint64_t>(queued_[p], drained_));
            queued_[p] -= begun;
            load_[p] += begun;
            ended_ += begun;
            loads_.started(p, begun);
            for (bool more = true; more;) {
                more = false;
                for (weight w : {weight::heavy, weight::medium, weight::light}) more |= pull(p, w);
            }
            loads_.publish_room(p);
        }
    }

    bool pull(unsigned p, weight w) {
        std::size_t& line = waiting_[static_cast<std::size_t>(w)];
        router& own = routers_[p + 1];
        if (line == 0 || loads_.half_free(p) <= 0) return false;
        if (!own.may_serve(p, w) && !own.may_help(p, w)) return false;
        unsigned some = own.chunk(line, w, p);
        loads_.take(p, some);
        line -= some;
        queued_[p] += some;
        return true;
    }

    load_table loads_;
    std::deque<router> routers_;
    unsigned drained_;
    std::vector<std::uint64_t> queued_, load_, settled_;
    std::array<std::size_t, 3> waiting_{};
    std::array<weight, 4096> mix_;
    std::size_t skew_ = 0;
    std::vector<decision> decided_;
    std::uint64_t offered_ = 0, ended_ = 0, gated_ = 0;
};

/// `percent`: what is offered, of what the cores drain.
void route(benchmark::State& state) {
    auto cores = static_cast<unsigned>(state.range(0)),
         percent = static_cast<unsigned>(state.range(1));
    machine m(cores, machine::offered_per_core * 100 / percent);
    for (auto warm_up = state.max_iterations; warm_up > 0; --warm_up) m.decide(), m.carry_out();
    m.settle();
    std::uint64_t decisions = 0;
    std::vector<double> rounds;  // ns a decision
    rounds.reserve(static_cast<std::size_t>(state.max_iterations));
    for (auto _ : state) {
        auto begin = std::chrono::steady_clock::now();
        std::size_t decided = m.decide();
        std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
        state.SetIterationTime(took.count());
        decisions += decided;
        if (decided != 0) rounds.push_back(took.count() * 1e9 / static_cast<double>(decided));
        m.carry_out();
    }
    double max_over_mean = m.max_over_mean();
    m.finish();
    if (!m.all_counted()) state.SkipWithError("tokens were lost or counted twice");
    // Far below saturation each class simply goes round its own range, and the front cores have less to do.
    if (percent >= 96 && max_over_mean > 1.05)
        state.SkipWithError("the load is uneven: max / mean > 1.05");
    state.SetItemsProcessed(static_cast<std::int64_t>(decisions));
    // The median of the rounds: on a shared machine the mean counts other programs.
    std::nth_element(rounds.begin(),
                     rounds.begin() + static_cast<std::ptrdiff_t>(rounds.size() / 2), rounds.end());
    state.counters["ns_per_decision"] = rounds.empty() ? 0 : rounds[rounds.size() / 2];
    state.counters["max_over_mean"] = max_over_mean;
    state.counters["share_gated"] = m.share_gated();
}

// As many tokens on few cores as on many; as many rounds again to settle before.
BENCHMARK(route)
    ->ArgNames({"cores", "load"})
    ->Args({4, 50})
    ->Args({4, 97})
    ->Iterations(8192)
    ->UseManualTime();
BENCHMARK(route)
    ->ArgNames({"cores", "load"})
    ->Args({16, 50})
    ->Args({16, 97})
    ->Iterations(2048)
    ->UseManualTime();
BENCHMARK(route)
    ->ArgNames({"cores", "load"})
    ->Args({64, 50})
    ->Args({64, 97})
    ->Iterations(512)
    ->UseManualTime();
BENCHMARK(route)
    ->ArgNames({"cores", "load"})
    ->Args({256, 50})
    ->Args({256, 97})
    ->Iterations(128)
    ->UseManualTime();

}  // namespace

BENCHMARK_MAIN();
