// SPDX-License-Identifier: MIT

/// Ours, in the spellings that suit children whose number is not known beforehand (support/spellings.hpp).

#include "../support/spellings.hpp"
#include "problem.hpp"

#include <tokengate/tokengate.hpp>

#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

namespace {

namespace tg = tokengate;
using nqueens::board;
using number = std::uint64_t;

number total(const std::vector<number>& seen) {
    return std::accumulate(seen.begin(), seen.end(), number{0});
}

tg::task<number> tasks(board from) {
    if (from.full()) co_return 1;
    number all = 0;
    for (std::uint32_t safe = from.safe(); safe != 0; safe &= safe - 1)
        all += co_await tasks(from.with(safe & -safe));
    co_return all;
}

tg::task<number> tasks_vector(board from) {
    if (from.full()) co_return 1;
    std::vector<tg::task<number>> children;
    nqueens::each_child(from, [&](const board& child) { children.push_back(tasks_vector(child)); });
    const std::vector<number> seen = co_await tg::when_all(std::move(children));
    co_return total(seen);
}

tg::task<number> one_by_one(board from);
const tg::operation nqueens_one_by_one{{.name = "nqueens_one_by_one", .weight = tg::weight::heavy},
                                       one_by_one};
tg::task<number> one_by_one(board from) {
    if (from.full()) co_return 1;
    number all = 0;
    for (std::uint32_t safe = from.safe(); safe != 0; safe &= safe - 1)
        all += co_await nqueens_one_by_one(from.with(safe & -safe));
    co_return all;
}

tg::task<number> vector(board from);
const tg::operation nqueens_vector{{.name = "nqueens_vector", .weight = tg::weight::heavy}, vector};
tg::task<number> vector(board from) {
    if (from.full()) co_return 1;
    std::vector<tg::token<number>> children;
    nqueens::each_child(from,
                        [&](const board& child) { children.push_back(nqueens_vector(child)); });
    const std::vector<number> seen = co_await tg::when_all(std::move(children));
    co_return total(seen);
}

}  // namespace

int main(int argc, char** argv) {
    const contest::request asked(argc, argv);
    const board whole{static_cast<std::uint32_t>(asked.size)};
    const auto boards = nqueens::parts(whole.size, asked.threads);
    tg::runtime runtime{{.cores = asked.threads}};
    contest::spellings tree(runtime);
    tree.tasks("tasks", boards, tasks);
    tree.tasks("tasks_vector", boards, tasks_vector);
    tree.conducted("conducted", boards, one_by_one);
    tree.conducted("conducted_vector", boards, vector);
    tree.operations("operations_vector", whole, vector);
    return contest::answer(asked, tree.ways());
}
