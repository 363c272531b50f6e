// SPDX-License-Identifier: MIT

// How a token is asked to stop, and how it is notified.
//
// A stop request sets a bit in the token's record, which a running body can poll, and sends a
// message to the token's loop. The message ends the wait of a suspended body. It names the token by
// address and sequence. The loop checks it on the one thread that could end the token. So a token
// that is found alive there stays alive meanwhile, and a token that has ended is not found. (A
// requester sets the bit only if it knows that the frame lives: it runs the token's awaiter, or
// holds the token's handle.)
//
// A token that is not placed yet (it waits at the gate, or is being routed) has no loop. Then every
// loop receives the message. If the token starts after its loop has taken the message, it finds the
// bit, since the message was sent after the bit was set. If it has started before, the message
// finds the token. So a token that is not stopped pays nothing for this. A sweep takes the tokens
// that are to stop out of the gate's queues, so that their rejection does not wait for room.

#include "executor/stop.hpp"

#include "executor/domain.hpp"
#include "executor/executor.hpp"
#include "executor/shared.hpp"

#include <tokengate/detail/admission.hpp>
#include <tokengate/detail/promise.hpp>
#include <tokengate/detail/stop_callback.hpp>
#include <tokengate/detail/suspension.hpp>
#include <tokengate/error.hpp>

#include <atomic>
#include <mutex>
#include <new>
#include <string>
#include <utility>

namespace tokengate::detail {

namespace {

struct stop_message : hook {
    token_record* token;
    std::uint64_t sequence;
    std::uint8_t reason;
};

/// On a loop's thread; for a message that no loop has taken, on the destroying thread.
void deliver_message(hook* item) noexcept {
    const stop_message message = *static_cast<stop_message*>(item);
    core_context& core = context();
    core.pool->deallocate(item, sizeof(stop_message), slab_kind::object);
    if (!core.host) return;
    bool ours = false;
    frame_pool::visit_if_mapped(message.token, [&] {
        const token_state state = message.token->state.load_acquire();
        ours = (state == token_state::executing || state == token_state::admitted) &&
               message.token->sequence.load() == message.sequence &&
               message.token->position.load() == core.position &&
               message.token->runtime.load() == core.runtime_slot;
    });
    if (!ours) return;
    message.token->stop.set_bits(message.reason);
    deliver_stop(core, *message.token);
}

stop_message* make_message(token_record& token, std::uint8_t reason) {
    auto* message = static_cast<stop_message*>(context().pool->allocate(sizeof(stop_message),
                                                                        slab_kind::object));
    message->run = deliver_message;
    message->token = &token;
    message->sequence = token.sequence.load();
    message->reason = reason;
    return message;
}

void send_messages(shared_state& runtime, token_record& token, std::uint8_t reason) {
    // A thread outside the runtime may come after the runtime's loops have ended, and the token
    // with them.
    std::unique_lock<std::mutex> still_there;
    if (!this_core || this_core->runtime != &runtime) {
        still_there = std::unique_lock(runtime.orphans);
        if (runtime.joined) return;
    }
    const unsigned position = token.position.load();
    if (position != no_position) {
        send_home(*runtime.executors[position], make_message(token, reason));
        return;
    }
    for (const auto& each : runtime.executors) send_home(*each, make_message(token, reason));
    runtime.sweep_gate();
}

}  // namespace

void send_home(executor& home, hook* item) noexcept {
    const core_context* here = this_core;
    if (!here || !here->host || here->runtime != &home.runtime)
        home.loop.post(item);
    else if (here->host == &home)
        home.loop.ready(item);
    else
        here->host->send_hook(home.position(), item);
}

void request_stop(token_record& token, std::uint8_t reason) noexcept {
    token.stop.set_bits(reason);  // published by the messages that follow
    // Before the load of its position; pairs with the fence in executor::return_to_gate.
    std::atomic_thread_fence(std::memory_order_seq_cst);
    const std::uint16_t slot = token.runtime.load();
    if (slot == 0) return;  // the token is not admitted: it will end unrun
    try {
        const core_context* here = this_core;
        if (here && here->runtime && here->runtime_slot == slot)
            send_messages(*here->runtime, token, reason);
        else
            with_runtime(slot,
                         [&](shared_state& runtime) { send_messages(runtime, token, reason); });
    } catch (const std::bad_alloc&) {
        // The body finds the bit when it polls, or at its next await.
    }
}

void deliver_stop(core_context& core, token_record& asked) noexcept {
    // Down the chain of tokens that await one another, as far as it stays on this loop.
    for (token_record* token = &asked; token != core.current;) {
        if (token->state.load() != token_state::executing || (token->flags & shielded)) return;
        if (token->flags & has_callbacks) core.host->run_stop_callbacks(*token);
        if (wait_point* point = token->waits_at()) {
            token->wait_is_over();  // a wait is ended at most once
            point->on_stop(core, *point);
            return;
        }
        token_record* child = token->waits_for();
        if (!child) return;  // the body is about to be resumed
        if (child->position.load() != core.position) {
            request_stop(*child, stop_asked);
            return;
        }
        child->stop.set_bits(stop_asked);
        token = child;
    }
}

std::exception_ptr not_started(const token_record& token) noexcept {
    try {
        return std::make_exception_ptr(
            token_stopped("token_stopped: " + token.id().text() +
                          " was asked to stop before it had started, and did not run"));
    } catch (...) {
        return std::current_exception();
    }
}

token_killed killed(const token_id& id, const std::string& reason) {
    return token_killed("token_killed: " + id.text() + " was killed: " + reason);
}

// ---- callbacks ----------------------------------------------------------------------------------

void executor::run_stop_callbacks(token_record& token) noexcept {
    token.flags = static_cast<std::uint16_t>(token.flags & ~has_callbacks);
    // One at a time: each callback may destroy others.
    for (auto found = stop_callbacks_.find(&token); found != stop_callbacks_.end();
         found = stop_callbacks_.find(&token)) {
        stop_callback_base& callback = *found->second;
        stop_callbacks_.erase(found);
        callback.of_ = nullptr;
        callback.call_(callback);
    }
}

void executor::enlist_stop_callback(token_record& token, stop_callback_base& callback) {
    stop_callbacks_.emplace(&token, &callback);
    token.flags |= has_callbacks;
}

void executor::forget_stop_callback(token_record& token,
                                    const stop_callback_base& callback) noexcept {
    const auto [first, last] = stop_callbacks_.equal_range(&token);
    for (auto each = first; each != last; ++each)
        if (each->second == &callback) {
            stop_callbacks_.erase(each);
            return;
        }
}

}  // namespace tokengate::detail

namespace tokengate {

void stop_callback_base::enlist(stop_token token, void (*call)(stop_callback_base&) noexcept) {
    detail::core_context* core = detail::this_core;
    if (!core || !core->host || core->current != token.of_)
        throw wrong_thread(
            "wrong_thread: a stop_callback was made outside of the token whose stop it is to hear: "
            "make it in that "
            "token's own body");
    if (token.of_->stop_pending()) {
        call(*this);
        return;
    }
    core->host->enlist_stop_callback(*token.of_, *this);
    call_ = call;
    of_ = token.of_;
}

stop_callback_base::~stop_callback_base() {
    if (of_) detail::this_core->host->forget_stop_callback(*of_, *this);
}

}  // namespace tokengate
