// SPDX-License-Identifier: MIT

/// Ours: plain tasks and conducted operations, each in one token (so one core: what the recursion itself costs),
/// and routed operations, as a vector and as a tuple.

#include "measured.hpp"

#include <tokengate/tokengate.hpp>

#include <utility>
#include <vector>

namespace {

namespace tg = tokengate;
using matmul::product;

tg::task<> tasks(product of) {
    if (of.small()) {
        of.multiply();
        co_return;
    }
    for (unsigned half = 0; half < 2; ++half)
        for (unsigned i = 0; i < 4; ++i) co_await tasks(of.part(i, half));
}

tg::task<> one_by_one(product of);
const tg::operation matmul_one_by_one{{.name = "matmul_one_by_one", .weight = tg::weight::heavy},
                                      one_by_one};
tg::task<> one_by_one(product of) {
    if (of.small()) {
        of.multiply();
        co_return;
    }
    for (unsigned half = 0; half < 2; ++half)
        for (unsigned i = 0; i < 4; ++i) co_await matmul_one_by_one(of.part(i, half));
}

tg::task<> vector(product of);
const tg::operation matmul_vector{{.name = "matmul_vector", .weight = tg::weight::heavy}, vector};
tg::task<> vector(product of) {
    if (of.small()) {
        of.multiply();
        co_return;
    }
    for (unsigned half = 0; half < 2; ++half) {
        std::vector<tg::token<>> four;
        four.reserve(4);
        for (unsigned i = 0; i < 4; ++i) four.push_back(matmul_vector(of.part(i, half)));
        co_await tg::when_all(std::move(four));
    }
}

tg::task<> tuple(product of);
const tg::operation matmul_tuple{{.name = "matmul_tuple", .weight = tg::weight::heavy}, tuple};
tg::task<> tuple(product of) {
    if (of.small()) {
        of.multiply();
        co_return;
    }
    for (unsigned half = 0; half < 2; ++half) {
        auto four = tg::when_all(matmul_tuple(of.part(0, half)), matmul_tuple(of.part(1, half)),
                                 matmul_tuple(of.part(2, half)), matmul_tuple(of.part(3, half)));
        co_await std::move(four);
    }
}

const tg::operation in_token{{.name = "in_token", .weight = tg::weight::heavy}, tasks};
const tg::operation in_lead{
    {.name = "in_lead", .weight = tg::weight::heavy}, tg::lead{"matmul_one_by_one"}, one_by_one};

tg::task<> by_tasks(product whole) { co_await in_token(whole); }
tg::task<> by_conducted(product whole) { co_await in_lead(whole); }
tg::task<> by_vector(product whole) { co_await matmul_vector(whole); }
tg::task<> by_tuple(product whole) { co_await matmul_tuple(whole); }

}  // namespace

int main(int argc, char** argv) {
    const contest::request asked(argc, argv);
    matmul::matrices all(asked.size);
    tg::runtime runtime{{.cores = asked.threads}};
    const auto run = [&](tg::task<> (*how)(product)) {
        return matmul::measured(all, [&](const product& whole) { runtime.run(how(whole)); });
    };
    return contest::answer(asked, {{"tasks", [&] { return run(by_tasks); }},
                                   {"conducted", [&] { return run(by_conducted); }},
                                   {"operations_vector", [&] { return run(by_vector); }},
                                   {"operations_tuple", [&] { return run(by_tuple); }}});
}
