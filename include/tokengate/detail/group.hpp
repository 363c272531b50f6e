// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/admission.hpp>
#include <tokengate/detail/core_context.hpp>
#include <tokengate/detail/domain.hpp>
#include <tokengate/detail/promise.hpp>
#include <tokengate/detail/token_record.hpp>
#include <tokengate/detail/transfer.hpp>

#include <coroutine>
#include <cstdint>

/// How a group begins its children. Each child runs in place, one after the other, inside the
/// group's await, until it ends or suspends. A tree of groups therefore unrolls depth first, and
/// children that wait to begin lie in their groups, in no queue.
///
///     begin_group(core, group, awaiter, size, &child_of);
///     each child:  begin_child(core, group, record)   not_yet: leave_rest, then the loop continues
///     finish_group(core, group)                       true: all have ended, do not suspend
///
/// The awaiter counts as suspended meanwhile: it waits at the group, and the running token is the
/// child. A child that ends in place finds its group as its waiter and notifies nobody; the code
/// that began the child checks for its end. A child that suspends is counted in `here` from then
/// on, and ends like any other token. A child that cannot run in place is admitted before the
/// others begin, because it must not wait for them. The reasons are an anchor elsewhere, a storage
/// tier, tokens held at the gate, a stop request, and an awaiter inside a shield.
///
/// A resumption has a budget of children in place. If the budget or the stack is used up, every
/// group on the stack leaves its rest to the loop. The innermost group is first, before all else
/// that waits to start there. Memory is therefore bounded by depth times width.

namespace tokengate::detail {

enum class beginning : std::uint8_t { ended, under_way, not_yet };

/// Admits a child through the gate. Awaiter and group as in begin_child.
void admit_in_group(core_context& core, token_group& group, token_record& token,
                    bool admitted) noexcept;
/// Whether the child is to run in place. If false, it has been admitted.
[[nodiscard]] bool begins_here(core_context& core, token_group& group,
                               token_record& token) noexcept;
/// Leaves the children that have not begun to the loop, which begins them in a later turn.
void leave_rest(core_context& core, token_group& group) noexcept;
/// Begins the children that were left. Called by the loop, with the awaiter as the running token.
/// True: all have ended.
[[nodiscard]] bool begin_rest(core_context& core, token_group& group) noexcept;
/// Called for a group with children that other cores may take, from its first child until all have
/// begun.
void offer_children(core_context& core, token_group& group) noexcept;
void withdraw_offer(core_context& core, token_group& group) noexcept;
/// Sends the tokens routed to other loops before something runs here.
void send_routed(core_context& core) noexcept;
/// Called when all children have begun. True: none of the routed ones is left to wait for.
[[nodiscard]] bool settle_elsewhere(token_group& group) noexcept;

/// Counts one more child of the group in `elsewhere`. The count starts at one more than there are
/// tokens, so that it cannot reach zero before the last child has begun. relaxed: admission
/// publishes it.
inline void count_elsewhere(token_group& group) noexcept {
    if (group.routed++ == 0) group.elsewhere.store(group.size + 1, std::memory_order_relaxed);
}

/// True: every child goes through the gate.
[[nodiscard]] inline bool all_through_gate(const core_context& core) noexcept {
    return !core.current || (core.current->word() & forbids_in_place) != 0;
}

/// Whether the child begins here without any further check, now or when its turn comes.
[[nodiscard]] inline bool is_plain(const core_context& core, const token_record& token) noexcept {
    const std::uint64_t word = token.word();
    if (word == made_conducted || word == made_task_conducted)
        return static_cast<domain*>(token.anchor)->home == &core;
    return word == made_task;
}

/// The same, or the child is kept without a further check.
[[nodiscard]] inline bool is_plain_or_kept(const core_context& core,
                                           const token_record& token) noexcept {
    return is_plain(core, token) || keeps_at_once(core, token);
}

/// Resumes a child inside its group's await. `flags`: the child's own flags that it keeps, and
/// `watched` if it is instrumented.
[[gnu::always_inline]] inline beginning run_child(core_context& core, token_group& group,
                                                  token_record& token, std::uint16_t flags) {
    promise_base& promise = promise_base::of(token);
    token.owner = reinterpret_cast<std::uintptr_t>(static_cast<waiter*>(&group));
    token.awaited_by.store(group.token->sequence.load());
    // This store is the last: from here on the token is listed.
    token.set_word(core.in_place | token_word{0, 0, flags, token_state{}, 0}.bits());
    core.counts.in_place.add(1);
    if (flags & leads) [[unlikely]]
        open_domain(core, token);
    core.current = &token;
    const std::coroutine_handle<> body = promise.handle();
    resume(core, body);
    core.current = group.token;
    if (body.done()) [[likely]] {
        if (promise.error) [[unlikely]]
            group.any_failed.store(true);
        return beginning::ended;
    }
    token.flags |= counted_here;
    ++group.here;
    if (flags & watched) [[unlikely]]
        watch_next(core, *group.token);
    return beginning::under_way;
}

/// Begins a child that has not been admitted. The running token is the group's awaiter.
[[gnu::always_inline]] inline beginning begin_child(core_context& core, token_group& group,
                                                    token_record& token, bool plain) {
    if (!plain && !begins_here(core, group, token)) return beginning::under_way;
    std::uint16_t flags = token.flags;
    if (--core.inline_budget < 0 ||
        static_cast<char*>(__builtin_frame_address(0)) < core.stack_mark ||
        group.token->stop_requested()) [[unlikely]] {
        if (group.token->stop_requested()) {
            admit_in_group(core, group, token, false);
            return beginning::under_way;
        }
        if (!begin_watched(core, token)) return beginning::not_yet;
        flags |= watched;
    }
    return run_child(core, group, token, flags);
}

void group_done(token_record& token, waiter& self) noexcept;
void resume_group(hook* item) noexcept;

inline void begin_group(
    core_context& core, token_group& group, std::coroutine_handle<> awaiter, std::uint32_t size,
    token_record* (*child)(token_group&, std::uint32_t, bool) noexcept) noexcept {
    group.done = group_done;
    group.home = core.host;
    group.token = core.current;
    group.handle = awaiter;
    group.run = resume_group;
    group.child = child;
    group.size = size;
    group.begun = group.offered = 0;
    group.here = 1;
    group.routed = 0;
    group.elsewhere_done = true;
    group.gives = group.listed = false;
    group.any_failed.store(false);
    // For threads that read the group from outside; see count_elsewhere.
    group.elsewhere.store(0, std::memory_order_relaxed);
    if (group.token) group.token->wait_at(group);
}

/// Called when all children have begun. True: all have ended, too.
[[nodiscard]] inline bool finish_group(core_context& core, token_group& group) noexcept {
    if (group.gives) [[unlikely]]
        withdraw_offer(core, group);
    if (group.routed != 0) [[unlikely]]
        group.elsewhere_done = settle_elsewhere(group);
    return --group.here == 0 && group.elsewhere_done;
}

}  // namespace tokengate::detail
