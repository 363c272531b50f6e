// SPDX-License-Identifier: MIT
// Tokens of one account run on one core while any of them is in flight, so they need no lock.
#include <tokengate/tokengate.hpp>

#include <array>
#include <cstdio>
#include <utility>
#include <vector>

namespace tg = tokengate;

std::array<long, 4> balances{};  // each is touched by one core at a time

const tg::operation post{{.name = "post"},
                         tg::sticky{"account", [](int account, long) { return account; }},
                         [](int account, long cents) { balances.at(account) += cents; }};

int main() {
    tg::runtime runtime;
    return runtime.run([]() -> tg::task<int> {
        std::vector<tg::token<>> posts;
        for (int i = 0; i < 4000; ++i) posts.push_back(post(i % 4, 1));
        co_await tg::when_all(std::move(posts));
        for (const long each : balances) std::printf("%ld cents\n", each);
        co_return balances == std::array<long, 4>{1000, 1000, 1000, 1000} ? 0 : 1;
    });
}
