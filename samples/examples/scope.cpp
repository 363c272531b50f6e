// SPDX-License-Identifier: MIT
// A scope starts any number of children, at most 4 at a time, and ends after all of them.
#include <tokengate/tokengate.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>

namespace tg = tokengate;
using namespace std::chrono_literals;

std::atomic<int> running{0}, most{0}, ended{0};

const tg::operation job{{.name = "job"}, []() -> tg::task<> {
                            const int now = ++running;
                            for (int seen = most;
                                 seen < now && !most.compare_exchange_weak(seen, now);) {}
                            co_await tg::sleep_for(1ms);
                            --running;
                            ++ended;
                        }};

int main() {
    tg::runtime runtime;
    return runtime.run([]() -> tg::task<int> {
        const auto body = [](tg::scope& jobs) -> tg::task<> {
            for (int i = 0; i < 20; ++i) co_await jobs.spawn(job());  // waits while 4 are running
        };
        co_await tg::with_scope(tg::scope_options{.limit = 4}, body);
        std::printf("%d ended, at most %d at a time\n", ended.load(), most.load());
        co_return ended == 20 && most <= 4 ? 0 : 1;
    });
}
