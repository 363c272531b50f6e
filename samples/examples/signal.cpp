// SPDX-License-Identifier: MIT
// Works until SIGINT or SIGTERM arrives, then stops its workers and ends.
#include <tokengate/tokengate.hpp>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>

namespace tg = tokengate;
using namespace std::chrono_literals;

std::atomic<int> rounds{0};

tg::task<> work() {
    for (;;) {
        co_await tg::sleep_for(1ms);  // throws token_stopped when the scope is asked to stop
        if (++rounds == 10) std::raise(SIGTERM);
    }
}

int main() {
    tg::runtime runtime;
    const auto body = [](tg::scope& workers) -> tg::task<> {
        co_await workers.spawn(work());
        const int number = co_await tg::signal(SIGINT, SIGTERM);
        std::printf("signal %d after %d rounds\n", number, rounds.load());
        workers.request_stop();
    };
    runtime.run(tg::with_scope(body));
    return rounds >= 10 ? 0 : 1;
}
