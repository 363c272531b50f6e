// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/time_span.hpp>
#include <tokengate/token_info.hpp>

#include <chrono>
#include <functional>
#include <string>
#include <vector>

/// The stall detector: says which token keeps its core from everybody else.
///
///     tg::runtime runtime{{.stall = {.threshold = 100ms}}};                             // a warning, one line
///     tg::runtime runtime{{.stall = {.threshold = 100ms, .report = [](const tg::stall_report& seen) {
///         log(seen.line());
///     }}}};
///
/// A thread of the runtime looks at every executor, and at the control loop, twice per threshold. A loop that has not come
/// round for longer than the threshold is reported once, with the token that ran there then and a backtrace. Tokens pay
/// nothing for it: who ran is asked of the stalled thread itself, by a signal. That signal makes a system call that is
/// never restarted (nanosleep, poll; see signal(7)) return EINTR, once per stall.
///
/// Time is the clock's on the wall: a thread that the kernel does not let run, or that a debugger holds, stalls too.
///
/// Thread safety: reports come one at a time, on the detector's thread, which waits for them and must not stop the runtime.
/// Errors: configuration_error from the runtime's constructor; what a report throws becomes a warning.

namespace tokengate {

struct stall_report {
    token_id id;                   ///< its operation is empty if none was to be found: see `line`
    unsigned core = control_core;  ///< control_core: the control loop
    std::chrono::nanoseconds held{0};  ///< so far; what is short and came just before may be in it
    std::vector<std::string>
        backtrace;  ///< innermost first; `function (file+offset)`, for addr2line
    [[nodiscard]] std::string line()
        const;  ///< all of it, without a newline whatever the names contain
};

struct stall_options {
    time_span threshold{};                              ///< 0: no detector; else at least 10 ms
    std::function<void(const stall_report&)> report{};  ///< default: a warning
    /// What the stalled thread is asked by; 0: the first of the real-time signals from SIGRTMIN + 7 on that nobody handles.
    /// It stays handled until the process ends.
    int signal = 0;
};

}  // namespace tokengate
