// SPDX-License-Identifier: MIT
#pragma once

#include "workload.hpp"

#include <algorithm>
#include <cstdint>
#include <queue>
#include <utility>
#include <vector>

/// The simulated machine: virtual time, cores, producers, tokens and what is counted. A scheduler derives from it and says
/// where a token goes when it is made and what a core does next.
///
///     gated model(costs{}, cores, workload, seed, features{});
///     results found = model.run();
///
/// One thread; the same seed gives the same run. A step of a core happens at one moment of virtual time; what it costs
/// moves the core's next step, and what it sends to others becomes visible there by its own delay.

namespace simulation {

struct results {
    std::uint64_t tokens = 0;
    std::uint64_t ended = 0;
    std::uint64_t run_twice = 0;
    time_ns elapsed = 0;
    double throughput = 0;                           ///< tokens a second
    double efficiency = 0;                           ///< useful work ÷ (cores × elapsed)
    double p50 = 0, p99 = 0, p999 = 0, longest = 0;  ///< ns between made and started
    double imbalance = 0;                            ///< longest ÷ mean useful work of a core
    std::uint64_t messages = 0, wakes = 0, locks = 0;
    std::uint64_t moved = 0;     ///< tokens stolen or recalled
    std::uint64_t barriers = 0;  ///< recalls that found something, each with one membarrier
    time_ns behind =
        0;  ///< the longest that an unanchored token waited while a core that may run it was idle
    std::uint64_t behind_1ms =
        0;                       ///< audits (one in 250 µs) that found one waiting so for over 1 ms
    bool counts_agree = true;    ///< the scheduler's own counts are zero at the end
    bool stuck = false;          ///< a wake-up was lost: all sleep, and tokens wait
    std::vector<time_ns> waves;  ///< elapsed, each
};

/// A lock that many want: so many operations fit into each microsecond; who finds one full goes on to the next that is not.
/// Steps run ahead of the event that began them by what they cost, so operations do not come in the order of their times:
/// a lock that is simply free from a moment on would make those wait that came earlier.
class contended {
public:
    /// When an operation that comes at `now` is through.
    time_ns through(time_ns now, time_ns cost) {
        if (cost == 0) return now;
        const time_ns begins =
            first_free(now / slot_ns, static_cast<std::uint32_t>(slot_ns / cost));
        ++slots_[begins % slots_.size()].used;
        return std::max(now, begins * slot_ns) + cost;
    }

private:
    static constexpr time_ns slot_ns = 1'000;
    struct slot {
        time_ns number = ~time_ns{};
        std::uint32_t used = 0;
        time_ns next = 0;  // if full: none before is free
    };

    time_ns first_free(time_ns from, std::uint32_t room) {
        time_ns found = from;
        for (;;) {
            slot& each = slots_[found % slots_.size()];
            if (each.number != found) each = {found, 0, found + 1};
            if (each.used < room) break;
            found = each.next;
        }
        for (time_ns at = from; at < found;)
            at = std::exchange(slots_[at % slots_.size()].next, found);
        return found;
    }

    std::vector<slot> slots_{std::size_t{1} << 17};
};

class machine {
public:
    machine(const costs&, unsigned cores, const workload&, std::uint64_t seed);
    virtual ~machine() = default;
    machine(const machine&) = delete;
    machine& operator=(const machine&) = delete;

    results run();

protected:
    using token_index = std::uint32_t;
    static constexpr token_index no_token = ~0U;
    static constexpr std::uint32_t nowhere = ~0U;

    struct token : token_spec {
        time_ns made = 0;
        std::uint32_t data_at =
            nowhere;  ///< the core that made it, whose cache has what it works on
        std::uint32_t bound_to = nowhere;  ///< the core of its chain
        bool stolen = false;               ///< its queue was another core's
        bool started = false;
    };

    // ---- what a scheduler says ----

    /// The token was made by this loop (a core, or cores + number of a producer) at `now`, which the call moves on.
    virtual void admit(unsigned loop, token_index, time_ns& now) = 0;
    /// The producer made all that it had to make at this time.
    virtual void producer_rests(unsigned loop, time_ns& now) = 0;
    /// What was scheduled for a core.
    virtual void step(unsigned core, time_ns now) = 0;
    /// Four times a millisecond.
    virtual void audit(time_ns) {}
    /// At the end, when every token has ended.
    [[nodiscard]] virtual bool counts_agree() { return true; }

    // ---- what it calls ----

    /// The core's next step; one scheduled before is forgotten.
    void schedule(unsigned core, time_ns at);
    /// The token's body begins; schedules the step in which it goes on or ends.
    void start(unsigned core, token_index, time_ns now);
    [[nodiscard]] bool runs(unsigned core) const { return running_[core].what != no_token; }
    /// In a step of a core that runs something: makes the next child or ends the token. True when it has ended; `now`
    /// moves on.
    bool go_on(unsigned core, time_ns& now);
    /// What the core ran last, for how long.
    [[nodiscard]] time_ns last_run(unsigned core) const { return running_[core].lasted; }
    [[nodiscard]] unsigned last_operation(unsigned core) const { return running_[core].operation; }

    [[nodiscard]] token& at(token_index i) { return tokens_[i]; }

    const costs price;
    const unsigned cores;
    const unsigned producers;
    const workload& work;
    random_numbers chance;
    results found;

private:
    struct event {
        time_ns at;
        std::uint64_t order;
        unsigned who;
        std::uint32_t generation;
        bool operator>(const event& other) const {
            return at != other.at ? at > other.at : order > other.order;
        }
    };
    struct running {
        token_index what = no_token;
        time_ns began = 0;
        time_ns rest = 0;  // of the run, after the last child
        std::uint32_t children = 0;
        time_ns lasted = 0;
        unsigned operation = 0;
    };
    struct producer {
        random_numbers numbers{0};
        std::uint64_t left = 0;
        double due = 0;
        std::uint32_t wave = 0;
    };

    token_index make(token_spec, time_ns made);
    void ended(unsigned core, token_index, time_ns& now);
    void produce(unsigned number, time_ns now);
    void schedule_producer(unsigned number, time_ns at);

    std::priority_queue<event, std::vector<event>, std::greater<>> events_;
    std::uint64_t order_ = 0;
    std::vector<std::uint32_t> generation_;  // of cores, then producers, then the audit
    std::vector<running> running_;
    std::vector<time_ns> busy_;
    std::vector<producer> from_;
    std::vector<token> tokens_;
    std::vector<token_index> free_;
    std::vector<float> waits_;
    std::uint64_t alive_ = 0, to_come_ = 0;
    time_ns wave_began_ = 0, last_end_ = 0;
    double useful_ = 0, between_ = 0;
    bool wave_under_way_ = false;
};

}  // namespace simulation
