// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/options.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

/// How full each position of a runtime is, and who has nothing to run. A *position* is one executor; position p belongs to core
/// p / workers_per_core. It has room while fewer tokens that were routed to it wait there than its window allows; from the moment
/// it is found full until its owner has run it down by half, it counts as full.
///
///     load_table loads{{.cores = 8}};             // one a runtime
///     loads.started(position, 3);                 // the owner: 3 tokens left its queue
///     loads.publish_room(position);               // once a turn
///
/// Of the members, each says who may call it; the *owner* of a position is the thread of its executor. Nothing here blocks, and
/// nothing allocates or fails after construction.

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
        s.started.store(s.started.load(std::memory_order_relaxed) + count,
                        std::memory_order_release);
        s.changed = true;
    }

    void set_window(unsigned position, unsigned window) noexcept {
        slots_[position].window.store(window,
                                      std::memory_order_relaxed);  // published with `started`
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
            s.started.exchange(s.started.load(std::memory_order_relaxed),
                               std::memory_order_seq_cst);
        }
        std::atomic<std::uint64_t>& word = room_[s.turn / 64].bits;
        std::uint64_t bit = std::uint64_t{1} << s.turn % 64;
        if (word.load(std::memory_order_seq_cst) & bit)
            return;  // pairs with the fetch_and in retract()
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
        if (!(room_[turn / 64].hungry.fetch_or(bit, std::memory_order_seq_cst) & bit))
            count_hungry(position, 1);
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
        const std::uint64_t before =
            room_[turn / 64].hungry.fetch_and(~bit, std::memory_order_relaxed);
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
        std::uint32_t done =
            s.started.load(std::memory_order_seq_cst);  // pairs with the exchange in publish_room()
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

    static constexpr unsigned most_words =
        most_positions / 64 + 1;  // one bit more than positions: the control loop's

    /// One line, not two: who publishes into `routed` reads the others in the same breath.
    struct alignas(64) slot {
        std::atomic<std::uint32_t> routed = 0;   // added to by routers and by the owner
        std::atomic<std::uint32_t> started = 0;  // the owner alone
        std::atomic<std::uint32_t> window = window_for(0);
        std::uint32_t turn =
            0;  // constant: the position's place in the order of staggering, and in the bitmap
        bool changed =
            false;  // the owner's: `started` or `window` were stored since the last publish_room
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

}  // namespace tokengate::detail
