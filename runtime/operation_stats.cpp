// SPDX-License-Identifier: MIT
#include "operation_stats.hpp"

#include <new>

namespace tokengate::detail {

stats_table::~stats_table() {
    for (const auto& rows : chunks_) {
        const chunk* owned = rows.load(std::memory_order_relaxed);
        if (!owned) continue;
        for (const auto& each : *owned) delete each.load(std::memory_order_relaxed);
        delete owned;
    }
}

operation_stats* stats_table::make(std::uint32_t index) noexcept {
    std::atomic<chunk*>& place = chunks_[index / chunk_size];
    chunk* rows = place.load(std::memory_order_relaxed);
    if (!rows) {
        rows = new (std::nothrow) chunk{};
        if (rows) place.store(rows, std::memory_order_release);  // pairs with find()
    }
    auto* made = rows ? new (std::nothrow) operation_stats{} : nullptr;
    if (made)
        (*rows)[index % chunk_size].store(made, std::memory_order_release);  // pairs with find()
    else
        lost_.add(1);
    return made;
}

}  // namespace tokengate::detail
