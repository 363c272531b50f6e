// SPDX-License-Identifier: MIT

// How an executor places tokens: tokens that it admits, on their way to a core or into the FIFO of
// their class; and tokens that it takes from the FIFOs when it has room. The router decides
// (router.hpp).

#include "executor/executor.hpp"
#include "executor/shared.hpp"
#include "executor/steps.hpp"

#include <tokengate/detail/admission.hpp>
#include <tokengate/detail/group.hpp>
#include <tokengate/detail/promise.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>

namespace tokengate::detail {

// ---- admitting and routing ----------------------------------------------------------------------

void executor::admit(core_context& core, token_record& token) noexcept {
    core.counts.admitted.add(1);
    token.position.store(no_position);
    token.runtime.store(runtime.slot);
    token.run = start_token;
    if (core.current && (core.current->flags & (shielded | exempt))) [[unlikely]]
        token.flags |= exempt;
    if (runtime.attention.load(std::memory_order_relaxed) != 0 || (token.flags & watched))
        [[unlikely]] {
        if (!attend(core, token)) return;
    }
    pass_permits(core, token);
}

/// A token that was taken back stays admitted: the step is not repeated.
void executor::waits(token_record& token) noexcept {
    if (token.state.load() != token_state::admitted) token.state.store(token_state::waiting);
}

void executor::pass_permits(core_context& core, token_record& token) noexcept {
    if (token.flags & has_tier) {
        // Before the gate has the token: once it waits there, a release on any loop may take it.
        token.flags |= holds_permit;
        if (token.flags & watched) {
            if (!acquire_watched(token)) return;
        } else {
            waits(token);
            if (!runtime.at_gate.acquire(token.operation.load()->tier, &token)) return;
        }
    }
    route(core, token);
}

sticky_registry::acquired executor::pin_key(std::uint64_t key, weight w) {
    return runtime.registry.acquire(key, [&] { return routes_.place(w); });
}

void executor::route(core_context& core, token_record& token) noexcept {
    if (token.flags & in_domain) {
        send(static_cast<domain*>(token.anchor)->position, token);
        return;
    }
    const weight w = token.operation.load()->weight_class;
    if (token.flags & sticky_key) {
        auto [held, redirected] = pin_key(reinterpret_cast<std::uintptr_t>(token.anchor.load()), w);
        token.anchor = held;
        token.flags = static_cast<std::uint16_t>((token.flags & ~sticky_key) | pinned);
        if (redirected) core.counts.redirections.add(1);
        send(held->position(), token);
        return;
    }
    if (token.flags & (unroutable | bound)) {
        send(token.flags & bound
                 ? static_cast<unsigned>(reinterpret_cast<std::uintptr_t>(token.anchor.load()))
                 : position_,
             token);
        return;
    }
    token.flags |= windowed;
    if (staged_[static_cast<std::size_t>(w)].count.load() != 0 || runtime.at_gate.waiting(w) != 0) {
        stage(w, token);  // first in, first out: no newer token passes the waiting ones
        return;
    }
    const unsigned to = routes_.route(w);
    to == router::no_room ? stage(w, token) : send(to, token);
}

void executor::send(unsigned position, token_record& token) noexcept {
    if ((token.flags & watched) && token.state.load() != token_state::admitted)
        leave_gate(token, position);
    token.position.store(static_cast<std::uint16_t>(position));
    token.state.store(token_state::admitted);
    if (!(token.flags & windowed)) {
        // Tokens that only this core may run go first, so that work that spawns work runs depth
        // first. Tokens with a sticky key or a bound core wait in FIFO order: all loops send to
        // that queue.
        if (position != position_)
            send_hook(position, &token);
        else if (at_back_ || (token.flags & (pinned | bound)))
            loop.ready_start(&token);
        else
            loop.ready_first(&token);
        return;
    }
    // Read before lending: another executor may own the token as soon as it is lent.
    const weight w = token.operation.load()->weight_class;
    if (position == position_) {
        loop.ready_lent(&token);
        put_aside(w);
        return;
    }
    const unsigned waiting = loop.lend(position, &token);
    if (waiting >= event_loop::outbox_limit) {
        loop.flush();
    } else if (gathering_) {
        gathered_[static_cast<std::size_t>(w)] = true;
    } else if (runtime.loads.starving(position)) {
        loop.hand_over(position);
    } else {
        // `route` may have noted the position as fed: it may have been hungry then.
        routes_.forget_fed(position);
        put_aside(w);
    }
}

/// A hungry executor sets its hunger bit and then scans the other loops. An executor that puts
/// tokens aside stores them first and then scans for sleepers. So one of the two finds the other,
/// whichever comes first, even if the routing before found no hungry executor, or only fed ones.
/// Tokens put aside here may wait behind a long run, so executors outside the home range are
/// notified too; but seldom, since those stay watchful.
inline void executor::put_aside(weight w) noexcept {
    if (gathering_) {
        gathered_[static_cast<std::size_t>(w)] = true;
        return;
    }
    if (tell_sleepers(w)) return;
    // No nudge succeeded: each executor marked asleep is about to scan, or has found work and
    // forwards the wake (awake_with_work). It misses these tokens only if it scanned before this
    // thread's stores reached it. So scan once more behind a fence, which pairs with the
    // read-modify-write in load_table::fed.
    std::atomic_thread_fence(std::memory_order_seq_cst);
    static_cast<void>(tell_sleepers(w));
}

bool executor::tell_sleepers(weight w) noexcept {
    if (!asymmetric_lock::can_be_taken()) return true;  // no executor could take the tokens
    bool asked = false;
    const auto tell = [&](unsigned sleeper) {
        asked = true;
        return loop.nudge(sleeper);
    };
    const bool told = routes_.tell_sleepers(w, position_, tell) ||
                      (runtime.options.spill == spill::when_saturated &&
                       routes_.tell_sleepers_anywhere(position_, tell));
    return told || !asked;
}

void executor::end_gathering() noexcept {
    gathering_ = false;
    for (const weight w : weight_classes)
        if (std::exchange(gathered_[static_cast<std::size_t>(w)], false)) put_aside(w);
}

void executor::hand_over_gathered() noexcept {
    loop.hand_over_to_idle();
    routes_.forget_fed();
    end_gathering();
}

void executor::send_hook(unsigned position, hook* item) noexcept {
    const unsigned waiting = loop.send(position, item);
    if (waiting >= event_loop::outbox_limit)
        loop.flush();
    else if (runtime.loads.starving(position))
        loop.hand_over(position);
}

void executor::depart(unsigned position, token_record& ended) noexcept {
    settle_departed();
    departing_ = {&ended, position};
}

void executor::settle_departed() noexcept {
    if (token_record* token = std::exchange(departing_.token, nullptr))
        send_hook(departing_.position, token);
}

void executor::stage(weight w, token_record& token) noexcept {
    if ((token.flags & watched) && !enter_backlog(token)) return;
    waits(token);
    staged& at = staged_[static_cast<std::size_t>(w)];
    loop.lock().enter();
    at.chain.push(&token);
    const unsigned count = at.count.load() + 1;
    at.count.store(count);
    loop.lock().leave();
    // The flush delivers the tokens that found room first, then splices the staged ones.
    if (count >= event_loop::outbox_limit)
        loop.flush();
    else
        put_aside(w);
}

void executor::splice(weight w) noexcept {
    staged& at = staged_[static_cast<std::size_t>(w)];
    loop.lock().enter();
    hook_queue chain = std::exchange(at.chain, {});
    const unsigned count = at.count.load();
    at.count.store(0);
    loop.lock().leave();
    if (count != 0) runtime.at_gate.wait(w, chain, count);
    wake_for(w);
}

void executor::wake_for(weight w) noexcept {
    const unsigned home = routes_.first_position(w);
    if (!wake_one_of(home, runtime.positions()) && runtime.options.spill == spill::when_saturated)
        wake_one_of(0, home);
}

bool executor::wake_one_of(unsigned first, unsigned end) noexcept {
    // An executor may be marked as parked and not sleep (not yet, or no longer). It scans the FIFO
    // by itself, but perhaps only after its current run. So go on until one was really woken.
    for (unsigned at = first; (at = runtime.at_gate.find_parked(at, end)) != end; ++at)
        if (loop.nudge(at)) return true;
    return false;
}

// ---- children in place --------------------------------------------------------------------------

bool executor::hungry_in_range(weight w) const noexcept {
    if (staged_[static_cast<std::size_t>(w)].count.load() != 0 || runtime.at_gate.waiting(w) != 0)
        return false;
    return routes_.hungry_but(w, position_);
}

bool executor::may_run_here(const operation_record& of) const noexcept {
    constexpr std::uint32_t decides = holding | limiting;
    return !is_control_ && routes_.may_serve(position_, of.weight_class) &&
           (runtime.attention.load(std::memory_order_relaxed) & decides) == 0 &&
           runtime.at_start.load(std::memory_order_relaxed) == 0;
}

bool executor::may_keep(const token_record& token) const noexcept {
    return may_run_here(*token.operation.load()) && known_to_be_short(*core_, token);
}

bool executor::keeps(const token_record& token) noexcept {
    const operation_record& of = *token.operation.load();
    if (!may_run_here(of)) return false;
    if (!known_to_be_short(*core_, token)) return !loop.something_ready();
    if (!hungry_in_range(of.weight_class)) [[likely]]
        return true;
    // While this core runs a child in place, it serves no other work. So if no sibling can go to
    // the hungry core, this child goes, unless nothing else waits here.
    return give_siblings(of.weight_class) || !loop.something_ready();
}

void executor::offer(token_group& group) noexcept {
    group.gives = true;
    group.newer = nullptr;
    group.older = newest_offer_;
    (newest_offer_ ? newest_offer_->newer : oldest_offer_) = &group;
    newest_offer_ = &group;
}

void executor::withdraw(token_group& group) noexcept {
    group.gives = false;
    (group.older ? group.older->newer : oldest_offer_) = group.newer;
    (group.newer ? group.newer->older : newest_offer_) = group.older;
}

bool executor::give_siblings(weight w) noexcept {
    for (token_group* group = oldest_offer_; group;) {
        token_group* newer = group->newer;
        if (give_children(*group, w)) return true;
        if (group->offered == group->size) withdraw(*group);
        group = newer;
    }
    return false;
}

bool executor::give_children(token_group& group, weight w) noexcept {
    std::uint32_t& next = group.offered;
    next = std::max(next, group.begun);
    // The group keeps as many as it gives. The gate offers the given ones to every core with room,
    // this one included.
    const std::uint32_t half = (group.size - next + 1) / 2;
    // Then each child is admitted by the long way.
    const bool attended = runtime.attention.load(std::memory_order_relaxed) != 0;
    hook_queue chain;
    std::uint32_t count = 0;
    for (; next != group.size && count != half; ++next) {
        token_record* token = group.child(group, next, false);
        if (!token || place_of(*core_, *token) != place::kept) continue;
        // The rest stays until a core of that child's class is hungry.
        if (token->operation.load()->weight_class != w) break;
        group.child(group, next, true);
        ++count;
        if (attended) {
            token_record* running = std::exchange(core_->current, group.token);
            admit_in_group(*core_, group, *token, false);
            core_->current = running;
            continue;
        }
        count_elsewhere(group);
        token->owner = reinterpret_cast<std::uintptr_t>(static_cast<waiter*>(&group));
        token->awaited_by.store(group.token->sequence.load());
        token->position.store(no_position);
        token->flags |= windowed;
        token->run = start_token;
        token->state.store(token_state::waiting);
        token->runtime.store(runtime.slot);
        core_->counts.admitted.add(1);
        chain.push(token);
    }
    if (count == 0) return false;
    if (attended) {
        loop.flush();
    } else {
        runtime.at_gate.wait(w, chain, count);
        wake_for(w);
    }
    return true;
}

// ---- with room ----------------------------------------------------------------------------------

bool executor::work_waits() const noexcept {
    if (is_control_) return false;
    for (const weight w : weight_classes)
        if (runtime.at_gate.waiting(w) != 0 &&
            (runtime.options.spill != spill::never || routes_.may_serve(position_, w)))
            return true;
    return false;
}

bool executor::find_work(bool parking) noexcept {
    if (is_control_) return false;
    publish_started();
    if (!parking && !work_waits()) return false;
    if (2 * runtime.loads.occupancy(position_) > static_cast<int>(window_)) return false;
    for (unsigned i = 0; i < weight_classes.size(); ++i) {
        const unsigned at = (next_class_ + i) % weight_classes.size();
        if (routes_.may_serve(position_, weight_classes[at]) &&
            pull(weight_classes[at], parking) != 0) {
            next_class_ = at + 1;
            return true;
        }
    }
    for (const weight w : weight_classes)
        if (routes_.may_help(position_, w) && pull(w, parking) != 0) return true;
    return false;
}

unsigned executor::pull(weight w, bool look_anyway) noexcept {
    if (!look_anyway && runtime.at_gate.waiting(w) == 0) return 0;
    hook_queue taken;
    auto count = static_cast<unsigned>(runtime.at_gate.take(
        w, [&](std::size_t waiting) { return routes_.chunk(waiting, w, position_); }, taken));
    if (count == 0) return 0;
    if (runtime.attention.load(std::memory_order_relaxed) != 0) [[unlikely]]
        count = let_pass(*core_, taken);
    runtime.loads.take(position_, count);
    const bool waits = count > 1 || loop.something_ready();
    loop.ready_lent(taken, count);
    if (waits) put_aside(w);
    // The executor that filled the FIFO has woken one core. Each core that finds more than it takes
    // wakes the next.
    if (runtime.at_gate.waiting(w) != 0) wake_for(w);
    return count;
}

// ---- recall -------------------------------------------------------------------------------------

bool executor::keeps_work() const noexcept {
    for (const staged& each : staged_)
        if (each.count.load() != 0) return true;
    return loop.has_lent() || loop.lends();
}

bool executor::recall(unsigned from) noexcept {
    if (is_control_) return false;
    executor& other = *runtime.executors[from];
    if (!other.keeps_work()) return false;
    if (!other.loop.lock().try_take()) {
        loop.look_again_soon();
        return false;
    }
    // This loop's own mail comes before anything it would take back.
    if (loop.fetch_inside(other.loop)) {
        other.loop.lock().give_back();
        return true;
    }
    // A token whose home range excludes this core may come here only as spilled tokens do: a range
    // whose cores all run long counts as full.
    const std::uint64_t began = other.loop.turn_began_ns();
    const bool foreign_too = runtime.options.spill == spill::when_saturated && began != 0 &&
                             event_loop::steady_ns() > began + foreign_wait_ns;
    const auto may_come = [&](const hook* item) noexcept {
        const weight w = static_cast<const token_record*>(item)->operation.load()->weight_class;
        return foreign_too || routes_.may_serve(position_, w);
    };
    hook_queue back;
    if (const unsigned count = other.loop.take_back(back, may_come))
        runtime.loads.give_back(from, count);
    // The other executor counts the tokens in its outboxes at their destinations only when it
    // publishes what it routed. That later addition makes up for this subtraction.
    other.loop.take_out(back, may_come, [&](unsigned destination, unsigned count) {
        runtime.loads.give_back(destination, count);
    });
    std::array<bool, 3> put_back{};
    for (const weight w : weight_classes) {
        staged& theirs = other.staged_[static_cast<std::size_t>(w)];
        if ((!foreign_too && !routes_.may_serve(position_, w)) || theirs.count.load() == 0)
            continue;
        // Inside the lock, and into the FIFO before the count falls: the owner's `route` must not
        // find that no token waits while these are between the two queues.
        runtime.at_gate.wait(w, theirs.chain, theirs.count.load());
        theirs.count.store(0);
        put_back[static_cast<std::size_t>(w)] = true;
    }
    if (other.keeps_work() && runtime.options.spill == spill::when_saturated) loop.stay_watchful();
    other.loop.lock().give_back();
    return_to_gate(back, put_back);
    const bool has_mail = loop.has_mail();  // this mail comes first, too
    if (!has_mail && find_work(true)) return true;
    for (const weight w : weight_classes)
        if (put_back[static_cast<std::size_t>(w)] && runtime.at_gate.waiting(w) != 0) wake_for(w);
    return has_mail;
}

void executor::return_to_gate(hook_queue& started_nowhere, std::array<bool, 3>& put_back) noexcept {
    std::array<hook_queue, 3> by_class;
    std::array<unsigned, 3> counts{};
    if (started_nowhere.empty()) return;
    while (!started_nowhere.empty()) {
        auto& token = *static_cast<token_record*>(started_nowhere.pop());
        token.position.store(no_position);
        const auto w = static_cast<std::size_t>(token.operation.load()->weight_class);
        by_class[w].push(&token);
        ++counts[w];
    }
    // A stop request sets the token's stop bit and then reads its position. Either it reads
    // no_position, and notifies every loop; or the executor that starts the token finds the bit.
    // Pairs with the fence in request_stop.
    std::atomic_thread_fence(std::memory_order_seq_cst);
    for (const weight w : weight_classes) {
        const auto at = static_cast<std::size_t>(w);
        if (counts[at] == 0) continue;
        runtime.at_gate.put_back(w, by_class[at], counts[at]);
        put_back[at] = true;
        if (!routes_.may_serve(position_, w) && !routes_.may_help(position_, w)) wake_for(w);
    }
}

}  // namespace tokengate::detail
