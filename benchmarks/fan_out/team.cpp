// SPDX-License-Identifier: MIT

/// The hand-written limit: a team whose threads take the children from one counter, or have their share beforehand.

#include "../support/team.hpp"
#include "../support/contender.hpp"
#include "problem.hpp"

#include <cstddef>

int main(int argc, char** argv) {
    const contest::request asked(argc, argv);
    team threads(asked.threads);
    return contest::answer(
        asked, {{"counter",
                 [&] {
                     return fan_out::alternate(asked, [&](fan_out::rounds& all) {
                         threads.each_index(all.size(), [&](std::size_t i) { all.child(i); });
                     });
                 }},
                {"shares", [&] {
                     return fan_out::alternate(asked, [&](fan_out::rounds& all) {
                         threads.each_share(all.size(), [&](std::size_t first, std::size_t last) {
                             for (; first < last; ++first) all.child(first);
                         });
                     });
                 }}});
}
