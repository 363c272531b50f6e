// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>

/// A hook is the intrusive link by which anything waits in a queue of the runtime: a token about to start, a completion on
/// its way to the awaiter, a frame going home, a control message. The owner embeds it; queues never allocate.
///
/// A hook is in at most one queue at a time. Whoever takes it out calls `run`, on the thread of the loop that took it;
/// after that call the hook may be gone.

namespace tokengate::detail {

struct hook {
    hook* next;
    void (*run)(hook*) noexcept;
};

/// What a hook is part of (a suspended frame) is about to be used, and in no near cache: its lines had better come all at
/// once. Null is fine.
inline void prefetch_around(const hook* item) noexcept {
    const auto at = reinterpret_cast<std::uintptr_t>(item);
    for (std::uintptr_t line = 0; line <= 256; line += 64)
        __builtin_prefetch(reinterpret_cast<const void*>(at - 64 + line), 1);
}

/// First in, first out, owned by one thread. Never fails, never allocates; its length is bounded by what it links.
class hook_queue {
public:
    [[nodiscard]] bool empty() const noexcept { return head_ == nullptr; }

    void push(hook* item) noexcept {
        item->next = nullptr;
        (head_ ? tail_->next : head_) = item;
        tail_ = item;
    }

    [[nodiscard]] hook* front() const noexcept { return head_; }

    /// Takes out one that is in it; as long as what stands before it.
    void remove(hook* item) noexcept {
        hook** link = &head_;
        hook* before = nullptr;
        while (*link != item) {
            before = *link;
            link = &before->next;
        }
        *link = item->next;
        if (tail_ == item) tail_ = before;
    }

    hook* pop() noexcept {
        hook* item = head_;
        head_ = item->next;
        return item;
    }

    /// Moves everything of `other` behind what is here, in order.
    void append(hook_queue& other) noexcept {
        if (other.empty()) return;
        (head_ ? tail_->next : head_) = other.head_;
        tail_ = other.tail_;
        other.head_ = nullptr;
    }

    /// Moves everything of `other` before what is here, in order.
    void prepend(hook_queue& other) noexcept {
        if (other.empty()) return;
        other.tail_->next = head_;
        if (!head_) tail_ = other.tail_;
        head_ = other.head_;
        other.head_ = nullptr;
    }

    /// Moves those that `goes` to the end of `into`; who stays and who goes keep their order. How many went.
    template <class Predicate>
    std::size_t split(Predicate goes, hook_queue& into) noexcept {
        hook_queue stay;
        std::size_t gone = 0;
        while (!empty()) {
            hook* item = pop();
            const bool leaves = goes(item);
            (leaves ? into : stay).push(item);
            gone += leaves;
        }
        *this = stay;
        return gone;
    }

private:
    hook* head_ = nullptr;
    hook* tail_ = nullptr;  // meaningful only while head_ is set
};

}  // namespace tokengate::detail
