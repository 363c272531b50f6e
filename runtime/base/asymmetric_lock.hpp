// SPDX-License-Identifier: MIT
#pragma once

#include <linux/membarrier.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>

/// A lock of one owner and of takers. The owner enters very often, and pays two plain stores and a
/// load for it. Takers come rarely, and pay a membarrier system call.
///
///     lock.enter(); …; lock.leave();                       // the owner's thread
///     if (lock.try_take()) { …; lock.give_back(); }        // any other thread
///
/// Threads: `enter` and `leave` from the owner's thread only (the owner may change while no thread
/// is inside), the rest from any thread. No call blocks for long. A taker gives up if another taker
/// is inside, or if the owner has been preempted inside. It always gives up if the kernel has no
/// membarrier (before 4.14, and in some sandboxes). The owner waits for a taker that is inside, so
/// a taker only moves pointers there.
///
/// Memory order, as in Dekker's algorithm: the owner stores `inside_` and then loads `wanted_`; the
/// taker exchanges `wanted_` and then loads `inside_`. The owner's store must not be delayed until
/// after its load. There is no fence between the two. Instead, the taker has the kernel execute one
/// on every CPU that runs this process (membarrier(2), MEMBARRIER_CMD_PRIVATE_EXPEDITED). Either
/// the owner's load comes after that fence and finds `wanted_`, or the owner's store comes before
/// it and the taker finds `inside_`. `leave` releases `inside_` and the taker acquires it;
/// `give_back` releases `wanted_` and `enter` acquires it. So each holder sees what the previous
/// one did. Modelled in tests/models/asymmetric_lock.pml.

namespace tokengate::detail {

class asymmetric_lock {
public:
    void enter() noexcept {
        for (;;) {
            inside_.store(true, std::memory_order_relaxed);
            // For the compiler. membarrier makes it a fence of the CPU if a taker needs one.
            std::atomic_signal_fence(std::memory_order_seq_cst);
            if (!wanted_.load(std::memory_order_acquire)) [[likely]]
                return;
            wait_for_taker();
        }
    }
    void leave() noexcept { inside_.store(false, std::memory_order_release); }

    [[nodiscard]] bool try_take() noexcept {
        // About 20 µs. An owner that stays longer has been preempted.
        constexpr unsigned looks = 1000;
        // If it was set, another taker is inside or on its way, and this taker must not clear it.
        if (wanted_.exchange(true, std::memory_order_seq_cst)) return false;
        if (fence_all_threads())
            for (unsigned i = 0; i < looks; ++i)
                if (!inside_.load(std::memory_order_acquire)) return true;
        give_back();
        return false;
    }
    void give_back() noexcept { wanted_.store(false, std::memory_order_release); }

    /// Registers with the kernel that this process will need such fences. That takes some
    /// milliseconds once the process has several threads, so it is called before any thread waits
    /// for it.
    static void prepare() noexcept { static_cast<void>(fence_all_threads()); }

    /// Whether a thread other than the owner can ever be inside.
    [[nodiscard]] static bool can_be_taken() noexcept { return registered(); }

    /// A full fence on every thread of this process that is running now. False if the kernel offers
    /// none.
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
