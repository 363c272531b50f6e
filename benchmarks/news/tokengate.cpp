// SPDX-License-Identifier: MIT

/// Ours: a token admits its children, or spawns them into a scope.

#include "../support/contender.hpp"
#include "problem.hpp"

#include <tokengate/tokengate.hpp>

#include <cstddef>
#include <vector>

namespace {

namespace tg = tokengate;
using news::rounds;

const tg::operation child{{.name = "child", .weight = tg::weight::heavy},
                          [](rounds* all, std::size_t index) { all->child(index); }};

tg::task<> admit_all(rounds* all) {
    for (unsigned round = 0; round < rounds::count; ++round) {
        co_await tg::sleep_for(news::pause);
        std::vector<tg::token<>> children;
        children.reserve(all->size());
        for (std::size_t i = 0; i < all->size(); ++i) {
            children.push_back(child(all, i));
            children.back().admit();
        }
        all->compute();
        for (tg::token<>& each : children) co_await each;
        all->end();
    }
}
const tg::operation admits{{.name = "admits", .weight = tg::weight::heavy}, admit_all};

tg::task<> spawn_some(tg::scope& in, rounds* all) {
    for (std::size_t i = 0; i < all->size(); ++i) co_await in.spawn(child(all, i));
    all->compute();
}
tg::task<> spawn_all(rounds* all) {
    for (unsigned round = 0; round < rounds::count; ++round) {
        co_await tg::sleep_for(news::pause);
        const auto body = [all](tg::scope& in) { return spawn_some(in, all); };
        co_await tg::with_scope(body);
        all->end();
    }
}
const tg::operation spawns{{.name = "spawns", .weight = tg::weight::heavy}, spawn_all};

tg::task<> by_admission(rounds* all) { co_await admits(all); }
tg::task<> by_scope(rounds* all) { co_await spawns(all); }

}  // namespace

int main(int argc, char** argv) {
    const contest::request asked(argc, argv);
    tg::runtime runtime{{.cores = asked.threads}};
    const auto tell = [&](tg::task<> (*how)(rounds*)) {
        rounds all(asked);
        runtime.run(how(&all));
        return all.sample();
    };
    return contest::answer(asked, {{"admitted", [&] { return tell(by_admission); }},
                                   {"scope", [&] { return tell(by_scope); }}});
}
