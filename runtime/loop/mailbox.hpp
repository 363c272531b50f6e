// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/hook.hpp>

#include <atomic>
#include <cstdint>

/// The mailbox of one event loop: the hooks that other threads hand to the loop, and the word on
/// which the loop parks.
///
/// Many senders push chains of hooks, with one compare-and-swap each. The owner takes everything
/// with one fetch_and, which keeps the closed bit. No side ever waits for the other: a preempted
/// sender has either pushed its chain or not. The same word shows whether the owner is parked and
/// whether foreign threads may still push. So one atomic operation decides *push against park*, and
/// one decides *submit against stop*:
///
///     word = pointer to the newest hook | parked | closed    (parked only without a pointer)
///
/// Beside that word, in the same cache line, is a second list, of *lent* work: new work that this
/// loop may begin, and that any thread may take back before the loop has begun it. `lend` pushes
/// there and unparks; any thread may call `take_lent`.
///
/// Chains are linked newest first, like the list itself; `take` brings the whole list into order of
/// arrival. The capacity is unbounded: everything that travels here was admitted before, and
/// windows and permits bound that. A chain is at most one outbox.
///
/// Memory order. `push` releases its hooks to the `take` that acquires them. `push` and `park` are
/// both read-modify-writes of one word, so one of them is first. If it is `push`, `park` finds the
/// hook and fails. If it is `park`, `push` finds the parked bit and owes a wake. A queue beside
/// this word is filled before `nudge` and scanned after `park`. `nudge` may do no more than load
/// the word. Such a queue therefore needs a mutex on both sides, or seq_cst operations to fill and
/// to scan it. The list of lent work is such a queue. Modelled in tests/models/park.pml and
/// tests/models/lent.pml.

namespace tokengate::detail {

class mailbox {
public:
    enum class pushed : std::uint8_t {
        delivered,  ///< the owner is awake and will poll the mailbox
        wake_owed,  ///< the owner was parked: the caller must wake it now
        /// Closed, and the push came from a foreign thread: the chain still belongs to the caller.
        refused
    };

    /// Any thread. `newest` … `oldest` is a chain linked from the newest to the oldest hook.
    pushed push(hook* newest, hook* oldest) noexcept { return push_unless(newest, oldest, 0); }

    /// For foreign threads. Refused once the mailbox is closed.
    pushed submit(hook* item) noexcept { return push_unless(item, item, closed_bit); }

    /// Any thread. Unparks the owner without a message. True if the owner was parked: then the
    /// caller must wake it.
    bool nudge() noexcept {
        // seq_cst: pairs with the CAS in park().
        std::uintptr_t seen = word_.load(std::memory_order_seq_cst);
        while (seen & parked_bit)
            if (word_.compare_exchange_weak(seen, seen & ~parked_bit, std::memory_order_seq_cst))
                return true;
        return false;
    }

    /// Any thread. Like push, but to the list of lent work. True if the owner was parked: then the
    /// caller must wake it.
    bool lend(hook* newest, hook* oldest) noexcept {
        hook* seen = nullptr;
        do oldest->next = seen;
        while (!lent_.compare_exchange_weak(seen, newest, std::memory_order_seq_cst,
                                            std::memory_order_relaxed));
        // The list is filled before the nudge: see the head of this file.
        return nudge();
    }
    /// Any thread. Takes all lent work that has not been taken, oldest first. Unparks nobody.
    hook* take_lent() noexcept {
        // acquire: pairs with the push in lend, which is seq_cst and therefore releases. release: a
        // thread that finds the list empty because of this exchange also finds the earlier note of
        // the taking thread that it takes (event_loop::has_lent).
        return in_order(lent_.exchange(nullptr, std::memory_order_acq_rel));
    }
    /// Any thread, as a hint. It is exact for the owner after `park`: the owner finds what a sender
    /// lent before a nudge that came too early to find the parked bit.
    [[nodiscard]] bool has_lent() const noexcept {
        return lent_.load(std::memory_order_seq_cst) != nullptr;
    }

    /// Any thread. From here on `submit` is refused; everything accepted before is in the list.
    /// Wakes nobody: the caller nudges afterwards.
    void close() noexcept {
        // acq_rel: pairs with the CAS of submit, in push_unless().
        word_.fetch_or(closed_bit, std::memory_order_acq_rel);
    }

    /// Any thread, as a hint.
    [[nodiscard]] bool parked() const noexcept {
        return word_.load(std::memory_order_relaxed) & parked_bit;
    }

    [[nodiscard]] bool closed() const noexcept {
        return word_.load(std::memory_order_acquire) & closed_bit;
    }

    // ---- owner only ----

    [[nodiscard]] bool empty() const noexcept {
        return !(word_.load(std::memory_order_relaxed) & ~flag_bits);
    }

    /// Takes everything, oldest first. Also unparks.
    hook* take() noexcept {
        // acquire: pairs with the release of every push since the last take.
        std::uintptr_t taken = word_.fetch_and(closed_bit, std::memory_order_acq_rel);
        return in_order(reinterpret_cast<hook*>(taken & ~flag_bits));
    }

    /// Publishes that the owner is about to sleep. False if a hook has arrived. After true, the
    /// owner once more scans everything else that could give it work, and then sleeps until a push
    /// or a nudge wakes it.
    bool park() noexcept {
        std::uintptr_t seen = word_.load(std::memory_order_relaxed) & flag_bits & ~parked_bit;
        // seq_cst: pairs with the load in nudge(). Either the thread that fills a queue beside this
        // word finds the parked bit, or the owner's scan finds what that thread filled in.
        while (!word_.compare_exchange_weak(seen, seen | parked_bit, std::memory_order_seq_cst))
            if (seen & ~flag_bits) return false;
        return true;
    }

    /// Called when the owner is awake again, whatever woke it.
    void unpark() noexcept { word_.fetch_and(~parked_bit, std::memory_order_acq_rel); }

private:
    static constexpr std::uintptr_t parked_bit = 1, closed_bit = 2,
                                    flag_bits = parked_bit | closed_bit;

    static hook* in_order(hook* newest_first) noexcept {
        hook* oldest_first = nullptr;
        while (newest_first) {
            prefetch_around(newest_first);  // the hook is in another core's cache
            hook* next = newest_first->next;
            newest_first->next = oldest_first;
            oldest_first = newest_first;
            newest_first = next;
        }
        return oldest_first;
    }

    pushed push_unless(hook* newest, hook* oldest, std::uintptr_t refused_by) noexcept {
        // The word is usually 0, so the first attempt assumes that. To load it before would fetch
        // the line twice: once to read it, and once to write it.
        std::uintptr_t seen = 0;
        do {
            if (seen & refused_by) return pushed::refused;
            oldest->next = reinterpret_cast<hook*>(seen & ~flag_bits);
        } while (!word_.compare_exchange_weak(
            seen, reinterpret_cast<std::uintptr_t>(newest) | (seen & closed_bit),
            std::memory_order_acq_rel, std::memory_order_relaxed));
        return seen & parked_bit ? pushed::wake_owed : pushed::delivered;
    }

    alignas(64) std::atomic<std::uintptr_t> word_{0};
    std::atomic<hook*> lent_{nullptr};  // any thread pushes, any thread empties
};

static_assert(alignof(hook) >= 4, "two low bits of a hook's address are the mailbox's flags");

}  // namespace tokengate::detail
