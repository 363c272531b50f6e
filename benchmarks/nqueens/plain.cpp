// SPDX-License-Identifier: MIT

/// The hand-written limit: a recursive function; with several threads, the boards after two rows shared out over a
/// team.

#include "../support/contender.hpp"
#include "../support/team.hpp"
#include "problem.hpp"

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace {

[[gnu::noinline]] std::uint64_t count(nqueens::board from) {
    if (from.full()) return 1;
    std::uint64_t all = 0;
    nqueens::each_child(from, [&](const nqueens::board& child) { all += count(child); });
    return all;
}

}  // namespace

int main(int argc, char** argv) {
    const contest::request asked(argc, argv);
    const auto boards = nqueens::parts(static_cast<std::uint32_t>(asked.size), asked.threads);
    team threads(asked.threads);
    return contest::answer(
        asked, {{"function", [&] {
                     std::atomic<std::uint64_t> all{0};  // read after the team has finished
                     threads.each_index(boards.size(), [&](std::size_t i) {
                         all.fetch_add(count(boards[i]), std::memory_order_relaxed);
                     });
                     return all.load();
                 }}});
}
