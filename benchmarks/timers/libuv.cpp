// SPDX-License-Identifier: MIT

/// libuv: a uv_timer_t each, in one loop. Its deadlines are whole milliseconds, here rounded up.

#include "problem.hpp"

#include <uv.h>

#include <chrono>
#include <cstdint>
#include <stdexcept>
#include <vector>

namespace {

using timers::clock;

timers::figures measure(const std::vector<clock::duration>& after) {
    uv_loop_t loop{};
    if (uv_loop_init(&loop) < 0) throw std::runtime_error("uv_loop_init");
    timers::figures seen;
    loop.data = &seen;
    const auto began = clock::now();
    const auto first = began + timers::until_first(after.size());
    std::vector<uv_timer_t> all(after.size());
    for (std::size_t i = 0; i < all.size(); ++i) {
        uv_timer_init(&loop, &all[i]);
        const auto due =
            std::chrono::ceil<std::chrono::milliseconds>((first + after[i]).time_since_epoch())
                .count();
        const auto fired = [](uv_timer_t* timer) {
            ++static_cast<timers::figures*>(timer->loop->data)->fired;
        };
        uv_timer_start(&all[i], fired, static_cast<std::uint64_t>(due) - uv_now(&loop), 0);
    }
    seen.arm = contest::seconds_since(began);
    uv_run(&loop, UV_RUN_DEFAULT);
    const auto last = first + *std::max_element(after.begin(), after.end());
    if (clock::now() < last) ++seen.early;
    seen.fire = contest::seconds_since(first);
    for (uv_timer_t& each : all) uv_close(reinterpret_cast<uv_handle_t*>(&each), nullptr);
    uv_run(&loop, UV_RUN_DEFAULT);
    uv_loop_close(&loop);
    return seen;
}

}  // namespace

int main(int argc, char** argv) {
    const contest::request asked(argc, argv);
    return contest::answer(asked, {{"uv_timer", [&] { return timers::pinned(asked, measure); }}});
}
