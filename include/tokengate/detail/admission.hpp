// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/core_context.hpp>
#include <tokengate/detail/domain.hpp>
#include <tokengate/detail/token_record.hpp>
#include <tokengate/detail/transfer.hpp>

#include <atomic>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <exception>

/// The requests that tokens, groups and operations make to the runtime: the compiled side of the
/// token path.

namespace tokengate::detail {

/// Throws wrong_thread or wrong_runtime.
[[noreturn]] void throw_not_admissible(const token_record& token);

/// Throws wrong_thread if no event loop runs on this thread. Throws wrong_runtime if the token was
/// admitted in another runtime or inherited a seed there.
inline void check_admissible(const token_record& token) {
    const core_context* core = this_core;
    if (!core || !core->host) [[unlikely]]
        throw_not_admissible(token);
    if (const std::uint16_t admitted_in = token.runtime.load(); admitted_in != 0) {
        if (admitted_in != core->runtime_slot) [[unlikely]]
            throw_not_admissible(token);
    } else if ((token.flags & in_domain) &&
               static_cast<domain*>(token.anchor)->runtime != core->runtime) [[unlikely]] {
        throw_not_admissible(token);
    }
}

/// Hands a token to the gate of this thread's runtime. The caller has fixed the token's owner word.
/// The caller does not touch the token after this call.
void admit(core_context& core, token_record& token) noexcept;

/// Called before a child runs in place while its steps are instrumented (`watched`).
void watch_in_place(core_context& core, token_record& token) noexcept;
/// Called when an instrumented child has suspended and the group whose body is `awaiter` continues
/// with the next child.
void watch_next(core_context& core, token_record& awaiter) noexcept;

/// Where a token that has not been admitted may begin. `here`: in its awaiter's turn. `kept`: in
/// its awaiter's turn if `keeps` allows it. `gate`: through the gate.
enum class place : std::uint8_t { here, kept, gate };

inline place place_of(const core_context& core, const token_record& token) noexcept {
    const std::uint16_t flags = token.flags;
    if (flags & ~(in_domain | unroutable | leads)) return place::gate;
    if (flags & in_domain)
        return static_cast<domain*>(token.anchor)->home == &core ? place::here : place::gate;
    return flags & unroutable ? place::here : place::kept;
}

/// Whether the latest runs of the token's operation on this core were short. False while nothing is
/// known.
[[nodiscard]] inline bool known_to_be_short(const core_context& core,
                                            const token_record& token) noexcept {
    return core.operations[token.operation.load()->index].is_short;
}

/// Whether an unconducted child of the running token runs in place. The loop must have a position
/// in the home range of the child's class. The gate must hold no tokens, the backlog must have no
/// limit, and no start bit may be set. A child that is not known to be short runs in place only if
/// nothing else waits on this loop. If another core of its range is hungry, the oldest children of
/// groups that wait here to begin go there. If there are none, the child runs in place only if
/// nothing else waits on this loop.
[[nodiscard]] bool keeps(core_context& core, const token_record& token) noexcept;
/// The same for the case that needs no further check: the child is known to be short, no attention
/// bit and no start bit is set, and no core of its range is hungry.
[[nodiscard]] inline bool keeps_at_once(const core_context& core,
                                        const token_record& token) noexcept {
    if (token.word() != made_call) return false;
    const operation_record& of = *token.operation.load();
    const auto silent = [](const std::atomic<std::uint32_t>* word) {
        return word->load(std::memory_order_relaxed) == 0;
    };
    return known_to_be_short(core, token) && silent(core.keeping.attention) &&
           silent(core.keeping.at_start) &&
           silent(core.keeping.hungry[static_cast<std::size_t>(of.weight_class)]);
}
/// Whether a child of a group may be kept: it is known to be short, so its siblings need not be
/// routed at once.
[[nodiscard]] bool may_keep(core_context& core, const token_record& token) noexcept;
/// start_child for a child that is kept although it is not known to be short: the run is measured.
[[nodiscard]] started start_measured(core_context& core, token_record& child,
                                     std::coroutine_handle<>& continuation,
                                     std::coroutine_handle<> awaiter);
/// Called for a child in place if the budget or the stack is used up, or if steps are instrumented.
/// True if the child may run in place, instrumented.
[[nodiscard]] bool begin_watched(core_context& core, token_record& token) noexcept;
/// Called when a lead starts in place.
void open_domain(core_context& core, token_record& lead) noexcept;

/// Called when the handle of a token is destroyed. Before admission: counts the token out of its
/// domain and destroys its frame. After admission: the token continues without an awaiter, or is
/// destroyed if it has ended.
void drop_unadmitted(token_record& token) noexcept;
void drop_admitted(token_record& token) noexcept;

void release_permit(core_context& core, token_record& holder) noexcept;
void force_permit(core_context& core, token_record& resumed) noexcept;

/// Called when the running token is about to await others: its storage permit returns to the gate.
inline void give_up_permit(core_context& core, token_record& awaiting) noexcept {
    if (awaiting.flags & holds_permit) [[unlikely]]
        release_permit(core, awaiting);
}
/// Called when the token resumes: takes the permit again, over the limit if necessary.
inline void retake_permit(core_context& core, token_record& resumed) noexcept {
    if ((resumed.flags & (has_tier | holds_permit)) == has_tier) [[unlikely]]
        force_permit(core, resumed);
}

/// Subtracts the tokens that ended here last from their group; see token_group.
void flush_ended_group(core_context& core) noexcept;

/// Passes a failure that no awaiter can receive to the failure handler of the runtime that admitted
/// the token. Any thread.
void report_failure(token_record& token, std::exception_ptr error) noexcept;
/// Stores the state in which a token has ended. Translates its error into the one for what ended
/// it: a stop from the gate becomes token_killed.
void note_failure(core_context& core, token_record& token) noexcept;
/// Whether a failure means only that the token obeyed a stop request.
[[nodiscard]] bool was_asked_for(const token_record& token,
                                 const std::exception_ptr& error) noexcept;

/// Requests a token to stop. `reason`: bits of stop_reasons. The caller knows that the frame is
/// alive: it is the token's awaiter, on the awaiter's loop, or the holder of its handle, on any
/// thread.
void request_stop(token_record& token, std::uint8_t reason) noexcept;

/// As a waiter's `done`, marks it as a group: the end counts instead of calling `done`.
void group_done(token_record& token, waiter& self) noexcept;

/// Thrown for a handle without a token, and for a token that was admitted before.
[[noreturn]] void throw_already_awaited();
[[noreturn]] void throw_already_admitted(const token_record& token);

}  // namespace tokengate::detail
