// SPDX-License-Identifier: MIT
#pragma once

#include "routing/load_table.hpp"

#include <tokengate/options.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

/// Chooses where a token runs: the next staggered position with room in the home range of its
/// class.
///
///     load_table loads{{.cores = 8}};    // one for each runtime
///     router routes{loads, loop_index};  // one for each event loop
///     // no_room: the token goes to its class FIFO at the gate
///     if (unsigned p = routes.route(weight::light); p != router::no_room)
///         … chain into the outbox of p; when that is flushed: routes.publish(p);
///
/// Anchored tokens are placed, not routed: they need no room and are not counted.
///
/// Belongs to its event loop's thread. Nothing here blocks, and nothing allocates or fails after
/// construction.

namespace tokengate::detail {

/// Staggers tokens over the positions of their class, in the order of *turns*: every core once
/// before a second executor of any core. The cursor of a class starts at the front (heavy, medium)
/// or at the back (light), a few places further in each loop, and goes round. A full position loses
/// its turn.
///
/// A hungry position is chosen before the others, but only once until the router has published what
/// it routed there. A hungry position that is awake is chosen before one that would have to be
/// woken.
///
/// Decisions that a router has not published count for this router alone. It reads a position's
/// room again only after publishing or after 32 tokens: so a decision touches no shared cache line
/// but the bitmap's. The price is that several routers may overbook a position, each by what it
/// decided since its last read: at most (routers × 32) tokens.
class router {
public:
    static constexpr unsigned no_room = ~0u;
    /// A router publishes at the latest after this many tokens to one position.
    static constexpr unsigned batch = 32;

    router(load_table& loads, unsigned loop_index, spill = spill::when_saturated);

    router(const router&) = delete;
    router& operator=(const router&) = delete;

    /// The position for an unanchored token; or `no_room`: the token waits at the gate. To be
    /// published.
    unsigned route(weight w) noexcept {
        lane& l = lane_of(w);
        found next = next_with_room(l);
        if (next.free == 0) [[unlikely]]
            return spilled(w);
        local& mine = mine_[next.position];
        ++mine.pending;
        mine.credit = static_cast<std::uint16_t>(next.free - 1);
        fed_[next.turn / 64] |= loads_.hungry(next.turn / 64) & bit_of(next.turn);
        step(l, next.turn);
        return next.position;
    }

    /// The position for the first token of a sticky key: one with room if there is one, else the
    /// next of the home range. The token is not counted, and nothing is to be published.
    unsigned place(weight w) noexcept;

    /// The outbox to `position` is being flushed: tokens routed there count for every router from
    /// now on. Called at the latest after `batch` tokens to one position, and at the end of a turn
    /// for each position that received any, the loop's own included.
    void publish(unsigned position) noexcept {
        local& mine = mine_[position];
        load_table::slot& s = loads_.slots_[position];
        // relaxed: a late read is like a decision that is still pending here; the addition only
        // makes the position fuller.
        if (mine.pending != 0) s.routed.fetch_add(mine.pending, std::memory_order_relaxed);
        mine = {};
        filled_[s.turn / 64] &= ~bit_of(s.turn);
        fed_[s.turn / 64] &= ~bit_of(s.turn);
    }

    /// Whether a position of the home range, other than this one, has nothing to run.
    [[nodiscard]] bool hungry_but(weight w, unsigned position) const noexcept {
        const lane& l = lane_of(w);
        const unsigned own = loads_.turn_of_[position];
        for (unsigned word = 0; word < words_; ++word) {
            std::uint64_t others = loads_.hungry(word) & l.home[word];
            if (own / 64 == word) others &= ~bit_of(own);
            if (others != 0) return true;
        }
        return false;
    }

    /// Notifies the sleeping executors of the home range, except for `but`, until `tell(position)`
    /// returns true. False: none was notified.
    template <class Tell>
    bool tell_sleepers(weight w, unsigned but, Tell tell) const noexcept {
        const lane& l = lane_of(w);
        return tell_among(but, tell, [&](unsigned word) { return l.home[word]; });
    }
    /// The same for any range, except for executors that soon scan by themselves.
    template <class Tell>
    bool tell_sleepers_anywhere(unsigned but, Tell tell) const noexcept {
        const lane& all = lane_of(weight::heavy);
        return tell_among(but, tell, [&](unsigned word) {
            return all.home[word] & ~loads_.room_[word].looks.load(std::memory_order_relaxed);
        });
    }

    /// Nothing is kept back for the position: while hungry, it is chosen before others again.
    void forget_fed(unsigned position) noexcept {
        const unsigned turn = loads_.slots_[position].turn;
        fed_[turn / 64] &= ~bit_of(turn);
    }
    void forget_fed() noexcept {
        for (unsigned word = 0; word < words_; ++word) fed_[word] = 0;
    }

    /// Tokens routed there and not yet published.
    [[nodiscard]] unsigned pending(unsigned position) const noexcept {
        return mine_[position].pending;
    }

    /// Where the home range of the class begins; it ends with the last position.
    [[nodiscard]] unsigned first_position(weight w) const noexcept {
        return lane_of(w).first_position;
    }

    /// Whether the position is in the home range of the class.
    [[nodiscard]] bool may_serve(unsigned position, weight w) const noexcept {
        return position >= lane_of(w).first_position;
    }

    /// Whether the position, outside the home range, may take tokens of the class that wait at the
    /// gate. Those tokens have found their range full, so it is enough that this position has at
    /// least half its window free.
    [[nodiscard]] bool may_help(unsigned position, weight w) const noexcept;

    /// How many of the `waiting` tokens of a class its FIFO gives at once to a position that may
    /// serve them, or may spill. Fewer towards the end of a burst, and no more than there is room
    /// for, but at least one.
    [[nodiscard]] unsigned chunk(std::size_t waiting, weight w, unsigned position) const noexcept;

private:
    using bitmap = std::array<std::uint64_t, load_table::most_words>;

    struct lane {             // what a router knows of a weight class
        unsigned cursor = 0;  // the next turn
        unsigned first_position = 0;
        unsigned stride = 1;         // from turn to turn, modulo their number
        std::uint64_t backward = 0;  // all ones: from the back to the front
        unsigned spill_cursor = 0;   // the next position of [0, first_position)
        bitmap home{};
    };
    struct local {
        std::uint16_t pending = 0;
        // Room found at the last read and not used; 0 if nothing is pending.
        std::uint16_t credit = 0;
    };
    struct found {
        unsigned turn;
        unsigned position;
        int free;  // 0: no position
    };

    lane& lane_of(weight w) noexcept { return lanes_[static_cast<std::size_t>(w)]; }
    const lane& lane_of(weight w) const noexcept { return lanes_[static_cast<std::size_t>(w)]; }

    static constexpr std::uint64_t bit_of(unsigned turn) noexcept {
        return std::uint64_t{1} << turn % 64;
    }

    /// The bits of the cursor's word at or behind the cursor. Without branches, here and below:
    /// classes alternate unpredictably, and a mispredicted branch costs more than all the rest.
    static std::uint64_t from_cursor(const lane& l) noexcept {
        std::uint64_t forward = ~std::uint64_t{} << l.cursor % 64,
                      backward = ~std::uint64_t{} >> (63 - l.cursor % 64);
        return forward ^ ((forward ^ backward) & l.backward);
    }

    /// The first of some bits, not all zero, in the lane's direction.
    static unsigned first_of(const lane& l, std::uint64_t bits) noexcept {
        std::uint64_t lowest = static_cast<unsigned>(std::countr_zero(bits));
        std::uint64_t highest = 63 - static_cast<unsigned>(std::countl_zero(bits));
        return static_cast<unsigned>(lowest ^ ((lowest ^ highest) & l.backward));
    }

    template <class Tell, class Bits>
    bool tell_among(unsigned but, Tell tell, Bits bits_of_word) const noexcept {
        const unsigned own = loads_.turn_of_[but];
        for (unsigned word = 0; word < words_; ++word) {
            // seq_cst: pairs with starves(), whose caller scans the other loops afterwards.
            std::uint64_t asleep = loads_.room_[word].asleep.load(std::memory_order_seq_cst);
            if (asleep == 0) [[likely]]
                continue;
            asleep &= bits_of_word(word);
            if (own / 64 == word) asleep &= ~bit_of(own);
            // From the back: the executors at home there may run every class.
            while (asleep != 0) {
                const unsigned bit = 63 - static_cast<unsigned>(std::countl_zero(asleep));
                if (tell(loads_.position_at(word * 64 + bit))) return true;
                asleep &= ~(std::uint64_t{1} << bit);
            }
        }
        return false;
    }

    [[nodiscard]] std::uint64_t candidates(const lane& l, unsigned word) const noexcept {
        return loads_.room(word) & l.home[word] & ~filled_[word];
    }

    /// Reads the cursor's word first, which nearly always suffices.
    found next_with_room(const lane& l) noexcept {
        unsigned word = l.cursor / 64;
        std::uint64_t all = candidates(l, word);
        if (const std::uint64_t hungry =
                loads_.hungry(word) & l.home[word] & ~filled_[word] & ~fed_[word]) [[unlikely]] {
            const std::uint64_t awake =
                hungry & ~loads_.room_[word].asleep.load(std::memory_order_relaxed);
            all = awake != 0 ? awake : hungry;
        }
        std::uint64_t bits = all & from_cursor(l);
        bits = bits != 0 ? bits : all & only_word_;
        if (bits != 0) [[likely]] {
            unsigned turn = word * 64 + first_of(l, bits), position = loads_.position_at(turn);
            const local& mine = mine_[position];
            int free = mine.credit != 0 ? mine.credit : loads_.free(position) - mine.pending;
            if (free > 0) [[likely]]
                return {turn, position, std::min(free, static_cast<int>(batch))};
        }
        return search(l);
    }

    void step(lane& l, unsigned turn) const noexcept {
        unsigned next = turn + l.stride;
        l.cursor = next < positions_ ? next : next - positions_;
    }

    /// The first turn at or behind the cursor, going round, whose bit is set in `bits_of(word)` and
    /// for whose position `free_of` is above zero.
    template <class Bits, class Free>
    found walk(const lane& l, Bits bits_of, Free free_of) const noexcept;

    found search(const lane& l) noexcept;

    /// How many tokens, at most a batch, may go there now. If 0, the router does not read the
    /// position again before the position has changed.
    int look(unsigned position) noexcept;

    unsigned spilled(weight w) noexcept;

    load_table& loads_;
    unsigned positions_;
    unsigned words_;
    std::uint64_t only_word_;  // all ones if there is only one word
    spill spill_;
    std::array<lane, 3> lanes_;  // by weight
    bitmap filled_{};  // by turn: full through what is pending here, until that is published
    bitmap fed_{};     // by turn: hungry, and routed to from here, until that is published
    std::vector<local> mine_;  // by position
};

}  // namespace tokengate::detail
