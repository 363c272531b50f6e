// SPDX-License-Identifier: MIT

// The way of a token where it leaves the inline path: admission, groups, the end, and dropped handles.

#include "executor/domain.hpp"
#include "executor/executor.hpp"
#include "token/awaiters.hpp"
#include "executor/guard_steps.hpp"
#include "executor/shared.hpp"
#include "executor/stop.hpp"
#include "executor/steps.hpp"
#include "base/what_of.hpp"

#include <tokengate/detail/admission.hpp>
#include <tokengate/detail/group.hpp>
#include <tokengate/detail/promise.hpp>
#include <tokengate/error.hpp>

#include <atomic>
#include <cstdio>
#include <exception>
#include <memory>
#include <new>
#include <string>

namespace tokengate::detail {

namespace {

void destroy_frame(token_record& token) noexcept { promise_base::of(token).handle().destroy(); }

/// The frame of an ended token goes, and its failure, if it is one, is nobody's any more.
void destroy_unheard(token_record& token) noexcept {
    if (std::exception_ptr error = std::move(promise_base::of(token).error)) report_failure(token, std::move(error));
    destroy_frame(token);
}

/// A dropped token has ended: its frame goes after its coroutine has been left, on the token's core.
void destroy_dropped(hook* item) noexcept {
    destroy_unheard(*static_cast<token_record*>(item));
    this_core->counts.ended.add_release(1);
}

/// An unadmitted token of a domain, dropped elsewhere, has come home to be counted out.
void end_unadmitted(hook* item) noexcept {
    core_context& core = *this_core;
    auto& token = *static_cast<token_record*>(item);
    leave_domain(core, token);
    destroy_frame(token);
    core.counts.ended.add_release(1);
}

/// The same where the domain's executor runs no more.
void end_orphan(hook* item) noexcept {
    auto& token = *static_cast<token_record*>(item);
    shared_state& owner = *static_cast<domain*>(token.anchor)->runtime;
    const bool last = owner.leave_orphaned_domain(token);
    destroy_frame(token);  // after the lock: arguments may be tokens too
    if (last) delete &owner;
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

}  // namespace

void group_done(token_record&, waiter&) noexcept {}

void resume_group(hook* item) noexcept {
    auto& group = *static_cast<token_group*>(item);
    group.elsewhere_done = true;
    if (group.here != 0) return;  // whoever brings it to zero comes here again
    core_context& core = *this_core;
    core.host->resume_token(core, group.token, group.handle);
}

void flush_ended_group(core_context& core) noexcept {
    token_group* group = std::exchange(core.ended_group, nullptr);
    if (!group) return;
    const std::uint32_t ended = std::exchange(core.ended_in_group, 0);
    executor& here = *core.host;
    executor* home = group->home;  // read now: unless we are the last, the group may be gone after the subtraction
    // acq_rel: the last one, and through its hook the home, sees what all the others' tokens left in their frames.
    if (group->elsewhere.fetch_sub(ended, std::memory_order_acq_rel) != ended) return;
    home == &here ? here.loop.ready(group) : here.send_hook(home->position(), group);
}

// ---- admission ----------------------------------------------------------------------------------------------------------

void throw_not_admissible(const token_record& token) {
    if (!this_core || !this_core->host)
        throw wrong_thread("wrong_thread: " + token.id().text() +
                           " was awaited or admitted on a thread without an event loop: use runtime::submit, or do it "
                           "inside a coroutine that the runtime runs");
    throw wrong_runtime(
        "wrong_runtime: " + token.id().text() +
        " belongs to another runtime (it was admitted there, or inherited a seed there): await it there");
}

void admit(core_context& core, token_record& token) noexcept { core.host->admit(core, token); }

void throw_already_admitted(const token_record& token) {
    throw already_awaited(
        "already_awaited: " + token.id().text() +
        " has been admitted already: admit() hands a token to the gate once; await it for its result");
}

void throw_already_awaited() {
    throw already_awaited(
        "already_awaited: this token handle holds no result any more: it was awaited, submitted or moved "
        "from before; a token's result is taken once");
}

void throw_empty_task() {
    throw already_awaited(
        "already_awaited: this task is empty: it was awaited or moved from before, or never held a coroutine");
}

void terminate_miscompiled() noexcept {
    std::fprintf(stderr,
                 "tokengate: a coroutine was miscompiled: g++ 12 loses the body of one that uses co_await in the "
                 "condition of an "
                 "if, while or switch while its outermost block has no local variable; name the result first: "
                 "const bool more = co_await next(); if (more) ...\n");
    std::terminate();
}

void release_permit(core_context& core, token_record& holder) noexcept {
    holder.flags = static_cast<std::uint16_t>(holder.flags & ~holds_permit);
    hook* next = core.runtime->at_gate.release(holder.operation.load()->tier);
    if (next) core.host->route_permitted(core, *static_cast<token_record*>(next));
}

void force_permit(core_context& core, token_record& resumed) noexcept {
    core.runtime->at_gate.force(resumed.operation.load()->tier);
    resumed.flags |= holds_permit;
}

// ---- groups -------------------------------------------------------------------------------------------------------------

namespace {

void continue_group(hook* item) noexcept {
    core_context& core = *this_core;
    core.host->continue_group(core, *static_cast<token_group*>(item));
}

}  // namespace

namespace {

void admit_child(core_context& core, token_group& group, token_record& token, bool admitted) noexcept {
    token.awaited_by.store(group.token ? group.token->sequence.load() : 0);
    const auto self = reinterpret_cast<std::uintptr_t>(static_cast<waiter*>(&group));
    if (admitted) {
        count_elsewhere(group);  // first: it may end at once
        if (token.shared_owner().exchange(self, std::memory_order_acq_rel) == owner_done) {
            --group.routed;
            if (token.state.load() > token_state::completed) group.any_failed.store(true);
        }
        return;
    }
    token.owner = self;
    // It was asked before it began to wait: so is what it waits for.
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

void admit_in_group(core_context& core, token_group& group, token_record& token, bool admitted) noexcept {
    core.host->gather();
    admit_child(core, group, token, admitted);
    if (group.routed == 0) core.host->hand_over_gathered();  // nobody else would
}

bool begins_here(core_context& core, token_group& group, token_record& token) noexcept {
    const place at = place_of(core, token);
    // One that may run long must not keep its siblings waiting: the gate knows who has room.
    const bool begins =
        at == place::here || (at == place::kept && core.host->may_keep(token) && core.host->keeps(token));
    if (begins && !token.stop_requested()) return true;
    admit_child(core, group, token, false);  // others may run here before the group is done: it leaves by itself
    return false;
}

bool begin_watched(core_context& core, token_record& token) noexcept {
    if (static_cast<char*>(__builtin_frame_address(0)) < core.stack_mark) {
        // Nobody on this stack begins another.
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
        // Once the loop has had a turn they are what others know of: a kill and a drain mean them, too.
        for (std::uint32_t index = group.begun; index != group.size; ++index) {
            token_record* token = group.child(group, index, false);
            if (!token) continue;
            token->owner = reinterpret_cast<std::uintptr_t>(static_cast<waiter*>(&group));
            token->awaited_by.store(group.token->sequence.load());
            token->position.store(core.position);
            token->state.store_release(token_state::admitted);
            token->runtime.store_release(core.runtime_slot);  // last: now it is listed
        }
    }
    group.run = continue_group;
    core.host->loop.ready_first(&group);
}

bool begin_rest(core_context& core, token_group& group) noexcept {
    // What may have been said since: what has not started never does.
    const bool all_gated = all_through_gate(core) || core.runtime->at_start.load(std::memory_order_relaxed) != 0;
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
    // acq_rel, as in flush_ended_group
    return group.elsewhere.fetch_sub(settled, std::memory_order_acq_rel) == settled;
}

void send_routed(core_context& core) noexcept { core.host->loop.flush(); }

void offer_children(core_context& core, token_group& group) noexcept { core.host->offer(group); }

void withdraw_offer(core_context& core, token_group& group) noexcept { core.host->withdraw(group); }

bool keeps(core_context& core, const token_record& token) noexcept { return core.host->keeps(token); }

bool may_keep(core_context& core, const token_record& token) noexcept { return core.host->may_keep(token); }

started start_measured(core_context& core, token_record& child, std::coroutine_handle<>& continuation,
                       std::coroutine_handle<> awaiter) {
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

// ---- the end ------------------------------------------------------------------------------------------------------------

namespace {

/// It ends before its loop could tell it: it has looked for itself, or did not need to.
std::shared_ptr<const std::string> kill_unheard_of(const core_context& core, const token_record& token) noexcept {
    if (!(core.runtime->at_start.load(std::memory_order_relaxed) & killing)) return nullptr;
    return core.runtime->kills.reason_for(token, true);
}

/// Whether all are asked to stop, or one here that awaits it: which its body hears when it looks.
bool asked_with_others(const core_context& core, const token_record& token) noexcept {
    if (core.runtime->stops_all() && !(token.flags & exempt)) return true;
    for (const token_record* each = awaiter_here(core, token); each; each = awaiter_here(core, *each)) {
        if (each->flags & shielded) return false;
        if (each->stop_requested() || kill_unheard_of(core, *each)) return true;
    }
    return false;
}

}  // namespace

void note_failure(core_context& core, token_record& token) noexcept {
    std::shared_ptr<const std::string> why;
    if (!(token.stop.load() & stop_killed)) {
        why = kill_unheard_of(core, token);
        if (why) token.stop.set_bits(stop_asked | stop_killed);
    }
    if (!token.stop_requested() && asked_with_others(core, token)) token.stop.set_bits(stop_asked);
    const std::uint8_t reasons = token.stop.load();
    if (reasons == 0 && token.operation.load()->index >= first_operation) {
        token.state.store(token_state::failed);
        return;
    }
    std::exception_ptr& error = promise_base::of(token).error;
    token_state state = token_state::failed;
    try {
        std::rethrow_exception(error);
    } catch (const token_killed&) {
        state = token_state::killed;
    } catch (const token_timeout&) {
        if (reasons & stop_timeout || token.operation.load()->index < first_operation) state = token_state::timeout;
    } catch (const token_stopped&) {
        state = reasons & stop_killed                                     ? token_state::killed
                : (reasons & (stop_timeout | stop_asked)) == stop_timeout ? token_state::timeout
                                                                          : token_state::killed;
        if (reasons & stop_killed) {
            try {
                if (!why) why = core.host->kill_reason(token);
                error = std::make_exception_ptr(killed(token.id(), why ? *why : std::string()));
            } catch (...) {
                error = std::current_exception();
            }
        }
    } catch (...) {}
    token.state.store(state);
    // One that was killed and failed in its own way: whoever would try again must not.
    if (state == token_state::failed && (reasons & stop_killed))
        if (const token_record* keeper = keeper_of(token))
            const_cast<token_record*>(keeper)->stop.set_bits(stop_asked | stop_killed);
}

void end_anchored(core_context& core, token_record& token) noexcept {
    if (token.flags & watched) watch_end(core, token);
    if (token.flags & holds_permit) release_permit(core, token);
    if (token.flags & pinned) core.runtime->registry.release(static_cast<pin*>(token.anchor));
    if (token.flags & in_domain) leave_domain(core, token);
}

void end_unrun(core_context& core, token_record& token) noexcept {
    if (std::exception_ptr& error = promise_base::of(token).error; !error) error = not_started(token);
    note_failure(core, token);
    token.stop.set_bits(stop_unrun);
    end_anchored(core, token);
    end_elsewhere(core, token);
}

void end_elsewhere(core_context& core, token_record& token) noexcept {
    executor& here = *core.host;
    // Before another thread may have the frame: the handler of a signal may look at the current token at any time.
    if (core.current == &token) core.current = nullptr;
    // acquire as in end_token; the exchange decides between us and the holder of the handle.
    std::uintptr_t claimed = token.shared_owner().load(std::memory_order_acquire);
    if (claimed == owner_unclaimed) {
        if (token.shared_owner().compare_exchange_strong(claimed, owner_done, std::memory_order_acq_rel)) {
            core.counts.ended.add_release(1);  // the frame is the handle's now
            return;
        }
    }
    if (claimed == owner_dropped) {
        token.run = destroy_dropped;
        here.loop.ready(&token);
        return;
    }
    auto& heard_by = *reinterpret_cast<waiter*>(claimed);
    if (heard_by.home && !(token.flags & ran_in_place))
        core.counts.ended.add_release(1);  // else when it has been heard: a runtime does not end before that
    if (heard_by.done == group_done) {
        count_out_of_group(core, token, static_cast<token_group&>(heard_by));
        return;
    }
    token.run = deliver_end;
    if (!heard_by.home || heard_by.home == &here)
        here.loop.ready(&token);
    else
        here.depart(heard_by.home->position(), token);
}

// ---- dropped handles ----------------------------------------------------------------------------------------------------

void drop_unadmitted(token_record& token) noexcept {
    if (token.flags & watched) guard_drop(token);
    if (!(token.flags & in_domain)) {
        destroy_frame(token);
        return;
    }
    domain& inherited = *static_cast<domain*>(token.anchor);
    core_context& core = context();
    if (inherited.home == &core && core.host) {  // a context that its domains outlive has no executor
        leave_domain(core, token);
        destroy_frame(token);
    } else if (core.host && core.runtime == inherited.runtime) {
        core.counts.admitted.add(1);  // the runtime does not end before it has come home
        token.run = end_unadmitted;
        core.host->send_hook(inherited.position, &token);
    } else {
        inherited.runtime->end_far_from_home(token);
    }
}

void shared_state::end_far_from_home(token_record& token) noexcept {
    {
        const std::scoped_lock lock(orphans);
        if (!joined) {
            token.run = end_unadmitted;
            dropped_from_afar.fetch_add(1, std::memory_order_relaxed);  // the mailbox publishes it; see count_admitted
            executors[static_cast<domain*>(token.anchor)->position]->loop.post(&token);
            return;
        }
    }
    end_orphan(&token);
}

void shared_state::run_left_mail() noexcept {
    for (const auto& each : executors)
        for (hook* item = each->loop.take_left_mail(); item;) {
            hook* next = item->next;
            item->run == end_unadmitted ? end_orphan(item) : item->run(item);
            item = next;
        }
}

bool shared_state::leave_orphaned_domain(token_record& token) noexcept {
    const std::scoped_lock lock(orphans);
    leave_domain(context(), token);
    if (orphaned_domains != 0) return false;
    for (const auto& each : executors) each->release_context();
    return abandoned;
}

void drop_admitted(token_record& token) noexcept {
    // acq_rel: pairs with the exchange of `done` at its end.
    if (token.shared_owner().exchange(owner_dropped, std::memory_order_acq_rel) != owner_done) return;
    destroy_unheard(token);
}

bool was_asked_for(const token_record& token, const std::exception_ptr& error) noexcept {
    if (!token.stop_requested()) return false;
    try {
        std::rethrow_exception(error);
    } catch (const token_stopped&) {
        return true;
    } catch (...) {
        return false;
    }
}

void report_failure(token_record& token, std::exception_ptr error) noexcept {
    if (was_asked_for(token, error)) return;
    const failure heard{token.id(), std::move(error)};
    try {
        if (const auto handler = failure_handler_of(token.runtime.load()); handler && *handler) {
            (*handler)(heard);
            return;
        }
    } catch (...) {
        std::fprintf(stderr, "tokengate: the failure handler itself threw\n");
    }
    try {
        std::fprintf(stderr, "tokengate: %s failed and nobody awaits it: %s\n", heard.id.text().c_str(),
                     what_of(heard.error).c_str());
    } catch (const std::bad_alloc&) {
        std::fputs("tokengate: a token failed that nobody awaits, and there is no memory to say which\n", stderr);
    }
}

}  // namespace tokengate::detail
