// SPDX-License-Identifier: MIT
#pragma once

#include "support/workload.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

/// The waves of the sample, solved by us and by others in one process: piece i of a wave is one of the four
/// functions of samples/support/workload.hpp, with arguments that follow from i.

namespace waves {

/// The fingerprint of piece i.
inline std::uint64_t piece(unsigned i) {
    switch (i % 4) {
        case 0: return workload::fingerprint(workload::cpu_crunch(60 + i % 25));
        case 1: return workload::fingerprint(workload::string_transform(31 * i));
        case 2: return workload::fingerprint(workload::data_sort(400 + i % 300));
        default:
            return workload::fingerprint(workload::hash_chain("wave_seed_" + std::to_string(i),
                                                              120 + i % 80));
    }
}

/// One who runs waves, on a thread that calls all of its functions. run() fills in the fingerprints, and returns
/// when all are there.
class contender {
public:
    contender() = default;
    contender(const contender&) = delete;
    contender& operator=(const contender&) = delete;
    virtual ~contender() = default;
    virtual void run(std::vector<std::uint64_t>& fingerprints) = 0;
};

using maker = std::function<std::unique_ptr<contender>(unsigned threads)>;

std::unique_ptr<contender> make_tokengate(unsigned threads);
std::unique_ptr<contender> make_team(unsigned threads);
#ifdef TOKENGATE_PEER_TBB
std::unique_ptr<contender> make_onetbb(unsigned threads);
#endif

}  // namespace waves
