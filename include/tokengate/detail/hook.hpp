// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>

/// A hook is the intrusive link of everything that waits in a queue of the runtime: a token that is
/// about to start, a completion for an awaiter, a frame that is returned to its core, a control
/// message. The owner embeds the hook; queues never allocate.
///
/// A hook is in at most one queue at a time. The loop that takes it out calls `run` on its own
/// thread. After that call the hook may no longer exist.

namespace tokengate::detail {

struct hook {
    hook* next;
    void (*run)(hook*) noexcept;
};

/// Prefetches the cache lines around a hook whose surrounding object (a suspended frame) is about
/// to be used and is in no near cache. The lines are requested together. Null is allowed.
inline void prefetch_around(const hook* item) noexcept {
    const auto at = reinterpret_cast<std::uintptr_t>(item);
    for (std::uintptr_t line = 0; line <= 256; line += 64)
        __builtin_prefetch(reinterpret_cast<const void*>(at - 64 + line), 1);
}

/// A FIFO queue owned by one thread. It never fails and never allocates; the objects it links bound
/// its length.
class hook_queue {
public:
    [[nodiscard]] bool empty() const noexcept { return head_ == nullptr; }

    void push(hook* item) noexcept {
        item->next = nullptr;
        (head_ ? tail_->next : head_) = item;
        tail_ = item;
    }

    [[nodiscard]] hook* front() const noexcept { return head_; }

    /// Takes out an item that is in the queue. The time is linear in the number of items before it.
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

    /// Appends all items of `other` to this queue, in order.
    void append(hook_queue& other) noexcept {
        if (other.empty()) return;
        (head_ ? tail_->next : head_) = other.head_;
        tail_ = other.tail_;
        other.head_ = nullptr;
    }

    /// Prepends all items of `other` to this queue, in order.
    void prepend(hook_queue& other) noexcept {
        if (other.empty()) return;
        other.tail_->next = head_;
        if (!head_) tail_ = other.tail_;
        head_ = other.head_;
        other.head_ = nullptr;
    }

    /// Moves the items for which `goes` is true to the end of `into`, and returns their number.
    /// Both groups keep their order.
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
    hook* tail_ = nullptr;  // valid only while head_ is set
};

}  // namespace tokengate::detail
