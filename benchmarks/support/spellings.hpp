// SPDX-License-Identifier: MIT
#pragma once

#include "contender.hpp"

#include <tokengate/tokengate.hpp>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

/// The natural spellings of one fork-join tree, as ways of a contender:
///
///     contest::spellings tree(runtime);
///     tree.tasks("tasks", parts, fib_tasks);                // plain tasks inside a token
///     tree.conducted("conducted", parts, fib_one_by_one);   // operations inside a lead: they stay on its core
///     tree.operations("operations_vector", whole, fib_vector);   // operations that are routed
///     return contest::answer(asked, tree.ways());
///
/// A body is a coroutine that takes a part of the tree and returns a number; the tree's result is the sum over the
/// parts. What stays on one core is cut into parts at its top, a token each, which are routed. Routed operations
/// need no cut.

namespace contest {

namespace tg = tokengate;

using tree_body = std::function<tg::task<std::uint64_t>(std::size_t)>;

inline const tg::operation part{
    {.name = "part", .weight = tg::weight::heavy},
    [](const tree_body* solve, std::size_t index) -> tg::task<std::uint64_t> {
        return (*solve)(index);
    }};
inline const tg::operation led_part{
    {.name = "led_part", .weight = tg::weight::heavy},
    tg::lead{"part"},
    [](const tree_body* solve, std::size_t index) -> tg::task<std::uint64_t> {
        return (*solve)(index);
    }};

inline tg::task<std::uint64_t> whole_tree(const tree_body* solve, std::size_t parts, bool led) {
    std::vector<tg::token<std::uint64_t>> tokens;
    tokens.reserve(parts);
    for (std::size_t i = 0; i < parts; ++i)
        tokens.push_back(led ? led_part(solve, i) : part(solve, i));
    const std::vector<std::uint64_t> results = co_await tg::when_all(std::move(tokens));
    co_return std::accumulate(results.begin(), results.end(), std::uint64_t{0});
}

class spellings {
public:
    explicit spellings(tg::runtime& runtime) : runtime_(runtime) {}

    template <class Part>
    void tasks(std::string name, const std::vector<Part>& parts,
               tg::task<std::uint64_t> (*solve)(Part)) {
        add(std::move(name), parts, solve, false);
    }
    template <class Part>
    void conducted(std::string name, const std::vector<Part>& parts,
                   tg::task<std::uint64_t> (*solve)(Part)) {
        add(std::move(name), parts, solve, true);
    }
    template <class Part>
    void operations(std::string name, const Part& whole, tg::task<std::uint64_t> (*solve)(Part)) {
        add(std::move(name), std::vector<Part>{whole}, solve, false);
    }

    [[nodiscard]] const std::vector<way>& ways() const noexcept { return ways_; }

private:
    template <class Part>
    void add(std::string name, std::vector<Part> parts, tg::task<std::uint64_t> (*solve)(Part),
             bool led) {
        const std::size_t count = parts.size();
        tree_body body = [parts = std::move(parts), solve](std::size_t index) {
            return solve(parts[index]);
        };
        ways_.emplace_back(std::move(name), [this, body = std::move(body), count, led] {
            return runtime_.run(whole_tree(&body, count, led));
        });
    }

    tg::runtime& runtime_;
    std::vector<way> ways_;
};

}  // namespace contest
