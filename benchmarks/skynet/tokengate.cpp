// SPDX-License-Identifier: MIT

/// Ours, in every natural spelling (support/spellings.hpp).

#include "../support/spellings.hpp"
#include "problem.hpp"

#include <tokengate/tokengate.hpp>

#include <cstdint>
#include <numeric>
#include <tuple>
#include <utility>
#include <vector>

namespace {

namespace tg = tokengate;
using skynet::part;
using number = std::uint64_t;

number total(const std::vector<number>& seen) {
    return std::accumulate(seen.begin(), seen.end(), number{0});
}
template <class Ten>
number total_of_ten(const Ten& seen) {
    return std::apply([](auto... each) { return (each + ...); }, seen);
}

/// The children's tokens or tasks, in a `when_all` of ten.
template <class Spawn>
auto all_ten(const Spawn& spawn, part of) {
    return tg::when_all(spawn(of.child(0)), spawn(of.child(1)), spawn(of.child(2)),
                        spawn(of.child(3)), spawn(of.child(4)), spawn(of.child(5)),
                        spawn(of.child(6)), spawn(of.child(7)), spawn(of.child(8)),
                        spawn(of.child(9)));
}

tg::task<number> tasks(part of) {
    if (of.leaves == 1) co_return of.first;
    number all = 0;
    for (unsigned i = 0; i < 10; ++i) all += co_await tasks(of.child(i));
    co_return all;
}

tg::task<number> tasks_vector(part of) {
    if (of.leaves == 1) co_return of.first;
    std::vector<tg::task<number>> children;
    children.reserve(10);
    for (unsigned i = 0; i < 10; ++i) children.push_back(tasks_vector(of.child(i)));
    const std::vector<number> seen = co_await tg::when_all(std::move(children));
    co_return total(seen);
}

tg::task<number> tasks_tuple(part of) {
    if (of.leaves == 1) co_return of.first;
    auto ten = all_ten(tasks_tuple, of);
    const auto seen = co_await std::move(ten);
    co_return total_of_ten(seen);
}

tg::task<number> one_by_one(part of);
const tg::operation skynet_one_by_one{{.name = "skynet_one_by_one", .weight = tg::weight::heavy},
                                      one_by_one};
tg::task<number> one_by_one(part of) {
    if (of.leaves == 1) co_return of.first;
    number all = 0;
    for (unsigned i = 0; i < 10; ++i) all += co_await skynet_one_by_one(of.child(i));
    co_return all;
}

tg::task<number> vector(part of);
const tg::operation skynet_vector{{.name = "skynet_vector", .weight = tg::weight::heavy}, vector};
tg::task<number> vector(part of) {
    if (of.leaves == 1) co_return of.first;
    std::vector<tg::token<number>> children;
    children.reserve(10);
    for (unsigned i = 0; i < 10; ++i) children.push_back(skynet_vector(of.child(i)));
    const std::vector<number> seen = co_await tg::when_all(std::move(children));
    co_return total(seen);
}

tg::task<number> tuple(part of);
const tg::operation skynet_tuple{{.name = "skynet_tuple", .weight = tg::weight::heavy}, tuple};
tg::task<number> tuple(part of) {
    if (of.leaves == 1) co_return of.first;
    auto ten = all_ten(skynet_tuple, of);
    const auto seen = co_await std::move(ten);
    co_return total_of_ten(seen);
}

}  // namespace

int main(int argc, char** argv) {
    const contest::request asked(argc, argv);
    const auto subtrees = skynet::parts(asked.size, asked.threads);
    const part whole{0, asked.size};
    tg::runtime runtime{{.cores = asked.threads}};
    contest::spellings tree(runtime);
    tree.tasks("tasks", subtrees, tasks);
    tree.tasks("tasks_vector", subtrees, tasks_vector);
    tree.tasks("tasks_tuple", subtrees, tasks_tuple);
    tree.conducted("conducted", subtrees, one_by_one);
    tree.conducted("conducted_vector", subtrees, vector);
    tree.conducted("conducted_tuple", subtrees, tuple);
    tree.operations("operations_vector", whole, vector);
    tree.operations("operations_tuple", whole, tuple);
    return contest::answer(asked, tree.ways());
}
