// SPDX-License-Identifier: MIT
#include "machine.hpp"

#include <algorithm>
#include <numeric>
#include <utility>

namespace simulation {

namespace {

constexpr unsigned cores_a_producer = 16;
constexpr unsigned made_at_once = 16;  // so many, then others have a say
constexpr time_ns audit_every = 250'000;

double quantile(std::vector<float>& of, double part) {
    if (of.empty()) return 0;
    const auto at = static_cast<std::size_t>(part * static_cast<double>(of.size() - 1));
    std::nth_element(of.begin(), of.begin() + static_cast<std::ptrdiff_t>(at), of.end());
    return of[at];
}

}  // namespace

machine::machine(const costs& price, unsigned cores, const workload& work, std::uint64_t seed)
    : price(price),
      cores(cores),
      producers(work.waves.empty() ? (cores + cores_a_producer - 1) / cores_a_producer : 1),
      work(work),
      chance(seed ^ 0xabcdef),
      generation_(cores + producers + 1),
      running_(cores),
      busy_(cores),
      from_(producers) {
    for (unsigned p = 0; p < producers; ++p) {
        producer& each = from_[p];
        each.numbers = random_numbers(seed + p);
        each.left = work.tokens / producers;
        to_come_ += work.waves.empty() ? each.left : 0;
    }
    if (work.waves.empty()) between_ = work.mean_run * producers / (cores * work.load);
    to_come_ = std::accumulate(work.waves.begin(), work.waves.end(), to_come_);
}

results machine::run() {
    const unsigned audits = cores + producers;
    for (unsigned p = 0; p < producers; ++p) {
        if (work.waves.empty())
            from_[p].due = from_[p].numbers.exponential(between_);
        else
            from_[p].left = work.waves[0];
        schedule_producer(p, work.waves.empty() ? static_cast<time_ns>(from_[p].due) : work.pause);
    }
    for (unsigned c = 0; c < cores; ++c) schedule(c, 0);
    events_.push({audit_every, order_++, audits, 0});
    while (alive_ + to_come_ != 0) {
        const event next = events_.top();
        events_.pop();
        if (next.who == audits) {
            if (events_.empty()) {  // nobody will ever do anything again, and something waits
                found.stuck = true;
                return std::move(found);
            }
            audit(next.at);
            events_.push({next.at + audit_every, order_++, audits, 0});
        } else if (next.generation == generation_[next.who]) {
            next.who < cores ? step(next.who, next.at) : produce(next.who - cores, next.at);
        }
    }
    found.tokens = found.ended;
    found.elapsed = last_end_;
    if (!found.waves.empty())
        found.elapsed = std::accumulate(found.waves.begin(), found.waves.end(), time_ns{});
    const double elapsed = static_cast<double>(std::max<time_ns>(found.elapsed, 1));
    found.throughput = static_cast<double>(found.ended) * 1e9 / elapsed;
    found.efficiency = useful_ / (elapsed * cores);
    found.p50 = quantile(waits_, 0.5);
    found.p99 = quantile(waits_, 0.99);
    found.p999 = quantile(waits_, 0.999);
    found.longest = quantile(waits_, 1);
    const auto most = static_cast<double>(*std::max_element(busy_.begin(), busy_.end()));
    const auto all = static_cast<double>(std::accumulate(busy_.begin(), busy_.end(), time_ns{}));
    found.imbalance = all == 0 ? 0 : most * cores / all;
    // What is under way when the last token ends (a core on its way to sleep) is let happen before the counts are compared.
    for (const time_ns until = last_end_ + 10'000'000;
         !events_.empty() && events_.top().at < until;) {
        const event next = events_.top();
        events_.pop();
        if (next.who < cores && next.generation == generation_[next.who]) step(next.who, next.at);
    }
    found.counts_agree = counts_agree();
    return std::move(found);
}

void machine::schedule(unsigned core, time_ns when) {
    events_.push({when, order_++, core, ++generation_[core]});
}

void machine::schedule_producer(unsigned number, time_ns when) { schedule(cores + number, when); }

machine::token_index machine::make(token_spec spec, time_ns made) {
    token_index i;
    if (free_.empty()) {
        i = static_cast<token_index>(tokens_.size());
        tokens_.emplace_back();
    } else {
        i = free_.back();
        free_.pop_back();
        tokens_[i] = {};
    }
    static_cast<token_spec&>(tokens_[i]) = spec;
    tokens_[i].made = made;
    ++alive_;
    return i;
}

void machine::produce(unsigned number, time_ns now) {
    producer& p = from_[number];
    const unsigned loop = cores + number;
    if (!work.waves.empty() && !wave_under_way_) {
        wave_under_way_ = true;
        wave_began_ = now;
    }
    for (unsigned made = 0; made < made_at_once && p.left != 0; ++made) {
        if (work.waves.empty() && static_cast<time_ns>(p.due) > now) break;
        const time_ns due = work.waves.empty() ? static_cast<time_ns>(p.due) : now;
        if (work.waves.empty()) p.due += p.numbers.exponential(between_);
        --p.left;
        --to_come_;
        const token_index i = make(work.make(p.numbers), due);
        now += price.make;
        admit(loop, i, now);
    }
    const bool rests = p.left == 0 || (work.waves.empty() && static_cast<time_ns>(p.due) > now);
    if (rests) producer_rests(loop, now);
    if (p.left != 0)
        schedule_producer(number, rests ? std::max(now, static_cast<time_ns>(p.due)) : now);
}

void machine::start(unsigned core, token_index i, time_ns now) {
    token& t = tokens_[i];
    running& r = running_[core];
    found.run_twice += t.started;
    t.started = true;
    now += price.start_end;
    if (t.measured) waits_.push_back(static_cast<float>(now > t.made ? now - t.made : 0));
    time_ns run = t.run;
    useful_ += static_cast<double>(t.run);
    busy_[core] += t.run;
    if (t.stolen || (t.data_at != nowhere && t.data_at != core)) run += price.foreign_data;
    if (t.data_at != nowhere && t.data_at != core && price.moving) run += t.moved;
    r.what = i;
    r.began = now;
    r.rest = run;
    r.children = t.children;
    schedule(core, r.children != 0 ? now + t.child_gap : now + run);
}

bool machine::go_on(unsigned core, time_ns& now) {
    running& r = running_[core];
    const token_index i = r.what;
    if (r.children != 0) {
        const token parent = tokens_[i];  // by value: making children may move it
        do {
            --r.children;
            token_spec child;
            child.run = parent.child_run;
            child.weight = parent.weight;
            child.operation = static_cast<std::uint8_t>(parent.operation + 1);
            now += price.make;
            const token_index c = make(child, now);
            tokens_[c].data_at = core;
            admit(core, c, now);
        } while (r.children != 0 && parent.child_gap == 0);
        schedule(core, r.children != 0 ? now + parent.child_gap : now + r.rest);
        return false;
    }
    r.lasted = now - r.began;
    r.operation = tokens_[i].operation;
    ended(core, i, now);
    r.what = no_token;
    return true;
}

void machine::ended(unsigned core, token_index i, time_ns& now) {
    const token t = tokens_[i];
    last_end_ = std::max(last_end_, now);
    ++found.ended;
    if (t.more_steps != 0) {
        token_spec next = t;
        --next.more_steps;
        now += price.make;
        const token_index c = make(next, now);
        tokens_[c].data_at = core;
        tokens_[c].bound_to = core;
        admit(core, c, now);
    }
    --alive_;
    free_.push_back(i);
    if (work.waves.empty() || alive_ != 0 || from_[0].left != 0) return;
    found.waves.push_back(now - wave_began_);
    wave_under_way_ = false;
    if (++from_[0].wave < work.waves.size()) {
        from_[0].left = work.waves[from_[0].wave];
        schedule_producer(0, now + work.pause);
    }
}

}  // namespace simulation
