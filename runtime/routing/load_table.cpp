// SPDX-License-Identifier: MIT
#include "routing/load_table.hpp"

#include <stdexcept>

namespace tokengate::detail {

load_table::load_table(core_layout layout) : layout_(layout) {
    unsigned positions = layout.positions();
    if (positions == 0 || positions > most_positions)
        throw std::length_error("a load_table has 1 … 1024 positions");
    slots_ = std::make_unique<slot[]>(positions);
    position_at_.resize(positions);
    turn_of_.resize(positions + 1);
    turn_of_[positions] = static_cast<std::uint16_t>(positions);
    for (unsigned position = 0; position < positions; ++position) {
        unsigned core = position / layout.workers_per_core,
                 worker = position % layout.workers_per_core;
        unsigned turn = worker * layout.cores + core;
        slots_[position].turn = turn;
        position_at_[turn] = static_cast<std::uint16_t>(position);
        turn_of_[position] = static_cast<std::uint16_t>(turn);
        room_[turn / 64].bits.fetch_or(std::uint64_t{1} << turn % 64, std::memory_order_relaxed);
    }
}

int load_table::retract(unsigned position) noexcept {
    unsigned turn = slots_[position].turn;
    std::atomic<std::uint64_t>& word = room_[turn / 64].bits;
    std::uint64_t bit = std::uint64_t{1} << turn % 64;
    word.fetch_and(~bit, std::memory_order_seq_cst);  // pairs with the load in publish_room()
    int now = free(position);  // reads `started` seq_cst: pairs with the exchange there
    if (now > 0) word.fetch_or(bit, std::memory_order_seq_cst);
    return now;
}

void load_table::count_hungry(unsigned position, std::uint32_t more) noexcept {
    if (position == layout_.positions()) return;  // the control loop serves no class
    const unsigned core = position / layout_.workers_per_core;
    for (const weight w : {weight::heavy, weight::medium, weight::light})
        if (core >= first_home_core(w, layout_.cores))
            hungry_in_[static_cast<std::size_t>(w)].fetch_add(more, std::memory_order_relaxed);
}

}  // namespace tokengate::detail
