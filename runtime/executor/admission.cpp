// SPDX-License-Identifier: MIT

// The executor's side of requests made at the gate while the runtime runs: tokens are held,
// rejected or killed. A token passes none of this code while no request is in force; see
// shared_state::attention and at_start.

#include "base/what_of.hpp"
#include "executor/executor.hpp"
#include "executor/guard_steps.hpp"
#include "executor/shared.hpp"
#include "executor/steps.hpp"
#include "executor/stop.hpp"
#include "gate/attention.hpp"
#include "token/awaiters.hpp"

#include <tokengate/detail/admission.hpp>
#include <tokengate/detail/promise.hpp>
#include <tokengate/error.hpp>

#include <cstdio>
#include <exception>
#include <string>
#include <utility>

namespace tokengate::detail {

namespace {

/// The exception that `make` returns, or the one that kept it from being made.
template <class Make>
std::exception_ptr made_error(Make make) noexcept {
    try {
        return std::make_exception_ptr(make());
    } catch (...) {
        return std::current_exception();
    }
}

}  // namespace

// ---- admission ---------------------------------------------------------------------------------

bool executor::attend(core_context& core, token_record& token) noexcept {
    const std::uint32_t attention = runtime.attention.load(std::memory_order_relaxed);
    const bool is_watched = (attention & watching) || (token.flags & watched);
    if (is_watched) {
        // It was set when leave_rest listed the token.
        if (token.state.load() == token_state::admitted) token.state.store(token_state::created);
        watch_admission(core, token);
        if (std::exception_ptr why = guard_admission(core, token)) {
            refuse(token, std::move(why));
            return false;
        }
    }
    if (!(attention & holding) ||
        !runtime.holds.would_hold(token, core.current, gate_holds::coming::newly))
        return true;
    // Before `hold`: a held token may be released at once, on another thread.
    if (is_watched) {
        if (!enter_backlog(token)) return false;
        watch_held(core, token);
    }
    return !runtime.holds.hold(token, core.current, gate_holds::coming::newly);
}

void executor::let_in(core_context& core, token_record& token, gate_holds::coming from) noexcept {
    // Else another rule holds the token.
    if (!runtime.holds.hold(token, nullptr, from)) pass_permits(core, token);
}

void executor::route_permitted(core_context& core, token_record& permitted) noexcept {
    for (token_record* token = &permitted; token;) {
        const bool held =
            (runtime.attention.load(std::memory_order_relaxed) & holding) &&
            runtime.holds.would_hold(*token, nullptr, gate_holds::coming::from_a_queue);
        if (!held) {
            route(core, *token);
            return;
        }
        // The permit goes to the next token that waits: a held token keeps no permit.
        token->flags = static_cast<std::uint16_t>(token->flags & ~holds_permit);
        hook* next = runtime.at_gate.release(token->operation.load()->tier);
        let_in(core, *token, gate_holds::coming::from_a_queue);
        token = static_cast<token_record*>(next);
    }
}

unsigned executor::let_pass(core_context& core, hook_queue& taken) noexcept {
    const bool held_too = runtime.attention.load(std::memory_order_relaxed) & holding;
    hook_queue passing;
    unsigned count = 0;
    while (!taken.empty()) {
        auto& token = *static_cast<token_record*>(taken.pop());
        if (held_too &&
            runtime.holds.would_hold(token, nullptr, gate_holds::coming::from_a_queue)) {
            token.flags = static_cast<std::uint16_t>(token.flags & ~windowed);
            if (token.flags & holds_permit) release_permit(core, token);
            let_in(core, token, gate_holds::coming::from_a_queue);
            continue;
        }
        // Else the token had been admitted before, and was taken back.
        if (token.state.load() != token_state::admitted) {
            if (token.flags & watched) leave_gate(token, position_);
            token.state.store(token_state::admitted);
        }
        token.position.store(static_cast<std::uint16_t>(position_));
        passing.push(&token);
        ++count;
    }
    taken = passing;
    return count;
}

// ---- the backlog --------------------------------------------------------------------------------

bool executor::enter_backlog(token_record& token) noexcept {
    // A waiting token has its place. An admitted token was taken back, and needs no place any more.
    const token_state state = token.state.load();
    if (!runtime.places.counts(token) || state == token_state::waiting ||
        state == token_state::admitted)
        return true;
    const backlog_policy policy = runtime.options.backlog.policy;
    while (!runtime.places.take()) {
        if (policy == backlog_policy::wait) {
            runtime.places.take_anyway();
            break;
        }
        if (policy == backlog_policy::shed_oldest &&
            shed_oldest(token.operation.load()->weight_class))
            continue;
        refuse(token, made_error([&] { return runtime.places.is_full(token); }));
        return false;
    }
    token.state.store(token_state::waiting);
    return true;
}

bool executor::shed_oldest(weight w) noexcept {
    for (const weight each : weight_classes)
        if (staged_[static_cast<std::size_t>(each)].count.load() != 0) splice(each);
    hook_queue oldest;
    if (runtime.at_gate.take(w, [](std::size_t) { return 1; }, oldest) == 0)
        for (const weight other : weight_classes)
            if (runtime.at_gate.take(other, [](std::size_t) { return 1; }, oldest) != 0) break;
    if (oldest.empty()) {
        if (hook* held = runtime.holds.take_oldest()) oldest.push(held);
    }
    for (const storage tier : storage_tiers) {
        if (!oldest.empty()) break;
        hook* waiting = runtime.at_gate.take_waiting(tier, [](const hook* each) noexcept {
            // A domain's tokens are not shed: that would cut a chain.
            return !(static_cast<const token_record*>(each)->flags & in_domain);
        });
        if (!waiting) continue;
        auto& token = *static_cast<token_record*>(waiting);
        token.flags = static_cast<std::uint16_t>(token.flags & ~holds_permit);
        oldest.push(waiting);
    }
    if (oldest.empty()) return false;  // the waiting tokens are in transit between queues
    auto& token = *static_cast<token_record*>(oldest.pop());
    refuse(token, made_error([&] {
               return admission_rejected(
                   "admission_rejected: " + token.id().text() +
                   " had waited longest in its queue, and gave its place to a newer one: " +
                   std::to_string(runtime.options.backlog.limit) +
                   " tokens wait at the gate, as many as backlog.limit allows");
           }));
    return true;
}

bool executor::acquire_watched(token_record& token) noexcept {
    const storage tier = token.operation.load()->tier;
    if (runtime.at_gate.try_acquire(tier)) return true;
    token.flags = static_cast<std::uint16_t>(token.flags & ~holds_permit);
    if (!enter_backlog(token)) return false;
    waits(token);
    token.flags |= holds_permit;  // before the gate has the token
    return runtime.at_gate.acquire(tier, &token);
}

void executor::leave_gate(token_record& token, unsigned position) noexcept {
    if (token.state.load() == token_state::waiting && runtime.places.counts(token))
        runtime.places.leave();
    watch_routed(*core_, token, position);
}

// ---- rejecting, killing -------------------------------------------------------------------------

void executor::refuse(token_record& token, std::exception_ptr why) noexcept {
    promise_base::of(token).error = std::move(why);
    token.stop.set_bits(stop_refused);
    if (token.flags & watched) watch_refused(*core_, token);
    token.flags = static_cast<std::uint16_t>(token.flags & ~windowed);
    send_to_end(token);
}

void executor::send_to_end(token_record& token) noexcept {
    send(token.flags & in_domain ? static_cast<domain*>(token.anchor)->position : position_, token);
}

bool executor::may_start(token_record& token) noexcept {
    const std::uint32_t asked = runtime.at_start.load(std::memory_order_relaxed);
    if ((asked & stopping_all) && !(token.flags & exempt)) {
        token.stop.set_bits(stop_asked);
        return false;
    }
    if (!(asked & killing)) return true;
    const auto reason = runtime.kills.reason_for(token, core_->position == token.position.load());
    if (!reason) return true;
    token.stop.set_bits(stop_asked | stop_killed);
    promise_base::of(token).error = made_error([&] { return killed(token.id(), *reason); });
    return false;
}

void executor::post_kill() noexcept {
    // Pairs with the exchange in the hook.
    if (!kill_.under_way.exchange(true, std::memory_order_acq_rel)) loop.post(&kill_);
}

void executor::kill_those_here() noexcept {
    if (!core_) return;  // the thread has left the loop
    const std::uint64_t newest = runtime.kills.newest();
    frame_pool::for_each_slot([this](void* frame, std::size_t) {
        // Acquire, so that the other fields read are this token's. After that, only this thread
        // changes them, since the token executes here.
        auto& token = const_cast<token_record&>(promise_base::record_in(frame));
        if (token.state.load_acquire() != token_state::executing ||
            token.runtime.load() != runtime.slot || token.position.load() != core_->position ||
            (token.stop.load() & stop_killed))
            return;
        auto reason = runtime.kills.reason_for(token, true);
        if (!reason) return;
        watch_from_now(token);  // so that the token's end erases the reason
        try {
            kill_reasons_.insert_or_assign(token.sequence.load(), std::move(reason));
        } catch (const std::bad_alloc&) {
            // The awaiter then receives an empty reason.
        }
        token.stop.set_bits(stop_asked | stop_killed);
        deliver_stop(*core_, token);
    });
    kills_met_.store(newest);
}

bool executor::kills_current() noexcept {
    const token_record& current = *core_->current;
    // The token has ended; code other than its body polls.
    if (current.state.load() != token_state::executing) return false;
    const std::uint64_t newest = runtime.kills.newest();
    if (last_poll_.sequence != current.sequence.load() || last_poll_.newest != newest) {
        last_poll_ = {current.sequence.load(), newest, false};
        for (const token_record* each = &current; each && !last_poll_.answer;
             each = awaiter_here(*core_, *each))
            last_poll_.answer = runtime.kills.reason_for(*each, true) != nullptr;
    }
    return last_poll_.answer;
}

std::shared_ptr<const std::string> executor::kill_reason(const token_record& token) const {
    const auto known = kill_reasons_.find(token.sequence.load());
    return known == kill_reasons_.end() ? nullptr : known->second;
}

void executor::forget_kill_reason(const token_record& token) noexcept {
    kill_reasons_.erase(token.sequence.load());
}

// ---- observing ----------------------------------------------------------------------------------

void executor::observe(const token_step& step) noexcept {
    try {
        runtime.options.observer(step);
    } catch (...) {
        warn_of_observer(step, std::current_exception());
    }
}

void executor::warn_of_observer(const token_step& step, const std::exception_ptr& thrown) noexcept {
    try {
        runtime.warn("the observer threw at " + step.id.text() + ": " + what_of(thrown));
    } catch (const std::bad_alloc&) {
        std::fputs("tokengate: the observer threw, and there is no memory to say more\n", stderr);
    }
}

// ---- for the inline path ------------------------------------------------------------------------

void admit(core_context& core, token_record& token) noexcept { core.host->admit(core, token); }

void release_permit(core_context& core, token_record& holder) noexcept {
    holder.flags = static_cast<std::uint16_t>(holder.flags & ~holds_permit);
    hook* next = core.runtime->at_gate.release(holder.operation.load()->tier);
    if (next) core.host->route_permitted(core, *static_cast<token_record*>(next));
}

void force_permit(core_context& core, token_record& resumed) noexcept {
    core.runtime->at_gate.force(resumed.operation.load()->tier);
    resumed.flags |= holds_permit;
}

}  // namespace tokengate::detail
