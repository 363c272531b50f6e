// SPDX-License-Identifier: MIT

/// Ours, in every natural spelling (support/spellings.hpp).

#include "../support/spellings.hpp"
#include "problem.hpp"

#include <tokengate/tokengate.hpp>

#include <cstdint>
#include <utility>
#include <vector>

namespace {

namespace tg = tokengate;
using number = std::uint64_t;

tg::task<number> tasks(unsigned n) {
    if (n < 2) co_return n;
    const number before = co_await tasks(n - 1);
    co_return before + co_await tasks(n - 2);
}

tg::task<number> tasks_vector(unsigned n) {
    if (n < 2) co_return n;
    std::vector<tg::task<number>> both;
    both.reserve(2);
    both.push_back(tasks_vector(n - 1));
    both.push_back(tasks_vector(n - 2));
    const std::vector<number> seen = co_await tg::when_all(std::move(both));
    co_return seen[0] + seen[1];
}

tg::task<number> tasks_tuple(unsigned n) {
    if (n < 2) co_return n;
    const auto [before, last] = co_await tg::when_all(tasks_tuple(n - 1), tasks_tuple(n - 2));
    co_return before + last;
}

tg::task<number> one_by_one(unsigned n);
const tg::operation fib_one_by_one{{.name = "fib_one_by_one", .weight = tg::weight::heavy},
                                   one_by_one};
tg::task<number> one_by_one(unsigned n) {
    if (n < 2) co_return n;
    const number before = co_await fib_one_by_one(n - 1);
    co_return before + co_await fib_one_by_one(n - 2);
}

tg::task<number> vector(unsigned n);
const tg::operation fib_vector{{.name = "fib_vector", .weight = tg::weight::heavy}, vector};
tg::task<number> vector(unsigned n) {
    if (n < 2) co_return n;
    std::vector<tg::token<number>> both;
    both.reserve(2);
    both.push_back(fib_vector(n - 1));
    both.push_back(fib_vector(n - 2));
    const std::vector<number> seen = co_await tg::when_all(std::move(both));
    co_return seen[0] + seen[1];
}

tg::task<number> tuple(unsigned n);
const tg::operation fib_tuple{{.name = "fib_tuple", .weight = tg::weight::heavy}, tuple};
tg::task<number> tuple(unsigned n) {
    if (n < 2) co_return n;
    const auto [before, last] = co_await tg::when_all(fib_tuple(n - 1), fib_tuple(n - 2));
    co_return before + last;
}

}  // namespace

int main(int argc, char** argv) {
    const contest::request asked(argc, argv);
    const auto n = static_cast<unsigned>(asked.size);
    const auto calls = fib::parts(n, asked.threads);
    tg::runtime runtime{{.cores = asked.threads}};
    contest::spellings tree(runtime);
    tree.tasks("tasks", calls, tasks);
    tree.tasks("tasks_vector", calls, tasks_vector);
    tree.tasks("tasks_tuple", calls, tasks_tuple);
    tree.conducted("conducted", calls, one_by_one);
    tree.conducted("conducted_vector", calls, vector);
    tree.conducted("conducted_tuple", calls, tuple);
    tree.operations("operations_vector", n, vector);
    tree.operations("operations_tuple", n, tuple);
    return contest::answer(asked, tree.ways());
}
