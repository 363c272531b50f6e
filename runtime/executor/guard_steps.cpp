// SPDX-License-Identifier: MIT
#include "executor/guard_steps.hpp"

#include "executor/shared.hpp"
#include "gate/guard.hpp"
#include "loop/event_loop.hpp"
#include "token/notes.hpp"

#include <tokengate/detail/promise.hpp>

#include <chrono>

namespace tokengate::detail {

std::exception_ptr guard_admission(core_context& core, const token_record& token) noexcept {
    if (!is_guarded(token)) return nullptr;
    try {
        return core.runtime->guards.of(*token.operation.load()).admit(token.id());
    } catch (...) {
        return std::current_exception();  // without memory to judge the token, the guard rejects it
    }
}

void guard_start(core_context& core, const token_record& token) noexcept {
    if (!is_guarded(token)) return;
    if (guard_desk* desk = core.runtime->guards.find(token.operation.load()->index))
        desk->started();
}

void guard_end(core_context& core, token_record& token) noexcept {
    if (!is_guarded(token)) return;
    guard_desk* desk = core.runtime->guards.find(token.operation.load()->index);
    if (!desk) return;  // there was no memory to make the desk
    ended_run run{.token = token.id(), .outcome = outcome_of(token)};
    if (token_notes* notes = promise_base::of(token).notes()) {
        if (notes->started_ns != 0)
            run.took = std::chrono::nanoseconds(event_loop::steady_ns() - notes->started_ns);
        run.arguments = notes->arguments;
    }
    desk->ended(run);
}

void guard_drop(token_record& token) noexcept {
    token_notes* notes = guarded_notes(token);
    if (!notes) return;
    forget(*context().pool, *notes);
    promise_base::of(token).keep_notes(nullptr);
}

}  // namespace tokengate::detail
