// SPDX-License-Identifier: MIT

/// Ours: `when_all` of a vector, from the main coroutine and from inside a token; and inside a token also in a
/// scope, and admitted first and awaited afterwards.

#include "../support/contender.hpp"
#include "problem.hpp"

#include <tokengate/tokengate.hpp>

#include <cstddef>
#include <utility>
#include <vector>

namespace {

namespace tg = tokengate;
using fan_out::rounds;

const tg::operation child{{.name = "child", .weight = tg::weight::heavy},
                          [](rounds* all, std::size_t index) { all->child(index); }};

tg::task<> by_vector(rounds* all) {
    std::vector<tg::token<>> children;
    children.reserve(all->size());
    for (std::size_t i = 0; i < all->size(); ++i) children.push_back(child(all, i));
    co_await tg::when_all(std::move(children));
}

tg::task<> spawn_all(tg::scope& in, rounds* all) {
    for (std::size_t i = 0; i < all->size(); ++i) co_await in.spawn(child(all, i));
}
tg::task<> by_scope(rounds* all) {
    const auto body = [all](tg::scope& in) { return spawn_all(in, all); };
    co_await tg::with_scope(body);
}

tg::task<> admitted(rounds* all) {
    std::vector<tg::token<>> children;
    children.reserve(all->size());
    for (std::size_t i = 0; i < all->size(); ++i) {
        children.push_back(child(all, i));
        children.back().admit();
    }
    for (tg::token<>& each : children) co_await each;
}

using fan = tg::task<> (*)(rounds*);

tg::task<> alternate(rounds* all, fan run) {
    for (unsigned i = 0; i < rounds::count; ++i) {
        all->serial();
        all->begin();
        co_await run(all);
        all->end();
    }
}
const tg::operation parent{{.name = "parent", .weight = tg::weight::heavy}, alternate};

tg::task<> inside(rounds* all, fan run) { co_await parent(all, run); }

}  // namespace

int main(int argc, char** argv) {
    const contest::request asked(argc, argv);
    tg::runtime runtime{{.cores = asked.threads}};
    const auto take_turns = [&](tg::task<> (*where)(rounds*, fan), fan run) {
        rounds all(asked);
        runtime.run(where(&all, run));
        return all.sample();
    };
    return contest::answer(asked,
                           {{"main", [&] { return take_turns(alternate, by_vector); }},
                            {"token", [&] { return take_turns(inside, by_vector); }},
                            {"token_scope", [&] { return take_turns(inside, by_scope); }},
                            {"token_admitted", [&] { return take_turns(inside, admitted); }}});
}
