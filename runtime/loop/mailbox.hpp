// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/hook.hpp>

#include <atomic>
#include <cstdint>

/// The mailbox of one event loop: what other threads hand it, and the word on which the loop parks.
///
/// Many senders push chains of hooks with one compare-and-swap; the owner takes everything with one exchange. Nobody
/// ever waits for anybody: a preempted sender has either pushed its chain or not. The same word says whether the owner
/// is parked and whether foreign threads may still push, so *push against park* and *submit against stop* are each
/// decided by one atomic operation:
///
///     word = pointer to the newest hook | parked | closed        (parked only ever without a pointer)
///
/// Beside that word, in the same line, is a second list, of what is *lent*: new work that this loop may begin, and that anybody
/// may take back before it has. `lend` pushes there and unparks; `take_lent` is for any thread.
///
/// Chains are linked newest first, as the list itself is; `take` turns the whole into arrival order. Capacity:
/// unbounded, since what travels here was admitted before (windows and permits bound it); a chain is at most one
/// outbox.
///
/// Memory order: `push` releases its hooks to the `take` that acquires them. `push` and `park` agree on who goes first
/// because both are read-modify-writes of one word. A queue beside this one (filled before `nudge`, looked at after
/// `park`) must be guarded by a mutex on both sides, or be filled and looked at with seq_cst operations: `nudge` may
/// only load. The list of what is lent is such a queue.

namespace tokengate::detail {

class mailbox {
public:
    enum class pushed : std::uint8_t {
        delivered,  ///< the owner is awake and will look
        wake_owed,  ///< the owner was parked: the caller must wake it now
        refused  ///< closed, and the push came from a foreign thread: the chain is still the caller's
    };

    /// Any thread. `newest` … `oldest` is a chain linked from the newest to the oldest hook.
    pushed push(hook* newest, hook* oldest) noexcept { return push_unless(newest, oldest, 0); }

    /// Foreign threads: refused once the mailbox is closed.
    pushed submit(hook* item) noexcept { return push_unless(item, item, closed_bit); }

    /// Any thread. Unparks the owner without a message; true if it was parked and the caller must wake it.
    bool nudge() noexcept {
        std::uintptr_t seen =
            word_.load(std::memory_order_seq_cst);  // pairs with the CAS in park()
        while (seen & parked_bit)
            if (word_.compare_exchange_weak(seen, seen & ~parked_bit, std::memory_order_seq_cst))
                return true;
        return false;
    }

    /// Any thread. The same as push, to the list of what is lent; true if the owner was parked and the caller must wake it.
    bool lend(hook* newest, hook* oldest) noexcept {
        hook* seen = nullptr;
        do oldest->next = seen;
        while (!lent_.compare_exchange_weak(seen, newest, std::memory_order_seq_cst,
                                            std::memory_order_relaxed));
        return nudge();  // filled before: see the head of this file
    }
    /// Any thread. Takes everything that is lent and has not been taken, oldest first. Unparks nobody.
    hook* take_lent() noexcept {
        // acquire: pairs with the seq_cst, hence releasing, push in lend; release: who finds nothing here knows where the
        // taker has noted that it takes
        return in_order(lent_.exchange(nullptr, std::memory_order_acq_rel));
    }
    /// Any thread: a glance, but for the owner after `park`, who finds what was lent before the nudge that came too early.
    [[nodiscard]] bool has_lent() const noexcept {
        return lent_.load(std::memory_order_seq_cst) != nullptr;
    }

    /// Any thread. From here on `submit` is refused; what was accepted before is in the list. Wakes nobody: nudge
    /// afterwards.
    void close() noexcept {
        word_.fetch_or(closed_bit, std::memory_order_acq_rel);
    }  // pairs with the CAS in submit()

    /// A glance from any thread.
    [[nodiscard]] bool parked() const noexcept {
        return word_.load(std::memory_order_relaxed) & parked_bit;
    }

    [[nodiscard]] bool closed() const noexcept {
        return word_.load(std::memory_order_acquire) & closed_bit;
    }

    // ---- the owner alone ----

    [[nodiscard]] bool empty() const noexcept {
        return !(word_.load(std::memory_order_relaxed) & ~flag_bits);
    }

    /// Takes everything, oldest first. Also unparks.
    hook* take() noexcept {
        // acquire: pairs with the release of every push since the last take
        std::uintptr_t taken = word_.fetch_and(closed_bit, std::memory_order_acq_rel);
        return in_order(reinterpret_cast<hook*>(taken & ~flag_bits));
    }

    /// Publishes that the owner is about to sleep; false if something has arrived. After true, the owner looks once
    /// more at whatever else could give it work, and then sleeps until somebody's push or nudge wakes it.
    bool park() noexcept {
        std::uintptr_t seen = word_.load(std::memory_order_relaxed) & flag_bits & ~parked_bit;
        // seq_cst, pairs with nudge(): who fills a queue beside this one finds us parked, or we find what it filled
        while (!word_.compare_exchange_weak(seen, seen | parked_bit, std::memory_order_seq_cst))
            if (seen & ~flag_bits) return false;
        return true;
    }

    /// The owner is awake again, whoever woke it.
    void unpark() noexcept { word_.fetch_and(~parked_bit, std::memory_order_acq_rel); }

private:
    static constexpr std::uintptr_t parked_bit = 1, closed_bit = 2,
                                    flag_bits = parked_bit | closed_bit;

    static hook* in_order(hook* newest_first) noexcept {
        hook* oldest_first = nullptr;
        while (newest_first) {
            prefetch_around(newest_first);  // from another core's cache
            hook* next = newest_first->next;
            newest_first->next = oldest_first;
            oldest_first = newest_first;
            newest_first = next;
        }
        return oldest_first;
    }

    pushed push_unless(hook* newest, hook* oldest, std::uintptr_t refused_by) noexcept {
        // Mostly it is empty. To look first would fetch the line twice, to read it and to write it.
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
    std::atomic<hook*> lent_{nullptr};  // pushed to by anybody, emptied by anybody
};

static_assert(alignof(hook) >= 4, "two low bits of a hook's address are the mailbox's flags");

}  // namespace tokengate::detail
