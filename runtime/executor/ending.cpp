// SPDX-License-Identifier: MIT

// How a token ends, and what becomes of one whose handle was dropped.

#include "base/what_of.hpp"
#include "executor/domain.hpp"
#include "executor/executor.hpp"
#include "executor/group.hpp"
#include "executor/guard_steps.hpp"
#include "executor/shared.hpp"
#include "executor/steps.hpp"
#include "executor/stop.hpp"
#include "token/awaiters.hpp"

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

/// Destroys the frame of an ended token. If the token failed, no awaiter can receive the failure
/// any more, so it is reported.
void destroy_unheard(token_record& token) noexcept {
    if (std::exception_ptr error = std::move(promise_base::of(token).error))
        report_failure(token, std::move(error));
    destroy_frame(token);
}

/// A dropped token has ended. Its frame is destroyed on the token's core, after its coroutine has
/// been left.
void destroy_dropped(hook* item) noexcept {
    destroy_unheard(*static_cast<token_record*>(item));
    this_core->counts.ended.add_release(1);
}

/// An unadmitted token of a domain was dropped elsewhere, and is now at the domain's home to be
/// counted out.
void end_unadmitted(hook* item) noexcept {
    core_context& core = *this_core;
    auto& token = *static_cast<token_record*>(item);
    leave_domain(core, token);
    destroy_frame(token);
    core.counts.ended.add_release(1);
}

/// The same if the domain's executor runs no more.
void end_orphan(hook* item) noexcept {
    auto& token = *static_cast<token_record*>(item);
    shared_state& owner = *static_cast<domain*>(token.anchor)->runtime;
    const bool last = owner.leave_orphaned_domain(token);
    destroy_frame(token);  // outside the lock: the arguments in the frame may be tokens too
    if (last) delete &owner;
}

}  // namespace

// ---- the end ------------------------------------------------------------------------------------

namespace {

/// The reason of a kill rule for a token that ends before its loop has delivered the kill: the body
/// has polled, or has ended on its own.
std::shared_ptr<const std::string> kill_unheard_of(const core_context& core,
                                                   const token_record& token) noexcept {
    if (!(core.runtime->at_start.load(std::memory_order_relaxed) & killing)) return nullptr;
    return core.runtime->kills.reason_for(token, true);
}

/// Whether the whole runtime is asked to stop, or a token here that awaits this one. The body
/// learns of such a request when it polls.
bool asked_with_others(const core_context& core, const token_record& token) noexcept {
    if (core.runtime->stops_all() && !(token.flags & exempt)) return true;
    for (const token_record* each = awaiter_here(core, token); each;
         each = awaiter_here(core, *each)) {
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
        if (reasons & stop_timeout || token.operation.load()->index < first_operation)
            state = token_state::timeout;
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
    // The token was killed, but failed with an error of its own. Its wrapper token must not retry.
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
    if (std::exception_ptr& error = promise_base::of(token).error; !error)
        error = not_started(token);
    note_failure(core, token);
    token.stop.set_bits(stop_unrun);
    end_anchored(core, token);
    end_elsewhere(core, token);
}

void end_elsewhere(core_context& core, token_record& token) noexcept {
    executor& here = *core.host;
    // Before another thread may own the frame: a signal handler may read the current token at any
    // time.
    if (core.current == &token) core.current = nullptr;
    // Acquire as in end_token; the exchange decides between this end and the holder of the handle.
    std::uintptr_t claimed = token.shared_owner().load(std::memory_order_acquire);
    if (claimed == owner_unclaimed) {
        if (token.shared_owner().compare_exchange_strong(claimed, owner_done,
                                                         std::memory_order_acq_rel)) {
            core.counts.ended.add_release(1);  // from here on the handle owns the frame
            return;
        }
    }
    if (claimed == owner_dropped) {
        token.run = destroy_dropped;
        here.loop.ready(&token);
        return;
    }
    auto& heard_by = *reinterpret_cast<waiter*>(claimed);
    // Without a home, deliver_end counts the token after the delivery, so that the runtime does not
    // end before it. A token that ran in place is not in this count.
    if (heard_by.home && !(token.flags & ran_in_place)) core.counts.ended.add_release(1);
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

// ---- dropped handles ----------------------------------------------------------------------------

void drop_unadmitted(token_record& token) noexcept {
    if (token.flags & watched) guard_drop(token);
    if (!(token.flags & in_domain)) {
        destroy_frame(token);
        return;
    }
    domain& inherited = *static_cast<domain*>(token.anchor);
    core_context& core = context();
    // A context that outlives its executor (outlived_by_domains) has no host.
    if (inherited.home == &core && core.host) {
        leave_domain(core, token);
        destroy_frame(token);
    } else if (core.host && core.runtime == inherited.runtime) {
        // The runtime does not end before the token has reached its home.
        core.counts.admitted.add(1);
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
            // The mailbox publishes it; see count_admitted.
            dropped_from_afar.fetch_add(1, std::memory_order_relaxed);
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
    // acq_rel: pairs with the exchange of `owner_done` at the token's end.
    if (token.shared_owner().exchange(owner_dropped, std::memory_order_acq_rel) != owner_done)
        return;
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
        std::fprintf(stderr, "tokengate: %s failed and nobody awaits it: %s\n",
                     heard.id.text().c_str(), what_of(heard.error).c_str());
    } catch (const std::bad_alloc&) {
        std::fputs(
            "tokengate: a token failed that nobody awaits, and there is no memory to say which\n",
            stderr);
    }
}

}  // namespace tokengate::detail
