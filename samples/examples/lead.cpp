// SPDX-License-Identifier: MIT
// A lead opens a chain: all that it calls runs on its core and has its seed.
#include <tokengate/tokengate.hpp>

#include <cstdio>
#include <string>

namespace tg = tokengate;

struct place {
    unsigned core;
    std::string seed;
    friend bool operator==(const place&, const place&) = default;
};

place here() { return {tg::this_token::core(), std::string(tg::this_token::seed())}; }

const tg::operation parse{{.name = "parse"}, [] { return here(); }};

const tg::operation ingest{{.name = "ingest"}, tg::lead{"parse"}, []() -> tg::task<bool> {
                               const place mine = here();
                               const place first = co_await parse();
                               const place second = co_await parse();
                               std::printf("core %u, seed %s\n", mine.core, mine.seed.c_str());
                               co_return first == mine&& second == mine;
                           }};

int main() {
    tg::runtime runtime;
    return runtime.run([]() -> tg::task<int> {
        const bool together = co_await ingest();
        co_return together ? 0 : 1;
    });
}
