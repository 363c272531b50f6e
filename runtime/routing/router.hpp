// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/options.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

/// Where a token runs: the next staggered position of its class's home range that has room.
///
///     load_table loads{{.cores = 8}};                                       // one a runtime
///     router routes{loads, loop_index};                                     // one an event loop
///     if (unsigned p = routes.route(weight::light); p != router::no_room)   // else: the class FIFO at the gate
///         … chain into the outbox of p; when that is flushed: routes.publish(p);
///
/// A *position* is one executor; position p belongs to core p / workers_per_core. It has room while fewer tokens that
/// were routed to it wait there than its window allows; from the moment it is found full until its owner has run it
/// down by half, it counts as full. Anchored tokens are placed, not routed: they never ask for room and are not
/// counted.
///
/// A `router` belongs to its event loop's thread. Of the `load_table`, each member says who may call it; the *owner* of
/// a position is the thread of its executor. Nothing here blocks, and nothing allocates or fails after construction.

namespace tokengate::detail {

/// How many executors there are and which share a core.
struct core_layout {
    unsigned cores = 1;
    unsigned workers_per_core = 1;

    [[nodiscard]] constexpr unsigned positions() const noexcept { return cores * workers_per_core; }
};

/// The home range of a class is [first_home_core, cores): heavy from 0, medium from 1, light from 2, less on fewer
/// cores.
[[nodiscard]] constexpr unsigned first_home_core(weight w, unsigned cores) noexcept {
    unsigned first = w == weight::heavy ? 0 : w == weight::medium ? 1 : 2;
    return std::min(first, cores - 1);
}

/// How many tokens that have not started a position may hold: about 200 µs of work. 0 ns: not measured yet.
[[nodiscard]] constexpr unsigned window_for(std::uint64_t average_run_ns) noexcept {
    if (average_run_ns == 0) return 32;
    return static_cast<unsigned>(std::clamp<std::uint64_t>(200'000 / average_run_ns, 8, 2048));
}

/// How full each position is. Occupancy = tokens routed there − tokens started there. A bitmap says which positions
/// have room, so that the next one is found without walking over everybody's cache lines. Its bits are hints, but none
/// is lost: a position with half its window free has its bit set once its owner has called `publish_room`.
///
/// That takes care, as a router clears what an owner sets. The owner makes room, then looks at the bit; the router
/// clears the bit, then looks for room again. All four accesses are seq_cst, so in their single order either the
/// owner's look comes after the router's clearing, and the owner sets the bit, or the router's second look comes after
/// the owner made room, and the router puts the bit back.
class load_table {
public:
    static constexpr unsigned most_positions = 1024;

    /// Throws std::length_error unless there are 1 … most_positions positions.
    explicit load_table(core_layout layout);

    [[nodiscard]] core_layout layout() const noexcept { return layout_; }

    // ---- the owner of the position ----

    /// So many routed tokens left the queue: started, or ended without having run.
    void started(unsigned position, unsigned count) noexcept {
        slot& s = slots_[position];
        // Only the owner stores. release: a router that reads this also sees the window set before.
        s.started.store(s.started.load(std::memory_order_relaxed) + count, std::memory_order_release);
        s.changed = true;
    }

    void set_window(unsigned position, unsigned window) noexcept {
        slots_[position].window.store(window, std::memory_order_relaxed);  // published with `started`
        slots_[position].changed = true;
    }

    /// The owner routes tokens from the gate's FIFOs to itself.
    void take(unsigned position, unsigned count) noexcept {
        slots_[position].routed.fetch_add(count, std::memory_order_relaxed);
    }

    /// The gate takes back what was routed there and has not started. Any thread.
    void give_back(unsigned position, unsigned count) noexcept {
        slots_[position].routed.fetch_sub(count, std::memory_order_relaxed);
    }

    /// Once a turn, and before parking; after taking from the gate's FIFOs, so that the position counts as full, and
    /// others may spill, as long as they keep it supplied. Says that there is room when at least half the window is
    /// free.
    void publish_room(unsigned position) noexcept {
        slot& s = slots_[position];
        if (s.changed) {
            s.changed = false;
            // seq_cst, before the load of the bit below: pairs with the second look in retract().
            s.started.exchange(s.started.load(std::memory_order_relaxed), std::memory_order_seq_cst);
        }
        std::atomic<std::uint64_t>& word = room_[s.turn / 64].bits;
        std::uint64_t bit = std::uint64_t{1} << s.turn % 64;
        if (word.load(std::memory_order_seq_cst) & bit) return;  // pairs with the fetch_and in retract()
        if (half_free(position) > 0) word.fetch_or(bit, std::memory_order_seq_cst);
    }

    // ---- hunger ----

    // Of every position, and of the control loop, whose number is that of the positions. Hints in both directions: who
    // misses one hands over at the end of its turn, or has it fetched. seq_cst, so that who starves looks around after it
    // has said so.

    /// The owner has nothing to run; `asleep`: it must be woken for what it gets.
    void starves(unsigned position, bool asleep) noexcept {
        const unsigned turn = turn_of_[position];
        const std::uint64_t bit = std::uint64_t{1} << turn % 64;
        if (asleep) room_[turn / 64].asleep.fetch_or(bit, std::memory_order_seq_cst);
        if (room_[turn / 64].looks.load(std::memory_order_relaxed) & bit)
            room_[turn / 64].looks.fetch_and(~bit, std::memory_order_relaxed);
        if (!(room_[turn / 64].hungry.fetch_or(bit, std::memory_order_seq_cst) & bit)) count_hungry(position, 1);
    }
    /// It sleeps, but not for long: then it looks around by itself. Until it starves anew.
    void looks_again(unsigned position) noexcept {
        const unsigned turn = turn_of_[position];
        room_[turn / 64].looks.fetch_or(std::uint64_t{1} << turn % 64, std::memory_order_relaxed);
    }
    /// Something is on its way there, or the owner has found something. True for one, if it was hungry.
    bool fed(unsigned position) noexcept {
        if (!starving(position)) return false;
        const unsigned turn = turn_of_[position];
        const std::uint64_t bit = std::uint64_t{1} << turn % 64;
        const std::uint64_t before = room_[turn / 64].hungry.fetch_and(~bit, std::memory_order_relaxed);
        if (room_[turn / 64].asleep.load(std::memory_order_relaxed) & bit)
            room_[turn / 64].asleep.fetch_and(~bit, std::memory_order_relaxed);
        if (!(before & bit)) return false;
        count_hungry(position, ~std::uint32_t{0});
        return true;
    }
    [[nodiscard]] bool starving(unsigned position) const noexcept {
        const unsigned turn = turn_of_[position];
        return hungry(turn / 64) >> turn % 64 & 1;
    }

    // ---- any thread ----

    /// How many positions of that home range are hungry: a hint, for who looks often. For a moment it may be one less than none.
    [[nodiscard]] const std::atomic<std::uint32_t>& hungry_in(weight w) const noexcept {
        return hungry_in_[static_cast<std::size_t>(w)];
    }

    /// Below zero for the moment in which a loop has started, but not yet published, what it routed to itself.
    [[nodiscard]] int occupancy(unsigned position) const noexcept {
        const slot& s = slots_[position];
        std::uint32_t done = s.started.load(std::memory_order_seq_cst);  // pairs with the exchange in publish_room()
        // relaxed: whichever of the two is older, the other end corrects it (see above); counts wrap modulo 2^32.
        return static_cast<int>(s.routed.load(std::memory_order_relaxed) - done);
    }

    [[nodiscard]] unsigned window(unsigned position) const noexcept {
        return slots_[position].window.load(std::memory_order_relaxed);
    }

    /// How many more tokens of its own classes the position takes; negative where overbooked.
    [[nodiscard]] int free(unsigned position) const noexcept {
        int occupied = occupancy(position);  // first: it acquires the window
        return static_cast<int>(window(position)) - occupied;
    }

    /// How many tokens it takes while at least half its window is free before each: the room for spilled tokens.
    [[nodiscard]] int half_free(unsigned position) const noexcept {
        int occupied = occupancy(position);
        return static_cast<int>(window(position) / 2) + 1 - occupied;
    }

    /// What the bitmap says.
    [[nodiscard]] bool has_room(unsigned position) const noexcept {
        unsigned turn = slots_[position].turn;
        return room(turn / 64) >> turn % 64 & 1;
    }

private:
    friend class router;

    static constexpr unsigned most_words = most_positions / 64 + 1;  // one bit more than positions: the control loop's

    /// One line, not two: who publishes into `routed` reads the others in the same breath.
    struct alignas(64) slot {
        std::atomic<std::uint32_t> routed = 0;   // added to by routers and by the owner
        std::atomic<std::uint32_t> started = 0;  // the owner alone
        std::atomic<std::uint32_t> window = window_for(0);
        std::uint32_t turn = 0;  // constant: the position's place in the order of staggering, and in the bitmap
        bool changed = false;    // the owner's: `started` or `window` were stored since the last publish_room
    };
    struct alignas(64) room_word {
        std::atomic<std::uint64_t> bits = 0;
        std::atomic<std::uint64_t> hungry = 0;  // beside the room, since routers look at both
        std::atomic<std::uint64_t> asleep = 0;  // of these
        std::atomic<std::uint64_t> looks = 0;   // of these again: they wake up by themselves, soon
    };

    [[nodiscard]] unsigned words() const noexcept { return (layout_.positions() + 63) / 64; }
    [[nodiscard]] unsigned position_at(unsigned turn) const noexcept { return position_at_[turn]; }
    [[nodiscard]] std::uint64_t room(unsigned word) const noexcept {
        return room_[word].bits.load(std::memory_order_relaxed);  // a hint
    }

    [[nodiscard]] std::uint64_t hungry(unsigned word) const noexcept {
        return room_[word].hungry.load(std::memory_order_relaxed);  // a hint
    }

    /// Relaxed: whoever changed the bit counts it, in whatever order.
    void count_hungry(unsigned position, std::uint32_t more) noexcept;

    /// A router: the position was found full. Clears its bit, looks once more, and sets it again if there is room after
    /// all.
    int retract(unsigned position) noexcept;

    core_layout layout_;
    std::unique_ptr<slot[]> slots_;           // by position
    std::array<room_word, most_words> room_;  // by turn
    /// By weight. Added to by who changes a bit of `hungry`; loaded by every core for each child that it keeps.
    alignas(64) std::array<std::atomic<std::uint32_t>, 3> hungry_in_{};
    std::vector<std::uint16_t> position_at_;  // by turn
    std::vector<std::uint16_t> turn_of_;      // by position, and behind them the control loop's
};

/// Staggers tokens over the positions of their class, in the order of *turns*: every core once before a second worker
/// of any. A class's cursor starts at the front (heavy, medium) or at the back (light), a few places further in each
/// loop, and goes round; a position that is full loses its turn.
///
/// A position that has nothing to run goes before the others, once: until the router has published what it gave it. One
/// that is awake goes before one that would have to be woken.
///
/// What a router has decided and not yet published counts for it alone, and it looks at a position again only after
/// publishing or after 32 tokens: a decision costs no shared cache line but the bitmap's. The price is that routers may
/// overbook a position between them, each by what it decided since its last look: at most (routers × 32) tokens.
class router {
public:
    static constexpr unsigned no_room = ~0u;
    static constexpr unsigned batch = 32;  ///< publish at the latest after so many tokens to one position

    router(load_table& loads, unsigned loop_index, spill = spill::when_saturated);

    router(const router&) = delete;
    router& operator=(const router&) = delete;

    /// The position for an unanchored token, or `no_room`: it waits at the gate. To be published.
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

    /// The position for the first token of a sticky key: one with room if there is one, else the next of
    /// the home range. Not counted, nothing to publish.
    unsigned place(weight w) noexcept;

    /// The outbox to `position` is being flushed: what was routed there counts for everybody from now on. At most every
    /// `batch` tokens, and for each position that got any at the end of a turn, the loop's own included.
    void publish(unsigned position) noexcept {
        local& mine = mine_[position];
        load_table::slot& s = loads_.slots_[position];
        // relaxed: it may be seen late, like any decision that is still pending here; it only makes the position
        // fuller.
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

    /// Tells those of the home range that sleep, but for this one, until `tell(position)` is true. False: nobody was told.
    template <class Tell>
    bool tell_sleepers(weight w, unsigned but, Tell tell) const noexcept {
        const lane& l = lane_of(w);
        return tell_among(but, tell, [&](unsigned word) { return l.home[word]; });
    }
    /// The same of any range, but for those that will look around by themselves soon.
    template <class Tell>
    bool tell_sleepers_anywhere(unsigned but, Tell tell) const noexcept {
        const lane& all = lane_of(weight::heavy);
        return tell_among(but, tell, [&](unsigned word) {
            return all.home[word] & ~loads_.room_[word].looks.load(std::memory_order_relaxed);
        });
    }

    /// Nothing has been kept back for the position: it goes before others again while it has nothing to run.
    void forget_fed(unsigned position) noexcept {
        const unsigned turn = loads_.slots_[position].turn;
        fed_[turn / 64] &= ~bit_of(turn);
    }
    void forget_fed() noexcept {
        for (unsigned word = 0; word < words_; ++word) fed_[word] = 0;
    }

    /// Decided and not yet published.
    [[nodiscard]] unsigned pending(unsigned position) const noexcept { return mine_[position].pending; }

    /// Where the home range of the class begins; it ends with the last position.
    [[nodiscard]] unsigned first_position(weight w) const noexcept { return lane_of(w).first_position; }

    /// Whether the position is in the home range of the class.
    [[nodiscard]] bool may_serve(unsigned position, weight w) const noexcept {
        return position >= lane_of(w).first_position;
    }

    /// Whether the position, outside the home range, may take tokens of the class that wait at the gate: what waits there
    /// has found its range full, so it is enough that this one has at least half its window free.
    [[nodiscard]] bool may_help(unsigned position, weight w) const noexcept;

    /// How many of the `waiting` tokens of a class its FIFO should give at once to a position that may serve them, or
    /// may spill: fewer towards the end of a burst, no more than there is room for, but at least one.
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
        std::uint16_t credit = 0;  // room seen at the last look and not used; never without something pending
    };
    struct found {
        unsigned turn;
        unsigned position;
        int free;  // 0: none
    };

    lane& lane_of(weight w) noexcept { return lanes_[static_cast<std::size_t>(w)]; }
    const lane& lane_of(weight w) const noexcept { return lanes_[static_cast<std::size_t>(w)]; }

    static constexpr std::uint64_t bit_of(unsigned turn) noexcept { return std::uint64_t{1} << turn % 64; }

    /// The bits of the cursor's word that lie at or behind the cursor. Without branches, here and below: classes
    /// alternate unforeseeably, and a mispredicted branch costs more than all the rest.
    static std::uint64_t from_cursor(const lane& l) noexcept {
        std::uint64_t forward = ~std::uint64_t{} << l.cursor % 64, backward = ~std::uint64_t{} >> (63 - l.cursor % 64);
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
            // seq_cst: pairs with starves(), whose caller looks around afterwards
            std::uint64_t asleep = loads_.room_[word].asleep.load(std::memory_order_seq_cst);
            if (asleep == 0) [[likely]]
                continue;
            asleep &= bits_of_word(word);
            if (own / 64 == word) asleep &= ~bit_of(own);
            // From the back: who is at home there may run every class.
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

    /// The first look, which nearly always suffices, is at the cursor's word.
    found next_with_room(const lane& l) noexcept {
        unsigned word = l.cursor / 64;
        std::uint64_t all = candidates(l, word);
        if (const std::uint64_t hungry = loads_.hungry(word) & l.home[word] & ~filled_[word] & ~fed_[word])
            [[unlikely]] {
            const std::uint64_t awake = hungry & ~loads_.room_[word].asleep.load(std::memory_order_relaxed);
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

    /// The first turn at or behind the cursor, going round, whose bit is set in `bits_of(word)` and for whose position
    /// `free_of` is above zero.
    template <class Bits, class Free>
    found walk(const lane& l, Bits bits_of, Free free_of) const noexcept;

    found search(const lane& l) noexcept;

    /// How many tokens, at most a batch, may go there now; 0, and the position is not asked again before it has
    /// changed.
    int look(unsigned position) noexcept;

    unsigned spilled(weight w) noexcept;

    load_table& loads_;
    unsigned positions_;
    unsigned words_;
    std::uint64_t only_word_;  // all ones if there is but one word
    spill spill_;
    std::array<lane, 3> lanes_;  // by weight
    bitmap filled_{};            // by turn: full through what is pending here, until that is published
    bitmap fed_{};               // by turn: hungry, and given something here, until that is published
    std::vector<local> mine_;    // by position
};

}  // namespace tokengate::detail
