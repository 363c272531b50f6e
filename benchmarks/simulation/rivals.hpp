// SPDX-License-Identifier: MIT
#pragma once

#include "machine.hpp"

#include <deque>
#include <vector>

namespace simulation {

/// One queue for all cores, first in, first out. Without costs: the ideal that nobody can build. With them: a lock that one
/// core holds at a time, and cores that sleep.
class central : public machine {
public:
    central(const costs&, unsigned cores, const workload&, std::uint64_t seed, bool ideal);

    static costs without_costs(costs);

protected:
    void admit(unsigned loop, token_index, time_ns& now) override;
    void producer_rests(unsigned loop, time_ns& now) override;
    void step(unsigned core, time_ns now) override;
    [[nodiscard]] bool counts_agree() override;

private:
    enum class phase : std::uint8_t { awake, spinning, parked, waking };
    struct worker {
        phase is = phase::awake;
        time_ns spin_until = 0;
    };

    void put(std::deque<token_index>& from, time_ns& now);
    void hold_lock(time_ns& now);
    void fetch_others(time_ns& now);

    const bool ideal_;
    std::vector<worker> workers_;
    std::deque<token_index> queue_;
    std::vector<std::deque<token_index>> chains_;  // of producers and cores, up to 32
    std::vector<unsigned> spinning_, parked_;
    contended lock_;
};

/// A deque a core, with thieves, as tokio and Go have them: tokens from outside come through a shared queue, from which an
/// idle core takes its share; a step of a chain goes into the maker's slot, three in a row at most; thieves look at random
/// victims, take the oldest token, and whoever finds something as the last who searches wakes another.
class stealing : public machine {
public:
    stealing(const costs&, unsigned cores, const workload&, std::uint64_t seed);

protected:
    void admit(unsigned loop, token_index, time_ns& now) override;
    void producer_rests(unsigned loop, time_ns& now) override;
    void step(unsigned core, time_ns now) override;
    [[nodiscard]] bool counts_agree() override;

private:
    enum class phase : std::uint8_t { awake, searching, parked, waking };
    struct worker {
        std::deque<token_index> own;
        token_index slot = no_token;
        unsigned from_slot = 0;  // in a row
        phase is = phase::awake;
        time_ns spin_until = 0;
        unsigned failed = 0;
    };

    void hold_lock(time_ns& now);
    void put(std::deque<token_index>& chain, time_ns& now);
    void news(time_ns& now, bool more = false);  // more: than those who search will take
    bool take_share(worker&, time_ns& now);
    void found_work(worker&, time_ns& now);
    void search(unsigned core, time_ns now);
    [[nodiscard]] bool anything() const;

    std::vector<worker> workers_;
    std::deque<token_index> shared_;
    std::vector<std::deque<token_index>> chains_;  // of producers
    contended lock_;
    unsigned searching_ = 0;  // includes those that are being woken
};

}  // namespace simulation
