// SPDX-License-Identifier: MIT
// A wait, a token and an operation, each with a time limit.
#include <tokengate/tokengate.hpp>

#include <chrono>
#include <cstdio>

namespace tg = tokengate;
using namespace std::chrono_literals;

tg::task<int> answer(std::chrono::milliseconds after) {
    co_await tg::sleep_for(after);
    co_return 42;
}
const tg::operation slow{{.name = "slow"}, answer};
const tg::operation limited{{.name = "limited", .timeout = 20ms}, answer};  // each of its tokens

tg::task<bool> is_late(tg::token<int> work) {
    try {
        std::printf("answer: %d\n", co_await std::move(work));
        co_return false;
    } catch (const tg::token_timeout& late) {
        std::puts(late.what());
        co_return true;
    }
}

int main() {
    tg::runtime runtime;
    return runtime.run([]() -> tg::task<int> {
        const bool in_time = !co_await is_late(slow(1ms));
        const bool late = co_await is_late(limited(10s));
        bool cut = false;
        try {
            co_await tg::with_timeout(tg::sleep_for(10s), 20ms);  // a single wait
        } catch (const tg::token_timeout&) {
            cut = true;
        }
        co_return in_time&& late&& cut ? 0 : 1;
    });
}
