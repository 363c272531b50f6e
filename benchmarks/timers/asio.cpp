// SPDX-License-Identifier: MIT

/// asio: a steady_timer each, in one io_context.

#include "problem.hpp"

#include <asio/io_context.hpp>
#include <asio/steady_timer.hpp>

#include <chrono>
#include <vector>

namespace {

using timers::clock;

timers::figures measure(const std::vector<clock::duration>& after) {
    asio::io_context context(1);
    timers::figures seen;
    const auto began = clock::now();
    const auto first = began + timers::until_first(after.size());
    std::vector<asio::steady_timer> all;
    all.reserve(after.size());
    for (const auto delay : after) {
        all.emplace_back(context, first + delay);
        all.back().async_wait([&seen](const asio::error_code&) { ++seen.fired; });
    }
    seen.arm = contest::seconds_since(began);
    context.run();
    const auto last = first + *std::max_element(after.begin(), after.end());
    if (clock::now() < last) ++seen.early;
    seen.fire = contest::seconds_since(first);
    return seen;
}

}  // namespace

int main(int argc, char** argv) {
    const contest::request asked(argc, argv);
    return contest::answer(asked,
                           {{"steady_timer", [&] { return timers::pinned(asked, measure); }}});
}
