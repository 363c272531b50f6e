// SPDX-License-Identifier: MIT
// A producer and a consumer, connected by a queue that holds 8 values.
#include <tokengate/tokengate.hpp>

#include <cstdio>
#include <functional>
#include <optional>

namespace tg = tokengate;

tg::task<> produce(std::reference_wrapper<tg::channel<int>> into) {
    for (int i = 1; i <= 100; ++i) co_await into.get().send(i);  // waits while the channel is full
    into.get().close();
}

tg::task<int> consume(std::reference_wrapper<tg::channel<int>> from) {
    int sum = 0;
    for (;;) {
        const std::optional<int> next = co_await from.get().receive();
        if (!next) co_return sum;  // closed, and nothing is left
        sum += *next;
    }
}

int main() {
    tg::runtime runtime;
    return runtime.run([]() -> tg::task<int> {
        tg::channel<int> numbers(8);
        const auto results = co_await tg::when_all(produce(numbers), consume(numbers));
        const int sum = std::get<1>(results);
        std::printf("sum: %d\n", sum);
        co_return sum == 5050 ? 0 : 1;
    });
}
