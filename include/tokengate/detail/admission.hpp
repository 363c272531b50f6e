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

/// What tokens, groups and operations ask of the runtime; the compiled side of the token path.

namespace tokengate::detail {

/// Throws wrong_thread or wrong_runtime.
[[noreturn]] void throw_not_admissible(const token_record& token);

/// Throws wrong_thread if no event loop runs on this thread, wrong_runtime if the token was admitted in another runtime or
/// inherited a seed there.
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

/// Hands a token to the gate of this thread's runtime. Its owner word is fixed already. The token is not touched after it
/// has been handed over.
void admit(core_context& core, token_record& token) noexcept;

/// A child is about to run in place, and somebody watches.
void watch_in_place(core_context& core, token_record& token) noexcept;
/// It has suspended, and the group whose body is `awaiter` goes on with the next.
void watch_next(core_context& core, token_record& awaiter) noexcept;

/// Where a token that nobody has admitted may begin: in its awaiter's turn; there too, if it is kept; through the gate.
enum class place : std::uint8_t { here, kept, gate };

inline place place_of(const core_context& core, const token_record& token) noexcept {
    const std::uint16_t flags = token.flags;
    if (flags & ~(in_domain | unroutable | leads)) return place::gate;
    if (flags & in_domain)
        return static_cast<domain*>(token.anchor)->home == &core ? place::here : place::gate;
    return flags & unroutable ? place::here : place::kept;
}

/// Whether its operation's last runs on this core were short; false while nothing is known.
[[nodiscard]] inline bool known_to_be_short(const core_context& core,
                                            const token_record& token) noexcept {
    return core.operations[token.operation.load()->index].is_short;
}

/// Whether an unconducted child of the running token is to run in place: the loop has a position in the home range of its
/// class, nobody has said anything to the gate, it is known to be short or nothing else waits here, and no other core of its
/// range is hungry while something does. To a hungry one go the oldest that wait here to begin.
[[nodiscard]] bool keeps(core_context& core, const token_record& token) noexcept;
/// The same where nothing needs to be asked: known to be short, nobody has said anything, and no core of its range is hungry.
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
/// Whether one of a group may be kept: known to be short, so that the others need not go elsewhere at once.
[[nodiscard]] bool may_keep(core_context& core, const token_record& token) noexcept;
/// start_child, of one that is kept though it is not known to be short: its run is measured.
[[nodiscard]] started start_measured(core_context& core, token_record& child,
                                     std::coroutine_handle<>& continuation,
                                     std::coroutine_handle<> awaiter);
/// For a child in place: the budget is used up, or the stack, or somebody watches; then true if it may run, watched.
[[nodiscard]] bool begin_watched(core_context& core, token_record& token) noexcept;
/// A lead starts in place.
void open_domain(core_context& core, token_record& lead) noexcept;

/// The handle of a token goes away: before admission (its domain is told, its frame destroyed), or after.
void drop_unadmitted(token_record& token) noexcept;
void drop_admitted(token_record& token) noexcept;

void release_permit(core_context& core, token_record& holder) noexcept;
void force_permit(core_context& core, token_record& resumed) noexcept;

/// The running token is about to await others: its storage permit goes back to the gate …
inline void give_up_permit(core_context& core, token_record& awaiting) noexcept {
    if (awaiting.flags & holds_permit) [[unlikely]]
        release_permit(core, awaiting);
}
/// … and is taken again, over the limit if need be, when it resumes.
inline void retake_permit(core_context& core, token_record& resumed) noexcept {
    if ((resumed.flags & (has_tier | holds_permit)) == has_tier) [[unlikely]]
        force_permit(core, resumed);
}

/// Subtracts what ended here last from its group; see token_group.
void flush_ended_group(core_context& core) noexcept;

/// A failure nobody can hear: to the failure handler of the runtime that admitted the token. Any thread.
void report_failure(token_record& token, std::exception_ptr error) noexcept;
/// The state in which a token has ended, and its error in the words of what ended it: a stop from the gate has become
/// token_killed.
void note_failure(core_context& core, token_record& token) noexcept;
/// Whether a failure says only that the token did what it was asked for.
[[nodiscard]] bool was_asked_for(const token_record& token,
                                 const std::exception_ptr& error) noexcept;

/// Asks a token to stop: bits of stop_reasons. From whoever knows its frame to live: its awaiter, on the awaiter's loop, or
/// the holder of its handle, on any thread.
void request_stop(token_record& token, std::uint8_t reason) noexcept;

/// Marks a waiter as a group, which counts instead of being called.
void group_done(token_record& token, waiter& self) noexcept;

/// What is said of a handle without a token, and of one that was admitted before.
[[noreturn]] void throw_already_awaited();
[[noreturn]] void throw_already_admitted(const token_record& token);

}  // namespace tokengate::detail
