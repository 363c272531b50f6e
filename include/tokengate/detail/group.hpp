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

/// How a group begins its children: each runs in place, one after the other, inside the group's await, until it ends or
/// suspends. So a tree of groups unrolls depth first, and what waits to begin lies in the groups, in no queue.
///
///     begin_group(core, group, awaiter, size, &child_of);
///     each child:  begin_child(core, group, record)      not_yet: leave_rest(core, group), and the loop goes on with it
///     finish_group(core, group)                          true: all have ended, the awaiter need not suspend
///
/// The awaiter counts as suspended meanwhile: it waits at the group, and the running token is the child. One that ends in
/// place finds its group as its waiter and tells nobody; who began it looks. One that suspends is counted in `here` from
/// then on, and ends like any other. What cannot run in place (anchored elsewhere, with a storage tier, on hold, asked to
/// stop, under a shield) is admitted, before the others begin: it must not wait for them.
///
/// A resumption has a budget of children in place. When it is used up, or the stack, every group on the stack leaves its
/// rest to the loop: the innermost first, before all else that waits to start there. So memory is bounded by depth times
/// width.

namespace tokengate::detail {

enum class beginning : std::uint8_t { ended, under_way, not_yet };

/// Through the gate. Awaiter and group as in begin_child.
void admit_in_group(core_context& core, token_group& group, token_record& token,
                    bool admitted) noexcept;
/// Whether it is to run in place; else it has been admitted.
[[nodiscard]] bool begins_here(core_context& core, token_group& group,
                               token_record& token) noexcept;
/// The loop begins the rest in its turn.
void leave_rest(core_context& core, token_group& group) noexcept;
/// Begins the rest. On the loop, as the awaiter; true: all have ended.
[[nodiscard]] bool begin_rest(core_context& core, token_group& group) noexcept;
/// It has children that may be given away; from its first child on until all have begun.
void offer_children(core_context& core, token_group& group) noexcept;
void withdraw_offer(core_context& core, token_group& group) noexcept;
/// What went to others leaves before something runs here.
void send_routed(core_context& core) noexcept;
/// True: nobody elsewhere is waited for.
[[nodiscard]] bool settle_elsewhere(token_group& group) noexcept;

/// One more of the group is counted by others. The one more than there are tokens keeps them from reaching zero before the
/// last has begun. relaxed: admission publishes it.
inline void count_elsewhere(token_group& group) noexcept {
    if (group.routed++ == 0) group.elsewhere.store(group.size + 1, std::memory_order_relaxed);
}

/// True: everything goes through the gate.
[[nodiscard]] inline bool all_through_gate(const core_context& core) noexcept {
    return !core.current || (core.current->word() & forbids_in_place) != 0;
}

/// Nothing needs to be asked about it, now or when its turn comes: it begins here.
[[nodiscard]] inline bool is_plain(const core_context& core, const token_record& token) noexcept {
    const std::uint64_t word = token.word();
    if (word == made_conducted || word == made_task_conducted)
        return static_cast<domain*>(token.anchor)->home == &core;
    return word == made_task;
}

/// The same, or it is kept without asking.
[[nodiscard]] inline bool is_plain_or_kept(const core_context& core,
                                           const token_record& token) noexcept {
    return is_plain(core, token) || keeps_at_once(core, token);
}

/// The resumption of a child inside its group's await. `flags` is what it keeps of its own, and `watched` if it is.
[[gnu::always_inline]] inline beginning run_child(core_context& core, token_group& group,
                                                  token_record& token, std::uint16_t flags) {
    promise_base& promise = promise_base::of(token);
    token.owner = reinterpret_cast<std::uintptr_t>(static_cast<waiter*>(&group));
    token.awaited_by.store(group.token->sequence.load());
    token.set_word(core.in_place |
                   token_word{0, 0, flags, token_state{}, 0}.bits());  // last: now it is listed
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

/// Begins one that nobody has admitted. The running token is the group's awaiter.
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
    group.elsewhere.store(
        0, std::memory_order_relaxed);  // for those who look from outside; see count_elsewhere
    if (group.token) group.token->wait_at(group);
}

/// All have begun. True: all have ended, too.
[[nodiscard]] inline bool finish_group(core_context& core, token_group& group) noexcept {
    if (group.gives) [[unlikely]]
        withdraw_offer(core, group);
    if (group.routed != 0) [[unlikely]]
        group.elsewhere_done = settle_elsewhere(group);
    return --group.here == 0 && group.elsewhere_done;
}

}  // namespace tokengate::detail
