// SPDX-License-Identifier: MIT
#include "gate/gate_rules.hpp"

#include "gate/attention.hpp"
#include "token/awaiters.hpp"
#include "token/operations.hpp"

#include <tokengate/detail/admission.hpp>
#include <tokengate/detail/domain.hpp>
#include <tokengate/error.hpp>

#include <algorithm>
#include <unordered_set>
#include <utility>

namespace tokengate::detail {

namespace {

bool is_users(const token_record& token) noexcept { return token.operation.load()->index != own_operation; }

/// What runs where it is admitted is not held: it is part of whoever spawned it.
bool may_be_held(const token_record& token) noexcept {
    return !(token.flags & in_domain) && token.operation.load()->index >= first_operation;
}

}  // namespace

bool selects(const selection& what, const token_record& token) noexcept {
    switch (what.of()) {
        case selection::kind::all: return is_users(token);
        case selection::kind::operation: return is_users(token) && what.operation() == token.operation.load()->name;
        case selection::kind::one:
        case selection::kind::chain: return is_users(token) && token.sequence.load() == what.id().sequence;
    }
    return false;
}

bool in_chain(const token_record& token, std::uint64_t lead_sequence, bool on_its_thread) noexcept {
    if (!(token.flags & in_domain)) return false;
    for (const auto* each = static_cast<const domain*>(token.anchor); each;
         each = on_its_thread ? each->outer : nullptr)
        if (each->lead_sequence.load() == lead_sequence || each->call_sequence.load() == lead_sequence) return true;
    return false;
}

bool means(const selection& what, const token_info& info) noexcept {
    switch (what.of()) {
        case selection::kind::all: return true;
        case selection::kind::operation: return info.id.operation == what.operation();
        case selection::kind::one: return info.id.sequence == what.id().sequence;
        case selection::kind::chain:
            return info.id.sequence == what.id().sequence || info.domain.sequence == what.id().sequence;
    }
    return false;
}

bool same_selection(const selection& a, const selection& b) noexcept {
    if (a.of() != b.of()) return false;
    switch (a.of()) {
        case selection::kind::all: return true;
        case selection::kind::operation: return a.operation() == b.operation();
        default: return a.id().sequence == b.id().sequence;
    }
}

selection settled(const selection& what) {
    if (what.of() != selection::kind::operation) {
        if (what.of() != selection::kind::all && what.id().sequence == 0 && what.id().operation.empty())
            throw configuration_error("configuration_error: gate: this token_id names no token");
        return what;
    }
    const char* name = operation_name_of(what.operation());
    if (!name)
        throw configuration_error("configuration_error: gate: no operation is named \"" +
                                  std::string(what.operation()) + "\": the name is the one in its operation_options");
    return {name};
}

// ---- holds --------------------------------------------------------------------------------------------------------------

std::list<gate_holds::rule>::iterator gate_holds::find(const selection& what) {
    return std::ranges::find_if(rules_, [&](const rule& each) { return same_selection(each.what, what); });
}

void gate_holds::free(rule& from, hook_queue& freed) noexcept {
    for (hook_queue* queue : {&from.older, &from.newer}) freed.append(*queue);
    from.held = 0;
}

bool gate_holds::free_all(hook_queue& freed) noexcept {
    for (rule& each : rules_) free(each, freed);
    return !std::exchange(rules_, {}).empty();
}

void gate_holds::pause(const selection& what) {
    const std::scoped_lock lock(mutex_);
    if (sealed_) return;
    if (const auto known = find(what); known != rules_.end()) {
        known->draining = known->over = false;
        known->before = {};
        return;
    }
    rules_.push_back({.what = what});
}

bool gate_holds::resume(const selection& what, hook_queue& freed) {
    const std::scoped_lock lock(mutex_);
    const auto known = find(what);
    if (known == rules_.end()) return false;
    free(*known, freed);
    rules_.erase(known);
    return true;
}

void gate_holds::seal(hook_queue& freed) {
    const std::scoped_lock lock(mutex_);
    sealed_ = true;
    free_all(freed);
}

bool gate_holds::lift_all(hook_queue& freed) {
    const std::scoped_lock lock(mutex_);
    return free_all(freed);
}

namespace {

/// Who awaits a call with a time limit or with retries knows it by the id of its keeper, which admits a further attempt
/// before it awaits it.
bool selects_or_keeper(const selection& what, const token_record& token, const token_record* spawner) noexcept {
    if (selects(what, token)) return true;
    if (what.of() != selection::kind::one && what.of() != selection::kind::chain) return false;
    const token_record* keeper = keeper_of(token);
    if (!keeper && spawner && spawner->operation.load() == token.operation.load()->keeper) keeper = spawner;
    return keeper && selects(what, *keeper);
}

}  // namespace

bool gate_holds::is_to_end(const rule& drained, const token_record& token, const token_record* spawner) noexcept {
    if (!drained.over && drained.before.covers(token.sequence.load()) &&
        selects_or_keeper(drained.what, token, spawner))
        return true;
    for (const token_record* above = spawner ? spawner : awaiter_of(token); above; above = awaiter_of(*above))
        if (selects(drained.what, *above) && drained.before.covers(above->sequence.load())) return true;
    return false;
}

void gate_holds::drain(const selection& what, const sequence_marks& now, hook_queue& freed) {
    const std::scoped_lock lock(mutex_);
    if (sealed_) return;
    auto known = find(what);
    if (known == rules_.end()) known = rules_.insert(rules_.end(), rule{.what = what});
    known->draining = true;
    known->over = false;
    known->before = now;
    for (rule& each : rules_) {  // whoever holds one of them
        const auto passes = [&](hook* item) {
            const auto& token = *static_cast<const token_record*>(item);
            // What it holds itself it means, also an attempt whose keeper is about to await it.
            return is_to_end(*known, token, nullptr) || (&each == &*known && now.covers(token.sequence.load()));
        };
        each.held -= each.older.split(passes, freed);
        each.held -= each.newer.split(passes, freed);
        each.older.append(each.newer);
    }
}

void gate_holds::end_drain(const selection& what, const sequence_marks& then) {
    const std::scoped_lock lock(mutex_);
    const auto known = find(what);
    if (known != rules_.end() && known->draining && known->before == then) known->over = true;
}

gate_holds::rule* gate_holds::holder_of(const token_record& token, const token_record* spawner, coming from) noexcept {
    // Under the mutex, as is the sweep's `withdraw`: either this sees the stop, or the sweep sees the token.
    const bool all_stop = at_start_.load(std::memory_order_relaxed) & stopping_all;
    if (token.stop_requested() || (all_stop && !(token.flags & exempt))) return nullptr;
    rule* held_by = nullptr;
    for (rule& each : rules_) {
        if (!selects_or_keeper(each.what, token, spawner)) continue;
        if (each.draining) {
            if (from == coming::from_a_queue) continue;
            if (is_to_end(each, token, spawner)) return nullptr;
        }
        if (!held_by) held_by = &each;
    }
    return held_by;
}

bool gate_holds::would_hold(const token_record& token, const token_record* spawner, coming from) noexcept {
    if (!may_be_held(token)) return false;
    const std::scoped_lock lock(mutex_);
    return holder_of(token, spawner, from) != nullptr;
}

bool gate_holds::hold(token_record& token, const token_record* spawner, coming from) noexcept {
    if (!may_be_held(token)) return false;
    const std::scoped_lock lock(mutex_);
    rule* held_by = holder_of(token, spawner, from);
    if (!held_by) return false;
    if (token.state.load() != token_state::admitted) token.state.store(token_state::waiting);  // else it was taken back
    (from == coming::newly ? held_by->newer : held_by->older).push(&token);
    ++held_by->held;
    return true;
}

hook* gate_holds::take_oldest() noexcept {
    const std::scoped_lock lock(mutex_);
    for (rule& each : rules_)
        for (hook_queue* queue : {&each.older, &each.newer})
            if (!queue->empty()) {
                --each.held;
                return queue->pop();
            }
    return nullptr;
}

bool gate_holds::any() const {
    const std::scoped_lock lock(mutex_);
    return !rules_.empty();
}

bool gate_holds::paused(const selection& what) const {
    const std::scoped_lock lock(mutex_);
    return std::ranges::any_of(rules_, [&](const rule& each) { return same_selection(each.what, what); });
}

std::size_t gate_holds::held() const {
    const std::scoped_lock lock(mutex_);
    std::size_t all = 0;
    for (const rule& each : rules_) all += each.held;
    return all;
}

// ---- kills --------------------------------------------------------------------------------------------------------------

void gate_kills::add(const selection& what, const sequence_marks& before, reason why) {
    const std::scoped_lock lock(mutex_);
    const std::uint64_t number = newest_.load(std::memory_order_relaxed) + 1;
    if (what.of() == selection::kind::one) {
        singles_.insert_or_assign(what.id().sequence, single{std::move(why), number});
    } else {
        rule added{what, before, std::move(why), number};
        for (const rule& each : rules_)  // of two at once the later may come first
            if (same_selection(each.what, what)) added.before.unite(each.before);
        rules_.push_back(std::move(added));
        std::erase_if(rules_,
                      [&](const rule& each) { return each.number != number && same_selection(each.what, what); });
    }
    newest_.store(number, std::memory_order_release);
}

gate_kills::reason gate_kills::reason_for(const token_record& token, bool on_its_thread) const {
    if (!is_users(token)) return nullptr;
    const std::shared_lock lock(mutex_);
    const std::uint64_t sequence = token.sequence.load();
    if (const auto known = singles_.find(sequence); known != singles_.end()) return known->second.why;
    for (const rule& each : rules_) {
        if (!each.before.covers(sequence)) continue;
        if (selects(each.what, token)) return each.why;
        if (each.what.of() == selection::kind::chain && in_chain(token, each.what.id().sequence, on_its_thread))
            return each.why;
    }
    return nullptr;
}

bool gate_kills::names(const token_record& token) const {
    if (!is_users(token)) return false;
    const std::shared_lock lock(mutex_);
    const std::uint64_t sequence = token.sequence.load();
    return singles_.contains(sequence) || std::ranges::any_of(rules_, [&](const rule& each) {
               return each.before.covers(sequence) && selects(each.what, token);
           });
}

bool gate_kills::any() const {
    const std::shared_lock lock(mutex_);
    return !rules_.empty() || !singles_.empty();
}

bool gate_kills::forget(std::uint64_t up_to, const std::vector<token_info>& waiting) {
    std::unordered_set<std::uint64_t> still_there;
    for (const token_info& info : waiting) still_there.insert(info.id.sequence);
    const std::scoped_lock lock(mutex_);
    std::erase_if(singles_,
                  [&](const auto& each) { return each.second.number <= up_to && !still_there.contains(each.first); });
    std::erase_if(rules_, [&](const rule& each) {
        return each.number <= up_to && std::ranges::none_of(waiting, [&](const token_info& info) {
                   // Which chain contains which is not seen from outside.
                   const bool chained = each.what.of() == selection::kind::chain && !info.domain.operation.empty();
                   return each.before.covers(info.id.sequence) && (chained || means(each.what, info));
               });
    });
    return !rules_.empty() || !singles_.empty();
}

}  // namespace tokengate::detail
