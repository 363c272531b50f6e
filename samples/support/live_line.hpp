// SPDX-License-Identifier: MIT
#pragma once

#include <unistd.h>

#include <cstdio>
#include <string>

/// One line of progress that overwrites itself and is erased at the end. It prints nothing if
/// stdout is not a terminal.
///
///     support::live_line live;
///     live.show("wave 3 of 15");

namespace support {

class live_line {
public:
    live_line() = default;
    live_line(const live_line&) = delete;
    live_line& operator=(const live_line&) = delete;
    ~live_line() { show(""); }

    void show(const std::string& text) {
        if (!on_) return;
        std::printf("\r\033[K%s", text.c_str());
        std::fflush(stdout);
    }

private:
    const bool on_ = isatty(STDOUT_FILENO) == 1;
};

}  // namespace support
