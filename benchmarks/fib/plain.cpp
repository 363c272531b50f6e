// SPDX-License-Identifier: MIT

/// The hand-written limit: a recursive function; with several threads, its top's calls shared out over a team.

#include "../support/contender.hpp"
#include "../support/team.hpp"
#include "problem.hpp"

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace {

[[gnu::noinline]] std::uint64_t recurse(unsigned n) {
    return n < 2 ? n : recurse(n - 1) + recurse(n - 2);
}

}  // namespace

int main(int argc, char** argv) {
    const contest::request asked(argc, argv);
    const auto calls = fib::parts(static_cast<unsigned>(asked.size), asked.threads);
    team threads(asked.threads);
    return contest::answer(
        asked, {{"function", [&] {
                     std::atomic<std::uint64_t> sum{0};  // read after the team has finished
                     threads.each_index(calls.size(), [&](std::size_t i) {
                         sum.fetch_add(recurse(calls[i]), std::memory_order_relaxed);
                     });
                     return sum.load();
                 }}});
}
