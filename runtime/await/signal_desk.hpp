// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/hook.hpp>

#include <array>
#include <atomic>
#include <cstdint>

/// The waits for signals of one runtime, in the order in which they began; signal.cpp says how signals reach them.
///
///     signal_desk desk(runtime);
///     desk.enlist(wait);                   // resumed by the control loop …
///     if (desk.withdraw(wait)) …           // … unless it was taken back before
///
/// Any thread; all desks share one mutex. To be destroyed before the control loop, and without waits.

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

    /// Throws std::bad_alloc, before anything happened.
    void enlist(signal_wait& wait);
    /// False: it is being resumed.
    [[nodiscard]] bool withdraw(signal_wait& wait) noexcept;

    /// In the handler of a signal that has been noted.
    void tell(int signal) noexcept;

private:
    struct arrival_hook : hook {
        signal_desk* of;
        /// Exchanged (acq_rel) to true by the handler that posts the hook, to false by the control loop before it
        /// looks.
        std::atomic<bool> under_way{false};
    };

    void wake_those_who_heard() noexcept;
    void remove(signal_wait& wait) noexcept;

    shared_state& of_;
    arrival_hook arrival_;
    /// Bit n - 1: somebody waits for signal n. Stored under the mutex, loaded by handlers; seq_cst, see signal.cpp.
    std::atomic<std::uint64_t> wanted_{0};

    // Under the mutex.
    std::array<unsigned, most_signals> waits_{};
    signal_wait* head_ = nullptr;
    signal_wait** end_ = &head_;
    signal_listener* listener_ = nullptr;  // from the first wait on
};

}  // namespace tokengate::detail
