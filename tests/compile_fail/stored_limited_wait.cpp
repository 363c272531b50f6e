// SPDX-License-Identifier: MIT
// expect: co_await limited
#include <tokengate/time.hpp>

#include <chrono>

// It refers to the sleep, which has gone by the end of the first line.
tokengate::task<> sleep_twice() {
    auto limited = tokengate::with_timeout(tokengate::sleep_for(std::chrono::seconds(1)),
                                           std::chrono::seconds(2));
    co_await limited;
}
