// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/time_span.hpp>
#include <tokengate/token_info.hpp>

#include <chrono>
#include <functional>
#include <string>
#include <vector>

/// The stall detector reports which token keeps its core from all other tokens. A thread of the
/// runtime polls every executor and the control loop, at least twice per threshold. If a loop has
/// not completed its turn for longer than the threshold, it is reported once. The report has the
/// token that ran there then, and a backtrace. Tokens pay nothing for it: a signal makes the
/// stalled thread itself name the token. That signal makes a system call that is never restarted
/// (nanosleep, poll; see signal(7)) return EINTR, once per stall. The time is wall-clock time: a
/// thread that the kernel does not schedule, or that a debugger holds, stalls too.
///
///     tg::runtime runtime{{.stall = {.threshold = 100ms}}};  // a warning, one line
///     tg::runtime runtime{
///         {.stall = {.threshold = 100ms,
///                    .report = [](const tg::stall_report& seen) { log(seen.line()); }}}};
///
/// Thread safety: Reports come one at a time, on the thread of the detector, which waits for each.
/// A report must not stop the runtime.
///
/// Errors: configuration_error from the runtime's constructor for a threshold below 10 ms, and for
/// a signal that is in use. An exception of a report becomes a warning.

namespace tokengate {

struct stall_report {
    token_id id;                       ///< its operation is empty if no token was found: see `line`
    unsigned core = control_core;      ///< control_core: the control loop
    std::chrono::nanoseconds held{0};  ///< so far; may include short runs just before
    /// Innermost first; `function (file+offset)`, for addr2line.
    std::vector<std::string> backtrace;
    /// All of the report in one line; it has no newline, regardless of the names.
    [[nodiscard]] std::string line() const;
};

struct stall_options {
    time_span threshold{};                              ///< 0: no detector; else at least 10 ms
    std::function<void(const stall_report&)> report{};  ///< default: a warning
    /// The signal to the stalled thread. 0: the first of the real-time signals from SIGRTMIN + 7 on
    /// that has no handler. The detector's handler stays until the process ends.
    int signal = 0;
};

}  // namespace tokengate
