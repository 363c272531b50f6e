// SPDX-License-Identifier: MIT
#include "routing/router.hpp"

namespace tokengate::detail {

router::router(load_table& loads, unsigned loop_index, spill spill)
    : loads_(loads),
      positions_(loads.layout().positions()),
      words_(loads.words()),
      only_word_(words_ == 1 ? ~std::uint64_t{} : 0),
      spill_(spill),
      mine_(positions_) {
    auto [cores, workers] = loads.layout();
    for (weight w : {weight::heavy, weight::medium, weight::light}) {
        lane& l = lane_of(w);
        unsigned first = first_home_core(w, cores);
        unsigned offset = loop_index % (cores - first);
        l.cursor = first + offset;
        if (w == weight::light) {
            l.cursor = cores - 1 - offset;
            l.stride = positions_ - 1;
            l.backward = ~std::uint64_t{};
        }
        l.first_position = first * workers;
        for (unsigned turn = 0; turn < positions_; ++turn)
            if (turn % cores >= first) l.home[turn / 64] |= bit_of(turn);
    }
}

template <class Bits, class Free>
router::found router::walk(const lane& l, Bits bits_of, Free free_of) const noexcept {
    unsigned word = l.cursor / 64;
    std::uint64_t bits = bits_of(word) & from_cursor(l);
    for (unsigned left = words_;; --left) {
        while (bits != 0) {
            unsigned turn = word * 64 + first_of(l, bits), position = loads_.position_at(turn);
            if (int free = free_of(position); free > 0) return {turn, position, free};
            bits &= ~bit_of(turn);
        }
        // The first word has been scanned twice: from the cursor on, and now as a whole.
        if (left == 0) return {};
        if (l.backward != 0)
            word = (word == 0 ? words_ : word) - 1;
        else
            word = word + 1 == words_ ? 0 : word + 1;
        bits = bits_of(word);
    }
}

router::found router::search(const lane& l) noexcept {
    return walk(
        l, [&](unsigned word) { return candidates(l, word); },
        [&](unsigned position) {
            return mine_[position].credit != 0 ? mine_[position].credit : look(position);
        });
}

int router::look(unsigned position) noexcept {
    int pending = mine_[position].pending;
    int free = loads_.free(position);
    if (free <= 0) free = loads_.retract(position);
    if (free > pending) return std::min(free - pending, static_cast<int>(batch));
    if (free > 0) {
        unsigned turn = loads_.slots_[position].turn;
        filled_[turn / 64] |= bit_of(turn);
    }
    return 0;
}

unsigned router::spilled(weight w) noexcept {
    if (spill_ == spill::never) return no_room;
    lane& l = lane_of(w);
    for (unsigned left = l.first_position; left > 0; --left) {
        unsigned position = l.spill_cursor;
        l.spill_cursor = position + 1 == l.first_position ? 0 : position + 1;
        local& mine = mine_[position];
        // The bit is tested first: without it the position is full, or more than half full.
        if (!loads_.has_room(position) || loads_.half_free(position) <= mine.pending) continue;
        ++mine.pending;
        mine.credit = 0;  // the next token of the position's own classes reads the room again
        return position;
    }
    return no_room;
}

unsigned router::place(weight w) noexcept {
    lane& l = lane_of(w);
    found next = next_with_room(l);
    if (next.free == 0)
        next = walk(l, [&](unsigned word) { return l.home[word]; }, [](unsigned) { return 1; });
    step(l, next.turn);
    return next.position;
}

bool router::may_help(unsigned position, weight w) const noexcept {
    return spill_ == spill::when_saturated && !may_serve(position, w) &&
           loads_.half_free(position) > mine_[position].pending;
}

unsigned router::chunk(std::size_t waiting, weight w, unsigned position) const noexcept {
    if (waiting == 0) return 0;
    int room = may_serve(position, w) ? loads_.free(position) : loads_.half_free(position);
    room -= mine_[position].pending;
    std::size_t share = waiting / (2 * (positions_ - lane_of(w).first_position));
    std::size_t most = std::min<std::size_t>(batch, static_cast<std::size_t>(std::max(room, 1)));
    return static_cast<unsigned>(std::clamp<std::size_t>(share, 1, most));
}

}  // namespace tokengate::detail
