// SPDX-License-Identifier: MIT

/// The hand-written limit (support/probe.hpp): coroutines handed in chains to pinned threads and back; all made
/// first and then run; or taken back while others are made, so that few live at a time.

#include "../support/probe.hpp"
#include "../support/contender.hpp"
#include "problem.hpp"

namespace {

[[gnu::noinline]] probe::token empty() {
    tally::count();
    co_return;
}

}  // namespace

int main(int argc, char** argv) {
    const contest::request asked(argc, argv);
    probe::machine machine(asked.threads);
    return contest::answer(
        asked,
        {{"all", [&] { return spawn::counted([&] { machine.run_all(asked.size, empty); }); }},
         {"streamed", [&] { return spawn::counted([&] { machine.stream(asked.size, empty); }); }}});
}
