// SPDX-License-Identifier: MIT
#pragma once

#include "machine.hpp"

#include "routing/router.hpp"

#include <array>
#include <deque>
#include <memory>
#include <vector>

namespace simulation {

/// What of the hand-over is there. Without all of them: the design before.
struct features {
    bool hungry = false;  ///< a core without work says so; who routes feeds it first, at once
    bool recall = false;  ///< an idle core takes back what waits behind others
    bool recall_outboxes =
        false;  ///< also what lies in others' outboxes for third cores, and staged for the gate
    bool recall_mail = false;  ///< also what lies untaken in others' mailboxes
    bool give_back =
        false;  ///< before a run that may be long, the window goes to the gate if somebody is hungry
    bool no_room = false;      ///< in such a run a core gets nothing
    bool awake_first = false;  ///< of hungry cores, one that spins is fed before one that sleeps
    bool past_gate = false;    ///< a hungry core is fed also while others wait at the gate
    bool round_robin =
        false;  ///< instead of all that: no window, no gate, each token to the next core

    static features all() { return {true, true, true, true, true, true, true, false, false}; }
};

/// TokenGate: event loops, outboxes, mailboxes, windows and the gate are modelled; the load table and the routers are those of
/// runtime/routing/load_table.hpp and router.hpp, one router a loop.
class gated : public machine {
public:
    gated(const costs&, unsigned cores, const workload&, std::uint64_t seed, features);

protected:
    void admit(unsigned loop, token_index, time_ns& now) override;
    void producer_rests(unsigned loop, time_ns& now) override;
    void step(unsigned core, time_ns now) override;
    void audit(time_ns now) override;
    [[nodiscard]] bool counts_agree() override;

private:
    using queue = std::deque<token_index>;
    using load_table = tokengate::detail::load_table;
    using router = tokengate::detail::router;

    enum class phase : std::uint8_t { running, spinning, parked, waking };
    struct mail {
        time_ns seen_from;
        queue chain;
    };
    struct measured {  // an operation on a core
        time_ns longest = 0;
        bool is_short = false;
        unsigned until_measured = 0;
    };
    struct loop {
        loop(load_table& loads, unsigned index, unsigned cores)
            : routes(loads, index), outbox(cores) {}

        router routes;
        std::vector<queue> outbox;  // by destination
        std::vector<unsigned> dirty;
        std::array<queue, 3> staged;  // by weight
        unsigned hungry_cursor = 0;
        unsigned next_core = 0;  // round robin
        time_ns turn_began = 0;
        bool rests = true;  // a producer that has nothing to make
    };
    struct core : loop {
        using loop::loop;

        queue shelf;  // routed and not started
        queue bound;  // anchored
        bool bound_next = false;
        std::vector<mail> mailbox;
        phase is = phase::running;
        time_ns idle_since = 0, spin_until = 0;
        time_ns owed = 0;  // interruptions
        unsigned started = 0, starts_in_turn = 0, starts_allowed = 64;
        unsigned window = tokengate::detail::window_for(0);
        time_ns average_run = 0;
        bool turn_over = false, measures = false, in_long_run = false;
        unsigned next_class = 0, victim = 0;
        std::array<measured, 4> operations;
    };

    loop& loop_of(unsigned index) {
        return index < cores ? static_cast<loop&>(cores_[index]) : producers_[index - cores];
    }
    [[nodiscard]] bool is_windowed(token_index i) {
        return at(i).bound_to == nowhere && !has_.round_robin;
    }
    [[nodiscard]] std::size_t waiting(tokengate::weight w) const {
        return gate_[static_cast<std::size_t>(w)].size();
    }
    [[nodiscard]] bool work_waits() const {
        return !gate_[0].empty() || !gate_[1].empty() || !gate_[2].empty();
    }

    // hungry bits
    [[nodiscard]] unsigned find_hungry(loop&, tokengate::weight) const;
    void not_hungry(unsigned core);
    [[nodiscard]] bool hungry(unsigned core) const { return has_.hungry && hungry_[core]; }

    // sending
    void send(unsigned from, unsigned to, token_index, time_ns& now);
    void deliver(loop&, unsigned to, time_ns& now);
    void push_mail(unsigned to, queue&&, time_ns& now);
    void flush(loop&, time_ns& now);
    void splice(loop&, tokengate::weight, time_ns& now);
    void hold_gate(time_ns& now);
    void gate_has_more(tokengate::weight, time_ns& now);
    bool wake(unsigned core, time_ns& now);

    // the turn
    void take_mail(core&, time_ns& now);
    bool find_work(unsigned core, bool parking, time_ns& now);
    unsigned pull(unsigned core, tokengate::weight, time_ns& now);
    void end_turn(unsigned core, time_ns& now);
    void begin_turn(unsigned core, time_ns& now);
    bool run_next(unsigned core, time_ns& now);
    void run_ended(unsigned core, time_ns& now);
    void give_back(unsigned core, time_ns& now);
    void idle(unsigned core, time_ns now);
    bool take_back(unsigned core, bool whatever, time_ns& now);
    bool empty_out(unsigned victim, unsigned thief, time_ns now);

    const features has_;
    load_table loads_;
    std::deque<core> cores_;
    std::deque<loop> producers_;
    std::array<queue, 3> gate_;
    contended gate_lock_;
    std::vector<bool> hungry_;
    unsigned hungry_count_ = 0, idle_count_ = 0, spin_cursor_ = 0;
};

}  // namespace simulation
