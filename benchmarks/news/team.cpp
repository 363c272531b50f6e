// SPDX-License-Identifier: MIT

/// The hand-written limit: a thread that sleeps in a futex is woken and takes the children from a counter.

#include "../support/team.hpp"
#include "../support/contender.hpp"
#include "problem.hpp"

#include <atomic>
#include <cstddef>

int main(int argc, char** argv) {
    const contest::request asked(argc, argv);
    team threads(asked.threads);
    std::atomic<std::size_t> next{0};  // relaxed: begin() and finish() order what it hands out
    const auto take = [&](news::rounds& all) {
        for (std::size_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < all.size();)
            all.child(i);
    };
    return contest::answer(asked, {{"counter", [&] {
                                        return news::repeat(
                                            asked,
                                            [&](news::rounds& all) {
                                                next.store(0, std::memory_order_relaxed);
                                                threads.begin([&](std::size_t) { take(all); });
                                            },
                                            [&](news::rounds& all) {
                                                take(all);
                                                threads.finish();
                                            });
                                    }}});
}
