// SPDX-License-Identifier: MIT
#include "gate/holds.hpp"

#include "gate/attention.hpp"
#include "gate/selection.hpp"
#include "token/awaiters.hpp"

#include <tokengate/detail/admission.hpp>

#include <algorithm>
#include <utility>

namespace tokengate::detail {

namespace {

/// A token that runs where it is admitted (conducted, a task's, a wrapper token) is part of its
/// spawner, so the gate does not hold it.
bool may_be_held(const token_record& token) noexcept {
    return !(token.flags & in_domain) && token.operation.load()->index >= first_operation;
}

}  // namespace

std::list<gate_holds::rule>::iterator gate_holds::find(const selection& what) {
    return std::ranges::find_if(rules_,
                                [&](const rule& each) { return same_selection(each.what, what); });
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

/// The awaiter of a call with a timeout or retries knows the call by the id of its wrapper token.
/// That token admits a further attempt before it awaits it.
bool selects_or_keeper(const selection& what, const token_record& token,
                       const token_record* spawner) noexcept {
    if (selects(what, token)) return true;
    if (what.of() != selection::kind::one && what.of() != selection::kind::chain) return false;
    const token_record* keeper = keeper_of(token);
    if (!keeper && spawner && spawner->operation.load() == token.operation.load()->keeper)
        keeper = spawner;
    return keeper && selects(what, *keeper);
}

}  // namespace

bool gate_holds::is_to_end(const rule& drained, const token_record& token,
                           const token_record* spawner) noexcept {
    if (!drained.over && drained.before.covers(token.sequence.load()) &&
        selects_or_keeper(drained.what, token, spawner))
        return true;
    for (const token_record* above = spawner ? spawner : awaiter_of(token); above;
         above = awaiter_of(*above))
        if (selects(drained.what, *above) && drained.before.covers(above->sequence.load()))
            return true;
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
    for (rule& each : rules_) {  // any rule may hold a token that this drain applies to
        const auto passes = [&](hook* item) {
            const auto& token = *static_cast<const token_record*>(item);
            // The drain applies to every older token that its own rule holds, also to an attempt
            // that its wrapper token does not await yet.
            return is_to_end(*known, token, nullptr) ||
                   (&each == &*known && now.covers(token.sequence.load()));
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

gate_holds::rule* gate_holds::holder_of(const token_record& token, const token_record* spawner,
                                        coming from) noexcept {
    // Under the mutex, as is the sweep's `withdraw`: either this call sees the stop, or the sweep
    // sees the token.
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

bool gate_holds::would_hold(const token_record& token, const token_record* spawner,
                            coming from) noexcept {
    if (!may_be_held(token)) return false;
    const std::scoped_lock lock(mutex_);
    return holder_of(token, spawner, from) != nullptr;
}

bool gate_holds::hold(token_record& token, const token_record* spawner, coming from) noexcept {
    if (!may_be_held(token)) return false;
    const std::scoped_lock lock(mutex_);
    rule* held_by = holder_of(token, spawner, from);
    if (!held_by) return false;
    // Else the token was taken back.
    if (token.state.load() != token_state::admitted) token.state.store(token_state::waiting);
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
    return std::ranges::any_of(rules_,
                               [&](const rule& each) { return same_selection(each.what, what); });
}

std::size_t gate_holds::held() const {
    const std::scoped_lock lock(mutex_);
    std::size_t all = 0;
    for (const rule& each : rules_) all += each.held;
    return all;
}

}  // namespace tokengate::detail
