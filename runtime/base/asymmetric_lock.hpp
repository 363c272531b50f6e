// SPDX-License-Identifier: MIT
#pragma once

#include <linux/membarrier.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>

/// A lock of one owner, who comes all the time and pays two plain stores and a load for it, and of takers, who come
/// seldom and pay a membarrier system call.
///
///     lock.enter(); …; lock.leave();                       // the owner's thread
///     if (lock.try_take()) { …; lock.give_back(); }        // any other thread
///
/// Threads: `enter` and `leave` from the owner's thread alone (which may change while nobody is inside); the rest from
/// any. Nothing blocks for long: a taker gives up where another taker is inside, where the owner has been preempted
/// inside, and where the kernel has no membarrier (before 4.14, and in some sandboxes); then it never succeeds. The owner
/// waits for a taker that is inside, so a taker does no more there than move pointers.
///
/// Memory order, Dekker's way: the owner stores `inside_` and then looks at `wanted_`; the taker exchanges `wanted_` and then
/// looks at `inside_`. The owner's store must not be delayed behind its look. Instead of a fence there the taker has
/// the kernel execute one on every CPU that runs this process (membarrier(2), MEMBARRIER_CMD_PRIVATE_EXPEDITED): either
/// the owner's look comes after it and finds `wanted_`, or the owner's store comes before it and is found by the taker.
/// `inside_` is released by `leave` and acquired by the taker, `wanted_` released by `give_back` and acquired by `enter`: who is
/// inside sees what the one before did. Modelled in tests/models/asymmetric_lock.pml.

namespace tokengate::detail {

class asymmetric_lock {
public:
    void enter() noexcept {
        for (;;) {
            inside_.store(true, std::memory_order_relaxed);
            std::atomic_signal_fence(
                std::memory_order_seq_cst);  // membarrier makes it a fence when a taker needs one
            if (!wanted_.load(std::memory_order_acquire)) [[likely]]
                return;
            wait_for_taker();
        }
    }
    void leave() noexcept { inside_.store(false, std::memory_order_release); }

    [[nodiscard]] bool try_take() noexcept {
        constexpr unsigned looks =
            1000;  // some 20 µs: an owner that stays longer has been preempted
        // Where another taker is inside, or on its way, it is not ours to lower.
        if (wanted_.exchange(true, std::memory_order_seq_cst)) return false;
        if (fence_all_threads())
            for (unsigned i = 0; i < looks; ++i)
                if (!inside_.load(std::memory_order_acquire)) return true;
        give_back();
        return false;
    }
    void give_back() noexcept { wanted_.store(false, std::memory_order_release); }

    /// Tells the kernel that this process will want such fences: some milliseconds once it has several threads, so before
    /// anybody waits for it.
    static void prepare() noexcept { static_cast<void>(fence_all_threads()); }

    /// Whether anybody but the owner can ever be inside.
    [[nodiscard]] static bool can_be_taken() noexcept { return registered(); }

    /// A full fence on every thread of this process that runs now; false where the kernel has none to offer.
    static bool fence_all_threads() noexcept {
        return registered() && membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED);
    }

private:
    static bool registered() noexcept {
        static const bool done = membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED);
        return done;
    }
    static bool membarrier(int command) noexcept {
        return ::syscall(SYS_membarrier, command, 0, 0) == 0;
    }

    [[gnu::noinline, gnu::cold]] void wait_for_taker() noexcept {
        leave();
        for (unsigned looks = 0; wanted_.load(std::memory_order_relaxed); ++looks)
            if (looks > 100) sched_yield();  // it may have been preempted
    }

    std::atomic<bool> inside_{false};  // stored by the owner, loaded by takers
    std::atomic<bool> wanted_{false};  // exchanged by takers, loaded by the owner
};

}  // namespace tokengate::detail
