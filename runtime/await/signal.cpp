// SPDX-License-Identifier: MIT

// How a signal wakes the waits for it.
//
// The handler runs on any thread and interrupts arbitrary code, so it uses atomics, a mailbox and
// write(2) only. It takes the next number of all arrivals and stores it as the last arrival of its
// signal. Then it posts the hook of each desk that waits for the signal to that runtime's control
// loop. The control loop, under the mutex, ends every wait one of whose signals has a number above
// the number at which the wait began. No descriptor is polled for signals, and no request is
// pending in a ring: a runtime that waits for signals parks and ends like any other.
//
// A wait is notified of every signal that arrives after the wait began. The wait sets the bits in
// `wanted_` first, and then loads the count of arrivals. The handler increments the count first,
// and then loads `wanted_`. All four accesses are seq_cst. If the wait did not see a handler's
// number, the handler incremented the count after that load, and therefore sees the bits. The hook
// scans the list after the wait is enlisted, since both hold the mutex.
//
// The mutex also orders a signal and a stop: the one that removes the wait from the list wakes it.
//
// A desk is destroyed while handlers may run on any thread. Handlers reach it through a listener,
// which is never freed and which counts the handlers inside. The desk stores null in its listener,
// so that no further handler enters. Then it waits for the handlers inside, which never block.

#include <tokengate/signal.hpp>

#include "await/signal_desk.hpp"
#include "executor/shared.hpp"

#include <tokengate/error.hpp>

#include <sched.h>

#include <atomic>
#include <bit>
#include <cerrno>
#include <mutex>
#include <string>
#include <utility>

namespace tokengate::detail {

struct signal_listener {
    /// Stored under the mutex, loaded by handlers. seq_cst, as `handlers` is.
    std::atomic<signal_desk*> of{nullptr};
    std::atomic<unsigned> handlers{0};  ///< handlers that may use the desk
    signal_listener* next = nullptr;    ///< constant once published
};

namespace {

static_assert(std::atomic<std::uint64_t>::is_always_lock_free &&
                  std::atomic<void*>::is_always_lock_free,
              "the handler of a signal must not lock");

std::mutex mutex;  // guards the desks' waits, and the two arrays that follow
std::array<unsigned, most_signals> desks_waiting{};
std::array<struct ::sigaction, most_signals> before{};

std::atomic<std::uint64_t> arrivals{0};
/// Per signal: the number of its last arrival. Stored by handlers, loaded when the hook runs.
std::array<std::atomic<std::uint64_t>, most_signals> last_arrival{};
/// A stack that only grows. Stored under the mutex.
std::atomic<signal_listener*> listeners{nullptr};

constexpr std::uint64_t bit(int signal) noexcept { return std::uint64_t{1} << (signal - 1); }

template <class Visit>
void for_each_signal(std::uint64_t signals, Visit visit) {
    for (; signals != 0; signals &= signals - 1) visit(std::countr_zero(signals) + 1);
}

/// The handler of every signal that some wait is for.
void note(int signal) {
    const int interrupted_errno = errno;
    const std::uint64_t number = arrivals.fetch_add(1, std::memory_order_seq_cst) + 1;
    auto& last = last_arrival[static_cast<std::size_t>(signal - 1)];
    for (std::uint64_t seen = last.load();
         seen < number && !last.compare_exchange_weak(seen, number);) {}
    for (auto* each = listeners.load(std::memory_order_seq_cst); each; each = each->next) {
        // A desk that stored null and waits for `handlers` to become 0 gets no further handler.
        if (!each->of.load()) continue;
        // Increment first, then load `of` again: the desk stores null first, then loads `handlers`.
        each->handlers.fetch_add(1);
        if (signal_desk* desk = each->of.load()) desk->tell(signal);
        each->handlers.fetch_sub(1);
    }
    errno = interrupted_errno;
}

void catch_signal(int signal) noexcept {
    struct ::sigaction ours{};
    ours.sa_handler = &note;
    ours.sa_flags = SA_RESTART | SA_ONSTACK;
    ::sigfillset(&ours.sa_mask);
    // Cannot fail: bit_of has rejected every signal that cannot be caught.
    ::sigaction(signal, &ours, &before[static_cast<std::size_t>(signal - 1)]);
}

void restore(int signal) noexcept {
    struct ::sigaction now{};
    ::sigaction(signal, nullptr, &now);
    if (now.sa_handler == &note)
        ::sigaction(signal, &before[static_cast<std::size_t>(signal - 1)], nullptr);
}

/// Gives `desk` a free listener, or a new one. Called under the mutex.
signal_listener& listen(signal_desk& desk) {
    auto* each = listeners.load(std::memory_order_relaxed);
    while (each && each->of.load(std::memory_order_relaxed)) each = each->next;
    if (!each) {
        each = new signal_listener;
        each->next = listeners.load(std::memory_order_relaxed);
        listeners.store(each, std::memory_order_seq_cst);
    }
    each->of.store(&desk, std::memory_order_seq_cst);
    return *each;
}

}  // namespace

// ---- the desk -----------------------------------------------------------------------------------

signal_desk::signal_desk(shared_state& of) noexcept : of_(of) {
    arrival_.of = this;
    arrival_.run = [](hook* self) noexcept {
        auto& arrival = *static_cast<arrival_hook*>(self);
        arrival.under_way.exchange(false, std::memory_order_acq_rel);  // pairs with tell
        arrival.of->wake_those_who_heard();
    };
}

signal_desk::~signal_desk() {
    if (!listener_) return;
    listener_->of.store(nullptr, std::memory_order_seq_cst);
    while (listener_->handlers.load(std::memory_order_seq_cst) != 0) ::sched_yield();
}

void signal_desk::tell(int signal) noexcept {
    if (!(wanted_.load(std::memory_order_seq_cst) & bit(signal))) return;
    if (!arrival_.under_way.exchange(true, std::memory_order_acq_rel))
        of_.control().loop.post(&arrival_);
}

void signal_desk::enlist(signal_wait& wait) {
    const std::scoped_lock lock(mutex);
    if (!listener_) listener_ = &listen(*this);
    wanted_.fetch_or(wait.awaited_, std::memory_order_seq_cst);
    // After fetch_or: see the head of this file.
    wait.began_ = arrivals.load(std::memory_order_seq_cst);
    for_each_signal(wait.awaited_, [this](int signal) {
        const auto index = static_cast<std::size_t>(signal - 1);
        if (waits_[index]++ == 0 && desks_waiting[index]++ == 0) catch_signal(signal);
    });
    wait.arrived_ = 0;
    wait.next_ = nullptr;
    wait.link_ = end_;
    *end_ = &wait;
    end_ = &wait.next_;
}

bool signal_desk::withdraw(signal_wait& wait) noexcept {
    const std::scoped_lock lock(mutex);
    if (!wait.link_) return false;
    remove(wait);
    return true;
}

void signal_desk::remove(signal_wait& wait) noexcept {
    *wait.link_ = wait.next_;
    (wait.next_ ? wait.next_->link_ : end_) = wait.link_;
    wait.link_ = nullptr;
    for_each_signal(wait.awaited_, [this](int signal) {
        const auto index = static_cast<std::size_t>(signal - 1);
        if (--waits_[index] != 0) return;
        wanted_.fetch_and(~bit(signal), std::memory_order_seq_cst);
        if (--desks_waiting[index] == 0) restore(signal);
    });
}

void signal_desk::wake_those_who_heard() noexcept {
    const std::scoped_lock lock(mutex);
    for (signal_wait *wait = head_, *next = nullptr; wait; wait = next) {
        next = wait->next_;
        std::uint64_t first = ~std::uint64_t{0};
        for_each_signal(wait->awaited_, [&](int signal) {
            const std::uint64_t number = last_arrival[static_cast<std::size_t>(signal - 1)].load();
            if (number <= wait->began_ || number >= first) return;
            first = number;
            wait->arrived_ = signal;
        });
        if (wait->arrived_ == 0) continue;
        remove(*wait);
        wait->wake_from_anywhere();  // afterwards the frame of `wait` may be gone
    }
}

// ---- the awaiter --------------------------------------------------------------------------------

namespace {
constexpr const char* doing = "wait for a signal";
}

std::uint64_t signal_wait::bit_of(int signal) {
    // A handler of a fault would return to the faulting instruction. libc reserves the signals
    // between 31 and SIGRTMIN.
    const bool for_all = signal >= 1 && signal < 32;
    if (!for_all && (signal < SIGRTMIN || signal > SIGRTMAX || signal > most_signals))
        throw configuration_error("configuration_error: tg::signal: there is no signal " +
                                  std::to_string(signal));
    for (const int never : {SIGKILL, SIGSTOP, SIGSEGV, SIGBUS, SIGFPE, SIGILL})
        if (signal == never)
            throw configuration_error(
                "configuration_error: tg::signal: nobody can wait for signal " +
                std::to_string(signal) + ": it cannot be caught, or a fault raises it");
    return bit(signal);
}

bool signal_wait::await_suspend(std::coroutine_handle<> awaiting) {
    core_context& core = enter(doing);
    suspend(core, awaiting, [](core_context& at, wait_point& point) noexcept {
        auto& self = static_cast<signal_wait&>(static_cast<suspension&>(point));
        if (at.runtime->signals->withdraw(self)) self.wake();
    });
    try {
        // The last step: from here on the control loop may wake this wait.
        core.runtime->signals->enlist(*this);
    } catch (...) {
        wait_is_over();
        throw;
    }
    return true;
}

int signal_wait::await_resume() const {
    if (arrived_ == 0) throw_stopped(*token, doing);
    return arrived_;
}

}  // namespace tokengate::detail
