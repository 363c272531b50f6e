// SPDX-License-Identifier: MIT
#include "rivals.hpp"

#include <algorithm>
#include <utility>

namespace simulation {

namespace {

constexpr std::size_t batch = 32;
constexpr unsigned most_from_slot = 3;

/// The one that has waited longest.
unsigned take_first(std::vector<unsigned>& from) {
    const unsigned first = from.front();
    from.erase(from.begin());
    return first;
}

}  // namespace

// ---- one queue ----------------------------------------------------------------------------------------------------------

costs central::without_costs(costs price) {
    price.start_end = price.list_item = price.push = price.receive = price.seen_after = price.lock =
        0;
    price.moving = false;
    price.wake_message = price.wake = price.foreign_data = 0;
    return price;
}

central::central(const costs& price, unsigned cores, const workload& work, std::uint64_t seed,
                 bool ideal)
    : machine(ideal ? without_costs(price) : price, cores, work, seed),
      ideal_(ideal),
      workers_(cores),
      chains_(cores + producers) {}

void central::hold_lock(time_ns& now) {
    now = lock_.through(now, price.lock);
    ++found.locks;
}

void central::fetch_others(time_ns& now) {
    if (!spinning_.empty()) {
        const unsigned one = spinning_.back();
        spinning_.pop_back();
        workers_[one].is = phase::waking;
        schedule(one, now + price.seen_after);
    } else if (!parked_.empty()) {
        const unsigned one = take_first(parked_);
        workers_[one].is = phase::waking;
        ++found.wakes;
        now += price.wake_message;
        schedule(one, now + price.wake);
    }
}

void central::put(std::deque<token_index>& from, time_ns& now) {
    if (from.empty()) return;
    hold_lock(now);
    ++found.messages;
    now += price.list_item * from.size();
    for (const token_index i : from) {
        queue_.push_back(i);
        if (ideal_) fetch_others(now);
    }
    from.clear();
    if (!ideal_) fetch_others(now);
}

void central::admit(unsigned loop, token_index i, time_ns& now) {
    chains_[loop].push_back(i);
    // A running token's children are put where all see them at once: there is no later moment that would do.
    if (ideal_ || loop < cores || chains_[loop].size() >= batch) put(chains_[loop], now);
}

void central::producer_rests(unsigned loop, time_ns& now) { put(chains_[loop], now); }

void central::step(unsigned core, time_ns now) {
    worker& w = workers_[core];
    if (runs(core) && !go_on(core, now)) return;
    if (w.is == phase::spinning && queue_.empty()) {  // its time is over
        std::erase(spinning_, core);
        parked_.push_back(core);
        w.is = phase::parked;
        return;
    }
    if (w.is == phase::spinning) std::erase(spinning_, core);
    w.is = phase::awake;
    if (!queue_.empty()) {
        hold_lock(now);
        const token_index next = queue_.front();
        queue_.pop_front();
        if (!queue_.empty()) fetch_others(now);
        start(core, next, now);
        return;
    }
    w.is = phase::spinning;
    spinning_.push_back(core);
    if (!ideal_) schedule(core, now + price.spin);
}

bool central::counts_agree() { return queue_.empty(); }

// ---- stealing -----------------------------------------------------------------------------------------------------------

stealing::stealing(const costs& price, unsigned cores, const workload& work, std::uint64_t seed)
    : machine(price, cores, work, seed), workers_(cores), chains_(cores + producers) {}

void stealing::hold_lock(time_ns& now) {
    now = lock_.through(now, price.lock);
    ++found.locks;
}

void stealing::news(time_ns& now, bool more) {
    if (searching_ != 0 && !more) {
        // One that pauses between two attempts looks at once.
        for (unsigned c = 0; c < cores; ++c)
            if (workers_[c].is == phase::searching && workers_[c].failed > 8) {
                workers_[c].failed = 8;
                schedule(c, now + price.seen_after);
                return;
            }
        return;
    }
    for (unsigned c = 0; c < cores; ++c) {
        if (workers_[c].is != phase::parked) continue;
        workers_[c].is = phase::waking;
        ++searching_;
        ++found.wakes;
        now += price.wake_message;
        schedule(c, now + price.wake);
        return;
    }
}

void stealing::put(std::deque<token_index>& chain, time_ns& now) {
    if (chain.empty()) return;
    hold_lock(now);
    ++found.messages;
    now += price.list_item * chain.size();
    shared_.insert(shared_.end(), chain.begin(), chain.end());
    chain.clear();
    news(now);
}

void stealing::admit(unsigned loop, token_index i, time_ns& now) {
    if (loop >= cores) {
        chains_[loop].push_back(i);
        if (chains_[loop].size() >= batch) put(chains_[loop], now);
        return;
    }
    worker& w = workers_[loop];
    now += price.deque;
    if (at(i).bound_to == loop && w.from_slot < most_from_slot) {
        std::swap(w.slot, i);
        if (i == no_token) return;
    }
    w.own.push_back(i);
    news(now);
}

void stealing::producer_rests(unsigned loop, time_ns& now) { put(chains_[loop], now); }

bool stealing::take_share(worker& w, time_ns& now) {
    if (shared_.empty()) return false;
    hold_lock(now);
    const std::size_t some = std::min({shared_.size(), shared_.size() / cores + 1, batch});
    w.own.insert(w.own.end(), shared_.begin(), shared_.begin() + static_cast<std::ptrdiff_t>(some));
    shared_.erase(shared_.begin(), shared_.begin() + static_cast<std::ptrdiff_t>(some));
    now += price.list_item * some;
    return true;
}

void stealing::found_work(worker& w, time_ns& now) {
    const bool searched = w.is == phase::searching || w.is == phase::waking;
    w.is = phase::awake;
    w.failed = 0;
    if (!searched) return;
    --searching_;
    // The last who searched finds a successor; so does who leaves something behind.
    if (searching_ == 0 || !shared_.empty() || !w.own.empty()) news(now, true);
}

bool stealing::anything() const {
    return !shared_.empty() || std::any_of(workers_.begin(), workers_.end(),
                                           [](const worker& each) { return !each.own.empty(); });
}

void stealing::step(unsigned core, time_ns now) {
    worker& w = workers_[core];
    if (runs(core) && !go_on(core, now)) return;
    if (w.is == phase::parked) return;
    token_index next = std::exchange(w.slot, no_token);
    if (next != no_token) {
        ++w.from_slot;
    } else {
        w.from_slot = 0;
        if (w.own.empty() && take_share(w, now)) found_work(w, now);
        if (w.own.empty()) return search(core, now);
        next = w.own.front();
        w.own.pop_front();
    }
    start(core, next, now + price.deque);
}

void stealing::search(unsigned core, time_ns now) {
    worker& w = workers_[core];
    if (w.is == phase::awake) {
        w.is = phase::searching;
        ++searching_;
        w.spin_until = now + price.spin;
    } else if (w.is == phase::waking) {
        w.is = phase::searching;
        w.spin_until = now + price.spin;
    }
    if (now >= w.spin_until) {
        now += price.look_at_core * cores;
        if (!anything()) {
            w.is = phase::parked;
            w.failed = 0;
            --searching_;
            return;
        }
        w.spin_until = now + price.spin;
    }
    // One round from a random victim on, a glance at each, an attempt where there is something.
    const auto first = static_cast<unsigned>(chance.below(cores));
    for (unsigned i = 0; i < cores; ++i) {
        const unsigned victim = (first + i) % cores;
        worker& from = workers_[victim];
        now += price.look_at_core;
        if (victim == core || from.own.empty()) continue;
        now += price.steal_least + chance.below(price.steal_most - price.steal_least + 1);
        const token_index next = from.own.front();
        from.own.pop_front();
        at(next).stolen = true;
        ++found.moved;
        found_work(w, now);
        if (!from.own.empty()) news(now, true);
        start(core, next, now);
        return;
    }
    // After 8 rounds without pause it pauses, longer and longer up to 5 µs; news cut the pause short.
    const unsigned pauses = ++w.failed > 8 ? w.failed - 8 : 0;
    schedule(core,
             now + (pauses == 0 ? 0
                                : std::min<time_ns>(time_ns{500} << std::min(pauses, 4U), 5'000)));
}

bool stealing::counts_agree() { return !anything(); }

}  // namespace simulation
