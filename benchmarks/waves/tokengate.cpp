// SPDX-License-Identifier: MIT

/// Ours: an operation for each of the four kinds, with the weights of the sample, a token for each piece, `when_all`.

#include "contenders.hpp"

#include <tokengate/tokengate.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace {

namespace tg = tokengate;

const tg::operation cpu_crunch{{.name = "cpu_crunch", .weight = tg::weight::light}, waves::piece};
const tg::operation string_transform{{.name = "string_transform", .weight = tg::weight::light},
                                     waves::piece};
const tg::operation data_sort{{.name = "data_sort", .weight = tg::weight::medium}, waves::piece};
const tg::operation hash_chain{{.name = "hash_chain", .weight = tg::weight::heavy}, waves::piece};

tg::token<std::uint64_t> token_of(unsigned i) {
    switch (i % 4) {
        case 0: return cpu_crunch(i);
        case 1: return string_transform(i);
        case 2: return data_sort(i);
        default: return hash_chain(i);
    }
}

tg::task<std::vector<std::uint64_t>> wave(std::size_t size) {
    std::vector<tg::token<std::uint64_t>> tokens;
    tokens.reserve(size);
    for (unsigned i = 0; i < size; ++i) tokens.push_back(token_of(i));
    co_return co_await tg::when_all(std::move(tokens));
}

class ours : public waves::contender {
public:
    explicit ours(unsigned threads) : runtime_{{.cores = threads}} {}
    void run(std::vector<std::uint64_t>& fingerprints) override {
        fingerprints = runtime_.run(wave(fingerprints.size()));
    }

private:
    tg::runtime runtime_;
};

}  // namespace

std::unique_ptr<waves::contender> waves::make_tokengate(unsigned threads) {
    return std::make_unique<ours>(threads);
}
