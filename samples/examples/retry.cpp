// SPDX-License-Identifier: MIT
// An operation that the library calls again when it fails.
#include <tokengate/tokengate.hpp>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <stdexcept>

namespace tg = tokengate;
using namespace std::chrono_literals;

std::atomic<int> calls{0};

int call_backend(int request) {
    if (++calls < 3) throw std::runtime_error("the backend is busy");
    return request * 2;
}
const tg::operation ask{
    {.name = "ask",
     .retry = {.attempts = 5, .backoff = 1ms, .retry_if = tg::retry_on<std::runtime_error>}},
    call_backend};

int main() {
    tg::runtime runtime;
    return runtime.run([]() -> tg::task<int> {
        const int doubled = co_await ask(21);
        std::printf("%d after %d calls\n", doubled, calls.load());
        co_return doubled == 42 && calls == 3 ? 0 : 1;
    });
}
