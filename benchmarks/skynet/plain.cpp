// SPDX-License-Identifier: MIT

/// The hand-written limit: a recursive function; with several threads, subtrees shared out over a team.

#include "../support/contender.hpp"
#include "../support/team.hpp"
#include "problem.hpp"

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace {

[[gnu::noinline]] std::uint64_t sum(skynet::part of) {
    if (of.leaves == 1) return of.first;
    std::uint64_t all = 0;
    for (unsigned i = 0; i < 10; ++i) all += sum(of.child(i));
    return all;
}

}  // namespace

int main(int argc, char** argv) {
    const contest::request asked(argc, argv);
    const auto subtrees = skynet::parts(asked.size, asked.threads);
    team threads(asked.threads);
    return contest::answer(
        asked, {{"function", [&] {
                     std::atomic<std::uint64_t> all{0};  // read after the team has finished
                     threads.each_index(subtrees.size(), [&](std::size_t i) {
                         all.fetch_add(sum(subtrees[i]), std::memory_order_relaxed);
                     });
                     return all.load();
                 }}});
}
