// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/hook.hpp>
#include <tokengate/options.hpp>
#include <tokengate/runtime_options.hpp>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <utility>
#include <vector>

/// Where admitted tokens wait, in the FIFO of their reason: for a core of their class with room, or
/// for a permit of their storage tier. Each runtime has one gate. Each FIFO has a mutex, which is
/// held for a few pointer writes.
///
///     gate.wait(weight::light, chain, count);                 // a loop, when no core had room
///     count = gate.take(weight::light, choose_chunk, taken);  // a core with half its window free
///     if (gate.acquire(storage::slow, &token)) route(token);  // else it waits for a release
///     if (hook* next = gate.release(storage::slow)) route(next);
///
/// Threads: all members from any event loop's thread. Capacity: unbounded, linked through the
/// tokens themselves. A class FIFO also keeps one small descriptor for each chain, so that taking a
/// chunk does not walk the chain under the mutex.

namespace tokengate::detail {

inline constexpr std::array weight_classes{weight::heavy, weight::medium, weight::light};
inline constexpr std::array storage_tiers{storage::slow, storage::moderate, storage::fast,
                                          storage::insane};

class gate {
public:
    gate(unsigned positions, const storage_limits& limits);

    // ---- for a core with room ----

    [[nodiscard]] std::size_t waiting(weight w) const noexcept {
        // A hint; `take` reads it under the mutex.
        return fifo_of(w).waiting.load(std::memory_order_relaxed);
    }

    /// Puts a chain behind everything that waits. Afterwards the caller nudges a parked core of the
    /// range.
    void wait(weight w, hook_queue& chain, std::size_t count) noexcept;

    /// Puts a chain in front of everything that waits: for tokens that were taken and have not
    /// started.
    void put_back(weight w, hook_queue& chain, std::size_t count) noexcept;

    /// Takes at most choose(waiting) hooks from the front, and at least one if any waits. Reads the
    /// count under the mutex, whatever `waiting` has returned. Splits a chain only if it is the
    /// first.
    template <class Choose>
    std::size_t take(weight w, Choose choose, hook_queue& into) noexcept {
        fifo& from = fifo_of(w);
        const std::scoped_lock lock(from.mutex);
        const std::size_t there = from.waiting.load(std::memory_order_relaxed);
        return there == 0 ? 0 : take_locked(from, choose(there), into);
    }

    /// A core sets this before it publishes in its mailbox word that it is parked. A thread that
    /// has filled a FIFO then scans for a parked core here. Either it finds the core; or the core,
    /// which scans the FIFO once more under its mutex before it sleeps, finds the tokens.
    void set_parked(unsigned position, bool now) noexcept;

    /// A parked position at or above `first`, below `end`; `end` if there is none.
    [[nodiscard]] unsigned find_parked(unsigned first, unsigned end) const noexcept;

    // ---- for a permit ----

    /// True: the caller has the permit. False: the hook waits, and a later release or grant returns
    /// it with a permit.
    bool acquire(storage tier, hook* item) noexcept;
    /// True: the caller has the permit. False: no permit is free, or hooks wait for one; the
    /// caller's does not.
    bool try_acquire(storage tier) noexcept;
    /// Takes out the first hook that `may_go` of those that wait for a permit; it holds no permit.
    /// Null if there is none.
    template <class Predicate>
    [[nodiscard]] hook* take_waiting(storage tier, Predicate may_go) noexcept {
        tier_permits& permits = permits_of(tier);
        const std::scoped_lock lock(permits.mutex);
        for (hook* each = permits.waiting.front(); each; each = each->next) {
            if (!may_go(each)) continue;
            permits.waiting.remove(each);
            --permits.count;
            return each;
        }
        return nullptr;
    }
    [[nodiscard]] std::size_t waiting_for_permit(storage tier) noexcept;
    /// Gives a permit back. Returns the hook that has it now, if one waited and the limit allows.
    [[nodiscard]] hook* release(storage tier) noexcept;
    /// Takes a permit whatever the limit is: for a token that gave its own up while it waited for
    /// others.
    void force(storage tier) noexcept;
    [[nodiscard]] int in_use(storage tier) noexcept;
    /// If the new limit is below the permits in use, none is granted until enough are released.
    /// After a raise, the caller calls `grant` until it returns null.
    void set_limit(storage tier, int limit) noexcept;
    [[nodiscard]] int limit(storage tier) noexcept;
    /// The hook that has waited longest, if the limit allows: it holds a permit now, and the caller
    /// routes it.
    hook* grant(storage tier) noexcept;

    /// Takes the hooks that are `is_to_go` out of a queue, in order. Scans the whole queue under
    /// its mutex.
    template <class Predicate>
    void withdraw(weight w, Predicate is_to_go, hook_queue& into) noexcept {
        fifo& from = fifo_of(w);
        const std::scoped_lock lock(from.mutex);
        std::size_t taken = 0;
        std::size_t kept = 0;
        for (std::size_t i = 0; i < from.used; ++i) {
            chain& each = from.at(i);
            const std::size_t gone = each.hooks.split(is_to_go, into);
            each.count -= gone;
            taken += gone;
            if (each.count != 0) std::swap(from.at(kept++), each);
        }
        from.used = kept;
        from.waiting.store(from.waiting.load(std::memory_order_relaxed) - taken,
                           std::memory_order_relaxed);
    }
    template <class Predicate>
    void withdraw(storage tier, Predicate is_to_go, hook_queue& into) noexcept {
        tier_permits& permits = permits_of(tier);
        const std::scoped_lock lock(permits.mutex);
        permits.count -= permits.waiting.split(is_to_go, into);
    }

private:
    struct chain {
        hook_queue hooks;
        std::size_t count = 0;
    };

    struct alignas(64) fifo {
        std::mutex mutex;
        std::atomic<std::size_t> waiting{0};  // written under the mutex, read as a hint
        // A ring: `used` entries from `first`; its size is a power of two.
        std::vector<chain> chains;
        std::size_t first = 0;
        std::size_t used = 0;

        chain& at(std::size_t i) noexcept { return chains[(first + i) & (chains.size() - 1)]; }
    };

    struct alignas(64) tier_permits {
        std::mutex mutex;
        int limit = 0;
        int in_use = 0;
        hook_queue waiting;
        std::size_t count = 0;  // the number of hooks that wait
    };

    static hook* next_permitted(tier_permits& permits) noexcept;
    static bool grow(fifo& full) noexcept;
    static std::size_t take_locked(fifo& from, std::size_t most, hook_queue& into) noexcept;

    fifo& fifo_of(weight w) noexcept { return fifos_[static_cast<std::size_t>(w)]; }
    const fifo& fifo_of(weight w) const noexcept { return fifos_[static_cast<std::size_t>(w)]; }
    tier_permits& permits_of(storage tier) noexcept {
        return permits_[static_cast<std::size_t>(tier) - 1];
    }

    std::array<fifo, 3> fifos_;
    std::array<tier_permits, 4> permits_;
    /// A bit for each parked position: fetch_or/fetch_and by its owner, loaded by a thread that has
    /// filled a FIFO (all seq_cst).
    std::vector<std::atomic<std::uint64_t>> parked_;
};

}  // namespace tokengate::detail
