// SPDX-License-Identifier: MIT

// How a signal reaches those who wait for it.
//
// The handler runs on any thread, in the midst of anything, so it uses atomics, a mailbox and write(2) only. It takes
// the next number of all arrivals, notes it as the last one of its signal, and posts each interested desk's hook to
// that runtime's control loop. There, under the mutex, every wait is ended whose signals have a number above the one at
// which it began. No descriptor is polled for it and nothing is pending in a ring: a runtime that waits for signals
// sleeps, and ends, like any.
//
// A wait hears all that arrives after it began: it makes its desk interested first and then reads the count of
// arrivals. A handler counts first and then looks who is interested. All four are seq_cst: a handler whose number the
// wait did not see counted after that, and so finds the interest. Its hook looks once the wait is enlisted, since both
// hold the mutex.
//
// Between a signal and a stop, the mutex decides: who takes the wait out of the list wakes it.
//
// A desk goes while handlers may run anywhere. Handlers reach it through a listener, which is never freed, and in which
// they are counted: a desk empties its listener, from when on no handler enters, and waits for those inside, who never
// wait.

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
    std::atomic<signal_desk*> of{
        nullptr};  // stored under the mutex; handlers load it, seq_cst like `handlers`
    std::atomic<unsigned> handlers{0};  // that may use the desk
    signal_listener* next = nullptr;    // constant once published
};

namespace {

static_assert(std::atomic<std::uint64_t>::is_always_lock_free &&
                  std::atomic<void*>::is_always_lock_free,
              "the handler of a signal must not lock");

std::mutex mutex;  // guards the desks' waits, and the two arrays that follow
std::array<unsigned, most_signals> desks_waiting{};
std::array<struct ::sigaction, most_signals> before{};

std::atomic<std::uint64_t> arrivals{0};
std::array<std::atomic<std::uint64_t>, most_signals>
    last_arrival{};                                // by number of arrival; read in the hook's turn
std::atomic<signal_listener*> listeners{nullptr};  // a stack that only grows, under the mutex

constexpr std::uint64_t bit(int signal) noexcept { return std::uint64_t{1} << (signal - 1); }

template <class Visit>
void for_each_signal(std::uint64_t signals, Visit visit) {
    for (; signals != 0; signals &= signals - 1) visit(std::countr_zero(signals) + 1);
}

/// The handler.
void note(int signal) {
    const int interrupted_errno = errno;
    const std::uint64_t number = arrivals.fetch_add(1, std::memory_order_seq_cst) + 1;
    auto& last = last_arrival[static_cast<std::size_t>(signal - 1)];
    for (std::uint64_t seen = last.load();
         seen < number && !last.compare_exchange_weak(seen, number);) {}
    for (auto* each = listeners.load(std::memory_order_seq_cst); each; each = each->next) {
        if (!each->of.load()) continue;  // so that one that is being emptied sees no newcomers
        each->handlers.fetch_add(1);     // then look, as its desk stores null and then counts
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
    ::sigaction(signal, &ours,
                &before[static_cast<std::size_t>(signal - 1)]);  // which cannot fail: see bit_of
}

void restore(int signal) noexcept {
    struct ::sigaction now{};
    ::sigaction(signal, nullptr, &now);
    if (now.sa_handler == &note)
        ::sigaction(signal, &before[static_cast<std::size_t>(signal - 1)], nullptr);
}

/// Under the mutex.
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

// ---- the desk -----------------------------------------------------------------------------------------------------------

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
    wait.began_ =
        arrivals.load(std::memory_order_seq_cst);  // after that: see the head of this file
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
        wait->wake_from_anywhere();  // from here on its frame may be gone
    }
}

// ---- the awaiter --------------------------------------------------------------------------------------------------------

namespace {
constexpr const char* doing = "wait for a signal";
}

std::uint64_t signal_wait::bit_of(int signal) {
    // The handler of a fault would return to the fault; those between 31 and SIGRTMIN are libc's.
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
        core.runtime->signals->enlist(*this);  // last: the control loop may wake it at once
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
