// SPDX-License-Identifier: MIT
#include <tokengate/scope.hpp>

#include "executor/executor.hpp"
#include "executor/shared.hpp"

#include <tokengate/detail/core_context.hpp>
#include <tokengate/detail/promise.hpp>
#include <tokengate/error.hpp>

#include <string>
#include <utility>

namespace tokengate::detail {

scope_core::scope_core(const scope_options& options)
    : options_(options),
      room_(options.limit != 0 ? options.limit : 1),
      home_(suspension::on_a_loop("open a scope").host),
      owner_(this_core->current) {}

void scope_core::request_stop() noexcept {
    if (std::exchange(stopping_, true)) return;
    if (body_) detail::request_stop(*body_, stop_asked);
    for (child* each = children_; each; each = each->next)
        detail::request_stop(*each->work, stop_asked);
}

// ---- spawning -----------------------------------------------------------------------------------

void scope_core::check_spawn(const token_record& token, bool admitted) const {
    const core_context* core = this_core;
    if (!core || core->host != home_)
        throw wrong_thread("wrong_thread: " + token.id().text() +
                           " was to be spawned into a scope of another loop: a scope belongs to "
                           "the loop where it was "
                           "opened; open one on this core");
    if (stopping_ || (core->current && core->current->stop_pending()))
        throw token_stopped("token_stopped: " + token.id().text() +
                            " was not spawned: the scope or its spawner has been asked to stop");
    if (admitted) throw_already_admitted(token);
    check_admissible(token);
}

bool scope_core::take_room(spawner& waiting, std::coroutine_handle<> awaiting,
                           const token_record& spawned) {
    core_context& core = *this_core;
    waiting.of = this;
    waiting.spawned = &spawned;
    waiting.suspend(core, awaiting, [](core_context&, wait_point& point) noexcept {
        auto& self = static_cast<spawner&>(static_cast<suspension&>(point));
        self.of->spawners_.remove(&self);
        self.wake();
    });
    if (alive_ < room_ && spawners_.empty()) {
        ++alive_;
        if (!wait_for_gate(waiting)) {
            waiting.wait_is_over();
            return false;
        }
    } else {
        spawners_.push(&waiting);
    }
    // The tokens that the spawner waits for may need a permit of the same tier.
    if (waiting.token) give_up_permit(core, *waiting.token);
    return true;
}

bool scope_core::wait_for_gate(spawner& waiting) noexcept {
    waiting.has_room = true;
    waiting.on_stop = [](core_context& at, wait_point& point) noexcept {
        auto& self = static_cast<spawner&>(static_cast<suspension&>(point));
        if (!at.runtime->places.leave_queue(self)) return;  // the backlog has already woken it
        self.has_room = false;
        self.of->give_room_back();
        self.wake();
    };
    return this_core->runtime->places.wait_for_room(waiting, *waiting.spawned);
}

void scope_core::spawner_resumed() {
    core_context& core = *this_core;
    if (core.current) retake_permit(core, *core.current);
}

void scope_core::give_room_back() noexcept {
    this_core->runtime->places.pass_room_on();
    if (spawners_.empty()) {
        --alive_;
        wake_if_joined();
        return;
    }
    // The place passes directly to the next spawner: `alive_` stays as it is.
    auto& next = *static_cast<spawner*>(spawners_.pop());
    if (!wait_for_gate(next)) next.wake();
}

void scope_core::admit_child(token_record& token) {
    core_context& core = *this_core;
    auto* added = static_cast<child*>(core.pool->allocate(sizeof(child), slab_kind::object));
    added->done = child_ended;
    added->home = home_;
    added->of = this;
    added->token = owner_;
    added->work = &token;
    added->previous = nullptr;
    added->next = children_;
    if (children_) children_->previous = added;
    children_ = added;
    token.owner = reinterpret_cast<std::uintptr_t>(static_cast<waiter*>(added));
    token.awaited_by.store(core.current ? core.current->sequence.load() : 0);
    admit(core, token);
    core.runtime->places.pass_room_on();
}

void scope_core::child_ended(token_record& token, waiter& self) noexcept {
    auto& ended = static_cast<child&>(self);
    scope_core& of = *ended.of;
    (ended.previous ? ended.previous->next : of.children_) = ended.next;
    if (ended.next) ended.next->previous = ended.previous;
    promise_base& promise = promise_base::of(token);
    if (promise.error) of.fail(token, std::move(promise.error));
    promise.handle().destroy();
    this_core->pool->deallocate(&ended, sizeof(child), slab_kind::object);
    of.give_room_back();
}

void scope_core::fail(token_record& token, std::exception_ptr error) noexcept {
    const bool asked_for = was_asked_for(token, error);
    cut_short_ |= asked_for;
    if (options_.on_failure == on_failure::report || first_failure_ || asked_for) {
        report_failure(token,
                       std::move(error));  // reports nothing if a requested stop is the cause
        return;
    }
    first_failure_ = std::move(error);
    request_stop();
}

// ---- the body, and the end ----------------------------------------------------------------------

void scope_core::start_body(token_record& body) noexcept {
    core_context& core = *this_core;
    body_waiter_.done = body_ended;
    body_waiter_.home = home_;
    body_waiter_.of = this;
    body_waiter_.token = owner_;
    body_ = &body;
    body.owner = reinterpret_cast<std::uintptr_t>(static_cast<waiter*>(&body_waiter_));
    body.awaited_by.store(core.current ? core.current->sequence.load() : 0);
    admit(core, body);
}

void scope_core::body_ended(token_record& token, waiter& self) noexcept {
    scope_core& of = *static_cast<child&>(self).of;
    of.body_ = nullptr;
    if (std::exception_ptr& error = promise_base::of(token).error) {
        // The error may be a token_stopped. Then the stop came from outside, and the scope ends
        // with token_stopped.
        if (of.first_failure_)
            report_failure(token, std::move(error));
        else
            of.first_failure_ = std::move(error);
        of.request_stop();
    }
    of.wake_if_joined();
}

void scope_core::stop_from_outside() noexcept {
    stopped_from_outside_ = true;
    request_stop();
}

void scope_core::rethrow_failure() {
    if (first_failure_) std::rethrow_exception(std::move(first_failure_));
    if (stopped_from_outside_ && cut_short_)
        throw token_stopped(
            "token_stopped: a scope was asked to stop, and with it tokens that had not ended");
}

void scope_core::wake_if_joined() noexcept {
    if (joiner_ && all_ended()) std::exchange(joiner_, nullptr)->wake();
}

bool scope_core::joining::await_suspend(std::coroutine_handle<> awaiting) {
    core_context& core = *this_core;
    if (core.current) {
        give_up_permit(core, *core.current);
        if (core.current->stop_pending()) of_.stop_from_outside();
    }
    if (of_.all_ended()) return false;
    suspend(core, awaiting, [](core_context&, wait_point& point) noexcept {
        static_cast<joining&>(static_cast<suspension&>(point)).of_.stop_from_outside();
    });
    of_.joiner_ = this;
    return true;
}

void scope_core::joining::await_resume() {
    core_context& core = *this_core;
    if (core.current) retake_permit(core, *core.current);
}

}  // namespace tokengate::detail
