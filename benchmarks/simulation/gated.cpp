// SPDX-License-Identifier: MIT
#include "gated.hpp"

#include <algorithm>
#include <utility>

namespace simulation {

using tokengate::weight;

namespace {

constexpr std::size_t outbox_limit = 32;
constexpr unsigned starts_a_turn = 64;
constexpr unsigned runs_between = 31;  // of a short operation, without a look at the clock
constexpr std::array every_weight{weight::heavy, weight::medium, weight::light};
constexpr time_ns bound = 1'000'000;

constexpr std::size_t slot_of(weight w) { return static_cast<std::size_t>(w); }

}  // namespace

gated::gated(const costs& price, unsigned cores, const workload& work, std::uint64_t seed,
             features has)
    : machine(price, cores, work, seed), has_(has), loads_({cores, 1}), hungry_(cores) {
    for (unsigned c = 0; c < cores; ++c) cores_.emplace_back(loads_, c, cores);
    for (unsigned p = 0; p < producers; ++p) producers_.emplace_back(loads_, cores + p, cores);
}

// ---- admitting and sending ----------------------------------------------------------------------------------------------

unsigned gated::find_hungry(loop& from, weight w) const {
    if (!has_.hungry || hungry_count_ == 0) return nowhere;
    const unsigned home = from.routes.first_position(w);
    // With awake_first those that still spin come before those that sleep.
    for (const bool asleep_too : {false, true}) {
        if (!asleep_too && !has_.awake_first) continue;
        const auto will_do = [&](unsigned c) {
            return hungry_[c] && (asleep_too || cores_[c].is == phase::spinning);
        };
        for (unsigned i = 0; i < cores - home; ++i) {
            const unsigned c = home + (from.hungry_cursor + i) % (cores - home);
            if (!will_do(c)) continue;
            from.hungry_cursor = c - home + 1;
            return c;
        }
        for (unsigned c = 0; c < home; ++c)
            if (will_do(c)) return c;
    }
    return nowhere;
}

void gated::not_hungry(unsigned core) {
    if (!hungry_[core]) return;
    hungry_[core] = false;
    --hungry_count_;
}

void gated::admit(unsigned from, token_index i, time_ns& now) {
    loop& l = loop_of(from);
    if (from >= cores && std::exchange(l.rests, false)) l.turn_began = now;
    if (at(i).bound_to != nowhere) return send(from, at(i).bound_to, i, now);
    if (has_.round_robin) {
        const unsigned to = (from + l.next_core++) % cores;
        return send(from, to, i, now);
    }
    now += price.route;
    const weight w = at(i).weight;
    queue& staged = l.staged[slot_of(w)];
    const bool others_wait = !staged.empty() || waiting(w) != 0;
    if (!others_wait || has_.past_gate) {
        const unsigned starving = find_hungry(l, w);
        if (starving != nowhere && starving != from) {
            not_hungry(starving);  // fed
            loads_.take(starving, 1);
            push_mail(starving, queue{i}, now);
            return;
        }
    }
    if (!others_wait)
        if (const unsigned to = l.routes.route(w); to != router::no_room)
            return send(from, to, i, now);
    staged.push_back(i);
    if (staged.size() >= outbox_limit) splice(l, w, now);
}

void gated::send(unsigned from, unsigned to, token_index i, time_ns& now) {
    now += price.list_item;
    loop& l = loop_of(from);
    if (to == from) {
        (is_windowed(i) ? cores_[to].shelf : cores_[to].bound).push_back(i);
        return;
    }
    if (l.outbox[to].empty()) l.dirty.push_back(to);
    l.outbox[to].push_back(i);
    // What is bound to a hungry core cannot go elsewhere; it need not wait for company either.
    if (l.outbox[to].size() >= outbox_limit) return flush(l, now);
    if (hungry(to)) {
        not_hungry(to);
        std::erase(l.dirty, to);
        deliver(l, to, now);
    }
}

void gated::deliver(loop& l, unsigned to, time_ns& now) {
    queue chain = std::exchange(l.outbox[to], {});
    l.routes.publish(to);
    if (!chain.empty()) push_mail(to, std::move(chain), now);
}

void gated::push_mail(unsigned to, queue&& chain, time_ns& now) {
    core& c = cores_[to];
    now += price.push;
    ++found.messages;
    c.mailbox.push_back({now + price.seen_after, std::move(chain)});
    if (wake(to, now)) return;
    if (c.is == phase::spinning) schedule(to, now + price.seen_after);
}

bool gated::wake(unsigned to, time_ns& now) {
    core& c = cores_[to];
    if (c.is != phase::parked) return false;
    c.is = phase::waking;
    --idle_count_;
    not_hungry(to);
    ++found.wakes;
    now += price.wake_message;
    schedule(to, now + price.wake);
    return true;
}

void gated::flush(loop& l, time_ns& now) {
    for (const weight w : every_weight) splice(l, w, now);
    const std::vector<unsigned> dirty = std::exchange(l.dirty, {});
    for (const unsigned to : dirty) deliver(l, to, now);
}

void gated::hold_gate(time_ns& now) {
    now = gate_lock_.through(now, price.lock);
    ++found.locks;
}

void gated::splice(loop& l, weight w, time_ns& now) {
    queue& staged = l.staged[slot_of(w)];
    if (staged.empty()) return;
    hold_gate(now);
    now += price.list_item * staged.size();
    queue& gate = gate_[slot_of(w)];
    gate.insert(gate.end(), staged.begin(), staged.end());
    staged.clear();
    gate_has_more(w, now);
}

void gated::gate_has_more(weight w, time_ns& now) {
    // Those that spin see it by themselves, as many as there is something for.
    std::size_t heard = 0;
    for (unsigned i = 0; i < cores && heard < waiting(w); ++i) {
        const unsigned c = (spin_cursor_ + i) % cores;
        if (cores_[c].is != phase::spinning) continue;
        schedule(c, now + price.seen_after);
        spin_cursor_ = c + 1;
        ++heard;
    }
    if (heard >= waiting(w)) return;
    const unsigned home = cores_[0].routes.first_position(w);
    for (unsigned i = 0; i < cores; ++i)
        if (wake((home + i) % cores, now)) return;
}

void gated::producer_rests(unsigned index, time_ns& now) {
    loop& l = loop_of(index);
    now += price.turn;
    flush(l, now);
    l.rests = true;
}

// ---- the turn of a core -------------------------------------------------------------------------------------------------

void gated::take_mail(core& c, time_ns& now) {
    if (c.mailbox.empty()) return;
    const time_ns looked = now;
    for (mail& each : c.mailbox) {
        if (each.seen_from > looked) continue;
        now += price.list_item * each.chain.size();
        for (const token_index i : each.chain) (is_windowed(i) ? c.shelf : c.bound).push_back(i);
    }
    if (std::erase_if(c.mailbox, [looked](const mail& each) { return each.seen_from <= looked; }) !=
        0)
        now += price.receive;
}

bool gated::find_work(unsigned index, bool parking, time_ns& now) {
    core& c = cores_[index];
    if (c.started != 0) loads_.started(index, std::exchange(c.started, 0));
    if (!parking && !work_waits()) return false;
    if (2 * loads_.occupancy(index) > static_cast<int>(c.window)) return false;
    for (unsigned i = 0; i < every_weight.size(); ++i) {
        const unsigned slot = (c.next_class + i) % every_weight.size();
        if (c.routes.may_serve(index, every_weight[slot]) &&
            pull(index, every_weight[slot], now) != 0) {
            c.next_class = slot + 1;
            return true;
        }
    }
    for (const weight w : every_weight)
        if (c.routes.may_help(index, w) && pull(index, w, now) != 0) return true;
    return false;
}

unsigned gated::pull(unsigned index, weight w, time_ns& now) {
    queue& gate = gate_[slot_of(w)];
    if (gate.empty()) return 0;
    core& c = cores_[index];
    hold_gate(now);
    const unsigned count = c.routes.chunk(gate.size(), w, index);
    now += price.list_item * count;
    c.shelf.insert(c.shelf.end(), gate.begin(), gate.begin() + count);
    gate.erase(gate.begin(), gate.begin() + count);
    loads_.take(index, count);
    if (!gate.empty()) gate_has_more(w, now);
    return count;
}

void gated::begin_turn(unsigned index, time_ns& now) {
    core& c = cores_[index];
    now += price.turn;
    c.turn_began = now;
    c.turn_over = false;
    c.starts_in_turn = 0;
    take_mail(c, now);
    find_work(index, false, now);
}

void gated::end_turn(unsigned index, time_ns& now) {
    core& c = cores_[index];
    if (c.starts_in_turn != 0) {
        const time_ns average = std::max<time_ns>((now - c.turn_began) / c.starts_in_turn, 1);
        c.average_run = c.average_run == 0 ? average : (3 * c.average_run + average) / 4;
        if (const unsigned window = tokengate::detail::window_for(c.average_run);
            window != c.window)
            loads_.set_window(index, c.window = window);
        c.starts_allowed = static_cast<unsigned>(
            std::clamp<time_ns>(price.turn_limit / c.average_run, 1, starts_a_turn));
    }
    flush(c, now);
    c.routes.publish(index);
    if (c.started != 0) loads_.started(index, std::exchange(c.started, 0));
    loads_.publish_room(index);
}

void gated::give_back(unsigned index, time_ns& now) {
    core& c = cores_[index];
    if (c.shelf.empty() || hungry_count_ == 0) return;
    c.routes.publish(index);
    loads_.take(index, 0U - static_cast<unsigned>(c.shelf.size()));
    hold_gate(now);
    now += price.list_item * c.shelf.size();
    for (std::size_t left = c.shelf.size(); left > 0; --left) {
        const token_index i = c.shelf.back();
        c.shelf.pop_back();
        gate_[slot_of(at(i).weight)].push_front(i);  // they came first
    }
    for (const weight w : every_weight)
        if (waiting(w) != 0) gate_has_more(w, now);
}

/// Starts what comes next; false if nothing does in this turn.
bool gated::run_next(unsigned index, time_ns& now) {
    core& c = cores_[index];
    if (c.turn_over || c.starts_in_turn >= c.starts_allowed) return false;
    if (c.shelf.empty() && c.bound.empty()) return false;
    const bool from_bound = c.shelf.empty() || (!c.bound.empty() && c.bound_next);
    c.bound_next = !from_bound;
    queue& from = from_bound ? c.bound : c.shelf;
    const token_index next = from.front();
    from.pop_front();
    if (is_windowed(next)) ++c.started;
    ++c.starts_in_turn;
    measured& op = c.operations[at(next).operation];
    c.measures = !op.is_short || op.until_measured == 0;
    if (!c.measures) --op.until_measured;
    if (!op.is_short) {
        if (has_.give_back) give_back(index, now);
        flush(c, now);
        if (has_.no_room) {
            c.in_long_run = true;
            loads_.set_window(index, 0);
        }
    }
    start(index, next, now);
    return true;
}

void gated::run_ended(unsigned index, time_ns& now) {
    core& c = cores_[index];
    if (std::exchange(c.in_long_run, false)) {
        loads_.set_window(index, c.window);
        loads_.publish_room(index);
    }
    now += std::exchange(c.owed, 0);
    if (!c.measures) return;
    measured& op = c.operations[last_operation(index)];
    op.longest = std::max(op.longest - op.longest / 8, last_run(index));
    op.is_short = op.longest < price.old_turn;
    op.until_measured = op.is_short ? runs_between : 0;
    if (now - c.turn_began > price.turn_limit) c.turn_over = true;
}

void gated::step(unsigned index, time_ns now) {
    core& c = cores_[index];
    if (runs(index)) {
        if (!go_on(index, now)) return;
        run_ended(index, now);
        if (run_next(index, now)) return;
        end_turn(index, now);
    } else if (c.is == phase::spinning || c.is == phase::waking) {
        // Mail that this core is about to see: no reason to look elsewhere, or to sleep.
        const bool has_mail =
            std::any_of(c.mailbox.begin(), c.mailbox.end(),
                        [now](const mail& each) { return each.seen_from <= now; });
        if (c.is == phase::spinning && !has_mail && !work_waits()) return idle(index, now);
        if (c.is == phase::spinning) --idle_count_;
        not_hungry(index);
    } else if (c.is == phase::parked) {
        return;
    }
    c.is = phase::running;
    begin_turn(index, now);
    if (run_next(index, now)) return;
    end_turn(index, now);
    idle(index, now);
}

// ---- without work -------------------------------------------------------------------------------------------------------

void gated::idle(unsigned index, time_ns now) {
    core& c = cores_[index];
    if (c.is == phase::running) {
        c.is = phase::spinning;
        c.idle_since = now;
        c.spin_until = now + price.spin;
        ++idle_count_;
    }
    const bool last = now >= c.spin_until;
    if (last) {
        loads_.publish_room(index);
        if (c.started != 0) loads_.started(index, std::exchange(c.started, 0));
    }
    const bool mail_on_its_way = !c.mailbox.empty();
    if (has_.hungry && !hungry_[index] && !mail_on_its_way) {
        hungry_[index] = true;
        ++hungry_count_;
    }
    const bool took = has_.recall && !mail_on_its_way && take_back(index, last, now);
    if (took || (last && work_waits())) {
        find_work(index, true, now);
        if (!c.shelf.empty() || !c.bound.empty()) {
            --idle_count_;
            not_hungry(index);
            c.is = phase::running;
            c.turn_began = now;
            c.turn_over = false;
            c.starts_in_turn = 0;
            run_next(index, now);
            return;
        }
    }
    if (mail_on_its_way) {
        time_ns soonest = c.mailbox.front().seen_from;
        for (const mail& each : c.mailbox) soonest = std::min(soonest, each.seen_from);
        schedule(index, std::max(soonest, now));
    } else if (last) {
        c.is = phase::parked;
    } else {
        schedule(index,
                 has_.recall ? std::min(c.spin_until, now + price.scan_every) : c.spin_until);
    }
}

bool gated::take_back(unsigned index, bool whatever, time_ns& now) {
    core& c = cores_[index];
    const unsigned all = cores + producers;
    now += price.look_at_core * (all - 1);
    for (unsigned i = 0; i < all; ++i) {
        const unsigned v = (c.victim + i) % all;
        if (v == index) continue;
        loop& victim = loop_of(v);
        if (v < cores && cores_[v].is != phase::running) continue;
        if (!whatever && now < victim.turn_began + price.old_turn) continue;
        if (!empty_out(v, index, now)) continue;
        c.victim = v;
        now += price.membarrier;
        ++found.barriers;
        for (core& each : cores_)
            if (each.is == phase::running && &each != &c) each.owed += price.interrupted;
        hold_gate(now);
        for (const weight w : every_weight)
            if (waiting(w) != 0) gate_has_more(w, now);
        return true;
    }
    return false;
}

/// What waits at `v` for the thief goes to it; what waits there for anybody goes to the gate.
bool gated::empty_out(unsigned v, unsigned thief, time_ns now) {
    loop& victim = loop_of(v);
    core& c = cores_[thief];
    bool any = false;
    const auto to_gate = [&](queue& from, unsigned routed_to) {
        if (from.empty()) return;
        queue kept;
        unsigned count = 0;
        for (std::size_t left = from.size(); left > 0; --left) {
            const token_index i = from.back();
            from.pop_back();
            if (!is_windowed(i)) {
                kept.push_front(i);
                continue;
            }
            at(i).stolen = true;
            gate_[slot_of(at(i).weight)].push_front(i);
            ++count;
        }
        from = std::move(kept);
        found.moved += count;
        any = any || count != 0;
        // Not there any more: the position has room for others.
        if (routed_to != nowhere && count != 0) loads_.take(routed_to, 0U - count);
    };
    if (!victim.outbox[thief].empty()) {
        victim.routes.publish(thief);
        for (const token_index i : victim.outbox[thief])
            (is_windowed(i) ? c.shelf : c.bound).push_back(i);
        victim.outbox[thief].clear();
        std::erase(victim.dirty, thief);
        any = true;
    }
    if (has_.recall_outboxes) {
        for (const unsigned to : victim.dirty) {
            victim.routes.publish(to);
            to_gate(victim.outbox[to], to);
        }
        std::erase_if(victim.dirty, [&](unsigned to) { return victim.outbox[to].empty(); });
        for (queue& staged : victim.staged) to_gate(staged, nowhere);
    }
    if (v >= cores) return any;
    core& from = cores_[v];
    if (!from.shelf.empty()) {
        from.routes.publish(v);
        to_gate(from.shelf, v);
    }
    if (!has_.recall_mail || from.mailbox.empty()) return any;
    for (mail& each : from.mailbox)
        if (each.seen_from <= now) to_gate(each.chain, v);
    std::erase_if(from.mailbox, [](const mail& each) { return each.chain.empty(); });
    return any;
}

// ---- what must hold -----------------------------------------------------------------------------------------------------

void gated::audit(time_ns now) {
    if (idle_count_ == 0) return;
    time_ns idle_longest = 0;
    for (const core& c : cores_)
        if (c.is == phase::spinning || c.is == phase::parked)
            idle_longest = std::max(idle_longest, now - c.idle_since);
    time_ns worst = 0;
    const auto look = [&](const queue& at_this) {
        // In the order of their coming: the first unanchored one has waited longest.
        for (const token_index i : at_this) {
            if (at(i).bound_to != nowhere) continue;
            if (now > at(i).made) worst = std::max(worst, std::min(idle_longest, now - at(i).made));
            break;
        }
    };
    for (const queue& gate : gate_) look(gate);
    for (unsigned l = 0; l < cores + producers; ++l) {
        const loop& each = loop_of(l);
        for (const unsigned to : each.dirty) look(each.outbox[to]);
        for (const queue& staged : each.staged) look(staged);
        if (l >= cores || cores_[l].is == phase::waking) continue;
        look(cores_[l].shelf);
        if (has_.round_robin) look(cores_[l].bound);
        for (const mail& m : cores_[l].mailbox) look(m.chain);
    }
    found.behind = std::max(found.behind, worst);
    found.behind_1ms += worst > bound;
}

bool gated::counts_agree() {
    for (unsigned l = 0; l < cores + producers; ++l) {
        const loop& each = loop_of(l);
        if (!each.dirty.empty() || !each.staged[0].empty() || !each.staged[1].empty() ||
            !each.staged[2].empty())
            return false;
    }
    for (unsigned c = 0; c < cores; ++c)
        if (loads_.occupancy(c) != 0 || !cores_[c].shelf.empty() || !cores_[c].mailbox.empty())
            return false;
    return !work_waits();
}

}  // namespace simulation
