// SPDX-License-Identifier: MIT
#include "gate/backlog.hpp"

#include <tokengate/detail/suspension.hpp>

#include <string>

namespace tokengate::detail {

bool backlog::take_one_of(std::atomic<std::size_t>& places) const noexcept {
    std::size_t seen = places.load(std::memory_order_seq_cst);
    while (seen < options_.limit)
        if (places.compare_exchange_weak(seen, seen + 1, std::memory_order_seq_cst)) return true;
    return false;
}

bool backlog::take() noexcept { return take_one_of(taken_); }

void backlog::leave() noexcept {
    taken_.fetch_sub(1, std::memory_order_seq_cst);
    pass_room_on();
}

void backlog::pass_room_on() noexcept {
    if (options_.limit != 0 && wanted_.load(std::memory_order_seq_cst) != 0) wake_one();
}

void backlog::wake_one() noexcept {
    hook_queue woken;
    {
        const std::scoped_lock lock(mutex_);
        room_.notify_all();
        // One, since a spawner takes its place later; it passes on the room that it leaves.
        if (!spawners_.empty() && has_room()) {
            wanted_.fetch_sub(1, std::memory_order_seq_cst);
            woken.push(spawners_.pop());
        }
    }
    if (!woken.empty()) static_cast<suspension*>(woken.pop())->wake_from_anywhere();
}

admission_rejected backlog::is_full(const token_record& token) const {
    return admission_rejected("admission_rejected: " + token.id().text() +
                              " was not let in: " + std::to_string(options_.limit) +
                              " tokens wait at the gate, those that are held there included, as "
                              "many as backlog.limit allows");
}

bool backlog::enter_from_outside(token_record& token) {
    if (options_.limit == 0 || (token.flags & in_domain)) return false;
    // A wrapper token takes no place: the token that it awaits will take one. But the thread that
    // submits a wrapper token waits for room. If a new token sheds an older one, the gate does
    // that.
    const bool takes_place = counts(token) && options_.policy != backlog_policy::shed_oldest;
    const auto may_enter = [&] {
        if (takes_place) return take();
        return (options_.policy != backlog_policy::wait || has_room()) && take_one_of(in_mail_);
    };
    if (!may_enter()) {
        std::unique_lock lock(mutex_);
        if (closed_) return false;  // the submit will be rejected, since the runtime is stopping
        if (takes_place && options_.policy == backlog_policy::reject) {
            if (operation_stats* stats =
                    refused_ ? refused_->of(token.operation.load()->index) : nullptr)
                stats->refused.add(1);
            throw is_full(token);
        }
        bool roomy = false;
        wanted_.fetch_add(1, std::memory_order_seq_cst);
        room_.wait(lock, [&] { return closed_ || (roomy = may_enter()); });
        wanted_.fetch_sub(1, std::memory_order_seq_cst);
        if (!roomy) return false;  // the submit will be rejected
    }
    if (takes_place) token.state.store(token_state::waiting);
    return !takes_place;
}

void backlog::leave_mail() noexcept {
    // One wake-up serves many: a waiting thread has found the mail full, so the count passes half
    // the limit once more.
    if (in_mail_.fetch_sub(1, std::memory_order_seq_cst) != options_.limit / 2 + 1 ||
        wanted_.load(std::memory_order_seq_cst) == 0)
        return;
    const std::scoped_lock lock(mutex_);
    room_.notify_all();
}

bool backlog::wait_for_room(suspension& spawner, const token_record& spawned) noexcept {
    if (options_.limit == 0 || (spawned.flags & in_domain)) return false;
    if (options_.policy != backlog_policy::wait) {
        if (has_room()) return false;
        // The rejected token ends on this loop. A spawner that never yields would accumulate such
        // tokens. So the spawner is queued behind pending starts, and then behind pending
        // completions.
        spawner.wake_behind_starts();
        return true;
    }
    const std::scoped_lock lock(mutex_);
    wanted_.fetch_add(1, std::memory_order_seq_cst);
    if (has_room() && spawners_.empty()) {
        wanted_.fetch_sub(1, std::memory_order_seq_cst);
        return false;
    }
    spawners_.push(&spawner);
    return true;
}

bool backlog::leave_queue(suspension& spawner) noexcept {
    const std::scoped_lock lock(mutex_);
    for (hook* each = spawners_.front(); each; each = each->next)
        if (each == &spawner) {
            spawners_.remove(&spawner);
            wanted_.fetch_sub(1, std::memory_order_seq_cst);
            return true;
        }
    return false;  // the spawner has been woken
}

void backlog::close() noexcept {
    const std::scoped_lock lock(mutex_);
    closed_ = true;
    room_.notify_all();
}

}  // namespace tokengate::detail
