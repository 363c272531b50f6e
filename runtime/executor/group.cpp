// SPDX-License-Identifier: MIT

// How the children of a when_all begin, are left to the loop or to the gate, and are counted out.

#include "executor/group.hpp"

#include "executor/executor.hpp"
#include "executor/shared.hpp"

#include <tokengate/detail/admission.hpp>
#include <tokengate/detail/promise.hpp>

#include <atomic>
#include <utility>

namespace tokengate::detail {

void group_done(token_record&, waiter&) noexcept {}

void resume_group(hook* item) noexcept {
    auto& group = *static_cast<token_group*>(item);
    group.elsewhere_done = true;
    if (group.here != 0) return;  // the end that brings `here` to zero makes the group ready again
    core_context& core = *this_core;
    core.host->resume_token(core, group.token, group.handle);
}

void flush_ended_group(core_context& core) noexcept {
    token_group* group = std::exchange(core.ended_group, nullptr);
    if (!group) return;
    const std::uint32_t ended = std::exchange(core.ended_in_group, 0);
    executor& here = *core.host;
    // Read now: after a subtraction that is not the last, the group may be gone.
    executor* home = group->home;
    // acq_rel: the thread of the last subtraction, and through its hook the home, sees what all
    // other ended tokens left in their frames.
    if (group->elsewhere.fetch_sub(ended, std::memory_order_acq_rel) != ended) return;
    home == &here ? here.loop.ready(group) : here.send_hook(home->position(), group);
}

void count_out_of_group(core_context& core, token_record& token, token_group& group) noexcept {
    if (token.state.load() > token_state::completed) [[unlikely]]
        group.any_failed.store(true);
    if (token.flags & counted_here) {
        if (--group.here == 0 && group.elsewhere_done) core.host->loop.ready(&group);
        return;
    }
    if (core.ended_group != &group) {
        flush_ended_group(core);
        core.ended_group = &group;
    }
    ++core.ended_in_group;
}

namespace {

void continue_group(hook* item) noexcept {
    core_context& core = *this_core;
    core.host->continue_group(core, *static_cast<token_group*>(item));
}

void admit_child(core_context& core, token_group& group, token_record& token,
                 bool admitted) noexcept {
    token.awaited_by.store(group.token ? group.token->sequence.load() : 0);
    const auto self = reinterpret_cast<std::uintptr_t>(static_cast<waiter*>(&group));
    if (admitted) {
        count_elsewhere(group);  // before the exchange: the token may end at once
        if (token.shared_owner().exchange(self, std::memory_order_acq_rel) == owner_done) {
            --group.routed;
            if (token.state.load() > token_state::completed) group.any_failed.store(true);
        }
        return;
    }
    token.owner = self;
    // If the awaiter was asked to stop before it began to wait, its child is asked too.
    if (group.token && group.token->stop_pending()) token.stop.set_bits(stop_asked);
    if (place_of(core, token) == place::here) {
        token.flags |= counted_here;
        ++group.here;
    } else {
        count_elsewhere(group);
    }
    core.host->admit(core, token);
}

}  // namespace

void admit_in_group(core_context& core, token_group& group, token_record& token,
                    bool admitted) noexcept {
    core.host->gather();
    admit_child(core, group, token, admitted);
    if (group.routed == 0) core.host->hand_over_gathered();  // no later call would hand them over
}

bool begins_here(core_context& core, token_group& group, token_record& token) noexcept {
    const place at = place_of(core, token);
    // A child that may run long must not delay its siblings: it goes to the gate, which knows the
    // cores with room.
    const bool begins = at == place::here || (at == place::kept && core.host->may_keep(token) &&
                                              core.host->keeps(token));
    if (begins && !token.stop_requested()) return true;
    // Children may run here before the group has begun all: so this token leaves alone, without
    // `gather`.
    admit_child(core, group, token, false);
    return false;
}

bool begin_watched(core_context& core, token_record& token) noexcept {
    if (static_cast<char*>(__builtin_frame_address(0)) < core.stack_mark) {
        // The stack is used up: no group on it begins another child.
        core.inline_budget = -1;
        core.watched_budget = 0;
    }
    if (core.watched_budget <= 0) return false;
    --core.watched_budget;
    watch_in_place(core, token);
    return true;
}

void leave_rest(core_context& core, token_group& group) noexcept {
    if (!std::exchange(group.listed, true)) {
        // Once the loop has had a turn, other threads know of these children: a kill and a drain
        // apply to them, too.
        for (std::uint32_t index = group.begun; index != group.size; ++index) {
            token_record* token = group.child(group, index, false);
            if (!token) continue;
            token->owner = reinterpret_cast<std::uintptr_t>(static_cast<waiter*>(&group));
            token->awaited_by.store(group.token->sequence.load());
            token->position.store(core.position);
            token->state.store_release(token_state::admitted);
            token->runtime.store_release(core.runtime_slot);  // last: the store lists the child
        }
    }
    group.run = continue_group;
    core.host->loop.ready_first(&group);
}

bool begin_rest(core_context& core, token_group& group) noexcept {
    // A stop or a kill may have been requested since. Then every remaining child passes the gate,
    // and a child that the request applies to does not start.
    const bool all_gated =
        all_through_gate(core) || core.runtime->at_start.load(std::memory_order_relaxed) != 0;
    while (group.begun != group.size) {
        const std::uint32_t index = group.begun++;
        token_record* token = group.child(group, index, false);
        if (!token) continue;
        if (all_gated) {
            admit_in_group(core, group, *token, false);
        } else if (begin_child(core, group, *token, false) == beginning::not_yet) {
            --group.begun;
            leave_rest(core, group);
            return false;
        }
        group.child(group, index, true);
    }
    group.run = resume_group;
    return finish_group(core, group);
}

bool settle_elsewhere(token_group& group) noexcept {
    group.home->hand_over_gathered();
    const std::uint32_t settled = group.size + 1 - group.routed;
    // acq_rel, as in flush_ended_group.
    return group.elsewhere.fetch_sub(settled, std::memory_order_acq_rel) == settled;
}

void send_routed(core_context& core) noexcept { core.host->loop.flush(); }

void offer_children(core_context& core, token_group& group) noexcept { core.host->offer(group); }

void withdraw_offer(core_context& core, token_group& group) noexcept { core.host->withdraw(group); }

bool keeps(core_context& core, const token_record& token) noexcept {
    return core.host->keeps(token);
}

bool may_keep(core_context& core, const token_record& token) noexcept {
    return core.host->may_keep(token);
}

started start_measured(core_context& core, token_record& child,
                       std::coroutine_handle<>& continuation, std::coroutine_handle<> awaiter) {
    const std::coroutine_handle<> body = promise_base::of(child).handle();
    if (static_cast<char*>(__builtin_frame_address(0)) < core.stack_mark)
        return start_child(core, body, continuation, awaiter);
    operation_counters& known = core.operations[child.operation.load()->index];
    const std::uint64_t began = event_loop::steady_ns();
    continuation = on_the_stack();
    body.resume();
    executor::note_run(known, event_loop::steady_ns() - began);
    if (body.done()) return not_suspended(awaiter);
    continuation = awaiter;
    return stay_suspended();
}

}  // namespace tokengate::detail
