// SPDX-License-Identifier: MIT
// Drains an operation: its present tokens end, later ones wait at the gate until it is resumed.
#include <tokengate/tokengate.hpp>

#include <chrono>
#include <cstdio>

namespace tg = tokengate;
using namespace std::chrono_literals;

const tg::operation store{{.name = "store"}, [](int record) -> tg::task<int> {
                              co_await tg::sleep_for(5ms);
                              co_return record;
                          }};

int main() {
    tg::runtime runtime;
    return runtime.run([&runtime]() -> tg::task<int> {
        tg::token<int> before = store(1);
        before.admit();
        const tg::stop_report left = co_await runtime.gate().drain("store", 5s);
        tg::token<int> after = store(2);
        after.admit();  // held
        const bool held = runtime.gate().paused("store");
        runtime.gate().resume("store");
        const int sum = co_await before + co_await after;
        std::printf("%zu left by the drain; sum %d\n", left.survivors.size(), sum);
        co_return left.complete() && held&& sum == 3 ? 0 : 1;
    });
}
