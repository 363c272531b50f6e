// SPDX-License-Identifier: MIT
#include "token/operation_stats.hpp"

#include <memory>
#include <new>

namespace tokengate::detail {

run_outcome outcome_of(const token_record& token) noexcept {
    switch (token.state.load()) {
        case token_state::completed: return run_outcome::completed;
        case token_state::timeout:
            return token.stop.load() & stop_unrun ? run_outcome::expired : run_outcome::timed_out;
        case token_state::killed: return run_outcome::killed;
        default:
            return token.stop.load() & stop_refused ? run_outcome::refused : run_outcome::failed;
    }
}

operation_stats* stats_table::make(std::uint32_t index) noexcept {
    try {
        return &table_.add(index, std::make_unique<operation_stats>());
    } catch (const std::bad_alloc&) {
        lost_.add(1);
        return nullptr;
    }
}

}  // namespace tokengate::detail
