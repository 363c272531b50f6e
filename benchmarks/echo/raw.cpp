// SPDX-License-Identifier: MIT

/// The hand-written limit (support/raw_echo.hpp): a liburing loop that does nothing else; receive and send one
/// after the other, or one receive for the life of a connection, into buffers that the kernel picks.

#include "../support/raw_echo.hpp"
#include "problem.hpp"

int main(int argc, char** argv) {
    const contest::request asked(argc, argv);
    using mode = rival::raw_echo::mode;
    return contest::answer(
        asked,
        {{"one_shot", [&] { return echo::serve<rival::raw_echo>(asked, mode::one_shot); }},
         {"multishot", [&] { return echo::serve<rival::raw_echo>(asked, mode::multishot); }}});
}
