// SPDX-License-Identifier: MIT

/// Ours, from the main coroutine: a group of operations; operations spawned into a scope; operations admitted and
/// let go; a group of plain tasks, which are tokens of one core; and plain tasks awaited one by one in one token,
/// which are no tokens at all.

#include "../support/contender.hpp"
#include "problem.hpp"

#include <tokengate/tokengate.hpp>

#include <cstdint>
#include <utility>
#include <vector>

namespace {

namespace tg = tokengate;

const tg::operation empty{{.name = "empty", .weight = tg::weight::heavy}, [] { tally::count(); }};

[[gnu::noinline]] tg::task<> empty_task() {
    tally::count();
    co_return;
}

tg::task<> group_of_operations(std::uint64_t count) {
    std::vector<tg::token<>> tokens;
    tokens.reserve(count);
    for (std::uint64_t i = 0; i < count; ++i) tokens.push_back(empty());
    co_await tg::when_all(std::move(tokens));
}

tg::task<> spawn_all(tg::scope& in, std::uint64_t count) {
    for (std::uint64_t i = 0; i < count; ++i) co_await in.spawn(empty());
}
tg::task<> scope(std::uint64_t count) {
    const auto body = [count](tg::scope& in) { return spawn_all(in, count); };
    co_await tg::with_scope(body);
}

/// The runtime returns when they have ended.
tg::task<> detached(std::uint64_t count) {
    for (std::uint64_t i = 0; i < count; ++i) empty().admit();
    co_return;
}

tg::task<> group_of_tasks(std::uint64_t count) {
    std::vector<tg::task<>> tasks;
    tasks.reserve(count);
    for (std::uint64_t i = 0; i < count; ++i) tasks.push_back(empty_task());
    co_await tg::when_all(std::move(tasks));
}

tg::task<> await_tasks(std::uint64_t count) {
    for (std::uint64_t i = 0; i < count; ++i) co_await empty_task();
}
const tg::operation awaits_tasks{{.name = "awaits_tasks", .weight = tg::weight::heavy},
                                 await_tasks};
tg::task<> tasks(std::uint64_t count) { co_await awaits_tasks(count); }

}  // namespace

int main(int argc, char** argv) {
    const contest::request asked(argc, argv);
    tg::runtime runtime{{.cores = asked.threads}};
    const auto run = [&](tg::task<> (*how)(std::uint64_t)) {
        return spawn::counted([&] { runtime.run(how(asked.size)); });
    };
    return contest::answer(asked, {{"when_all", [&] { return run(group_of_operations); }},
                                   {"scope", [&] { return run(scope); }},
                                   {"detached", [&] { return run(detached); }},
                                   {"when_all_tasks", [&] { return run(group_of_tasks); }},
                                   {"tasks", [&] { return run(tasks); }}});
}
