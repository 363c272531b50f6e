// SPDX-License-Identifier: MIT
// A runtime in a program that has its own threads.
#include <tokengate/tokengate.hpp>

#include <chrono>
#include <cstdio>
#include <future>
#include <thread>

namespace tg = tokengate;
using namespace std::chrono_literals;

const tg::operation twice{{.name = "twice"}, [](int n) { return 2 * n; }};

int main() {
    tg::runtime runtime{{.cores = 2}};
    runtime.start();  // the control loop gets a thread of its own
    int sum = 0;
    std::thread of_the_program([&] {
        std::future<int> first = runtime.submit(twice(10));
        std::future<int> second = runtime.submit(twice(11));
        sum = first.get() + second.get();
    });
    of_the_program.join();
    const tg::stop_report left = runtime.stop(5s);
    std::printf("%d; %zu tokens left\n", sum, left.survivors.size());
    return sum == 42 && left.complete() ? 0 : 1;
}
