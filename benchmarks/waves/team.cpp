// SPDX-License-Identifier: MIT

/// The hand-written limit: pinned threads, a share of the wave each, fixed beforehand.

#include "../support/team.hpp"
#include "contenders.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace {

class partition : public waves::contender {
public:
    explicit partition(unsigned threads) : threads_(threads) {}
    void run(std::vector<std::uint64_t>& fingerprints) override {
        threads_.each_share(fingerprints.size(), [&](std::size_t first, std::size_t last) {
            for (; first < last; ++first)
                fingerprints[first] = waves::piece(static_cast<unsigned>(first));
        });
    }

private:
    team threads_;
};

}  // namespace

std::unique_ptr<waves::contender> waves::make_team(unsigned threads) {
    return std::make_unique<partition>(threads);
}
