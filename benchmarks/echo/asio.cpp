// SPDX-License-Identifier: MIT

/// asio (support/asio_echo.hpp): its coroutines on one io_context.

#include "../support/asio_echo.hpp"
#include "problem.hpp"

int main(int argc, char** argv) {
    const contest::request asked(argc, argv);
    return contest::answer(asked,
                           {{"coroutines", [&] { return echo::serve<rival::asio_echo>(asked); }}});
}
