// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/hook.hpp>

#include <array>
#include <atomic>
#include <cstdint>

/// The list of one runtime's waits for signals, in the order in which they began. signal.cpp
/// explains how a signal reaches them.
///
///     signal_desk desk(runtime);
///     desk.enlist(wait);                   // the control loop resumes it …
///     if (desk.withdraw(wait)) …           // … unless it is withdrawn before
///
/// Thread safety: any thread; all desks share one mutex. A desk must be destroyed before the
/// control loop, and when no wait is enlisted.

namespace tokengate::detail {

class signal_wait;
struct shared_state;
struct signal_listener;

inline constexpr int most_signals = 64;

class signal_desk {
public:
    explicit signal_desk(shared_state& of) noexcept;
    ~signal_desk();
    signal_desk(const signal_desk&) = delete;
    signal_desk& operator=(const signal_desk&) = delete;

    /// Throws std::bad_alloc; then nothing has changed.
    void enlist(signal_wait& wait);
    /// False if the control loop has already taken the wait in order to resume it.
    [[nodiscard]] bool withdraw(signal_wait& wait) noexcept;

    /// Called in the handler, after it has stored the signal's arrival.
    void tell(int signal) noexcept;

private:
    struct arrival_hook : hook {
        signal_desk* of;
        /// The handler that posts the hook exchanges it (acq_rel) to true. The control loop
        /// exchanges it (acq_rel) to false before it scans the waits.
        std::atomic<bool> under_way{false};
    };

    void wake_those_who_heard() noexcept;
    void remove(signal_wait& wait) noexcept;

    shared_state& of_;
    arrival_hook arrival_;
    /// Bit n - 1: a wait for signal n is enlisted. Stored under the mutex, loaded by handlers;
    /// seq_cst, see signal.cpp.
    std::atomic<std::uint64_t> wanted_{0};

    // Guarded by the mutex of signal.cpp.
    std::array<unsigned, most_signals> waits_{};
    signal_wait* head_ = nullptr;
    signal_wait** end_ = &head_;
    signal_listener* listener_ = nullptr;  // null before the first wait
};

}  // namespace tokengate::detail
