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

/// How full each position of a runtime is, and which positions have nothing to run. A *position* is
/// one executor; position p belongs to core p / workers_per_core. A position has room while fewer
/// routed tokens wait there than its window allows. From the moment a router finds it full until
/// half of its window is free again, it counts as full.
///
///     load_table loads{{.cores = 8}};    // one for each runtime
///     loads.started(position, 3);        // the owner: 3 tokens left its queue
///     loads.publish_room(position);      // once a turn
///
/// The comment of each member names the thread that may call it; the *owner* of a position is the
/// thread of its executor. Nothing here blocks, and nothing allocates or fails after construction.

namespace tokengate::detail {

/// The number of executors, and which of them share a core.
struct core_layout {
    unsigned cores = 1;
    unsigned workers_per_core = 1;

    [[nodiscard]] constexpr unsigned positions() const noexcept { return cores * workers_per_core; }
};

/// The home range of a class is [first_home_core, cores): heavy from 0, medium from 1, light from
/// 2; less on fewer cores.
[[nodiscard]] constexpr unsigned first_home_core(weight w, unsigned cores) noexcept {
    unsigned first = w == weight::heavy ? 0 : w == weight::medium ? 1 : 2;
    return std::min(first, cores - 1);
}

/// How many tokens that have not started a position may hold: about 200 µs of work. 0 ns: not
/// measured yet.
[[nodiscard]] constexpr unsigned window_for(std::uint64_t average_run_ns) noexcept {
    if (average_run_ns == 0) return 32;
    return static_cast<unsigned>(std::clamp<std::uint64_t>(200'000 / average_run_ns, 8, 2048));
}

/// How full each position is. Occupancy = tokens routed there − tokens started there. A bitmap
/// marks the positions that have room, so that a router finds the next one without reading every
/// position's cache line. Its bits are hints, but none is lost: if half of a position's window is
/// free, its bit is set once its owner has called `publish_room`.
///
/// A router clears bits that an owner sets, so the two must not miss each other. The owner makes
/// room, then reads the bit; the router clears the bit, then reads the room again. All four
/// accesses are seq_cst, so they have one order. Either the owner's read comes after the router's
/// clearing, and the owner sets the bit; or the router's second read comes after the owner made
/// room, and the router sets the bit again.
class load_table {
public:
    static constexpr unsigned most_positions = 1024;

    /// Throws std::length_error unless there are 1 … most_positions positions.
    explicit load_table(core_layout layout);

    [[nodiscard]] core_layout layout() const noexcept { return layout_; }

    // ---- the owner of the position ----

    /// `count` routed tokens left the queue: they started, or ended without having run.
    void started(unsigned position, unsigned count) noexcept {
        slot& s = slots_[position];
        // Only the owner stores. release: a router that reads this also sees the window set before.
        s.started.store(s.started.load(std::memory_order_relaxed) + count,
                        std::memory_order_release);
        s.changed = true;
    }

    void set_window(unsigned position, unsigned window) noexcept {
        // Published with `started`.
        slots_[position].window.store(window, std::memory_order_relaxed);
        slots_[position].changed = true;
    }

    /// The owner routes tokens from the gate's FIFOs to itself.
    void take(unsigned position, unsigned count) noexcept {
        slots_[position].routed.fetch_add(count, std::memory_order_relaxed);
    }

    /// The gate takes back tokens that were routed there and have not started. Any thread.
    void give_back(unsigned position, unsigned count) noexcept {
        slots_[position].routed.fetch_sub(count, std::memory_order_relaxed);
    }

    /// Publishes the room of the position if at least half its window is free. Called once a turn,
    /// and before parking. In a turn, it comes after the owner has taken from the gate's FIFOs. So
    /// a position that the FIFOs keep supplied counts as full, and tokens may spill elsewhere.
    void publish_room(unsigned position) noexcept {
        slot& s = slots_[position];
        if (s.changed) {
            s.changed = false;
            // seq_cst, before the load of the bit below: pairs with the second read in retract().
            s.started.exchange(s.started.load(std::memory_order_relaxed),
                               std::memory_order_seq_cst);
        }
        std::atomic<std::uint64_t>& word = room_[s.turn / 64].bits;
        std::uint64_t bit = std::uint64_t{1} << s.turn % 64;
        // Pairs with the fetch_and in retract().
        if (word.load(std::memory_order_seq_cst) & bit) return;
        if (half_free(position) > 0) word.fetch_or(bit, std::memory_order_seq_cst);
    }

    // ---- hunger ----

    // For every position, and for the control loop, whose number is positions(). Hints in both
    // directions: an executor that misses a bit hands over at the end of its turn, or its outbox is
    // fetched. seq_cst, so that a hungry executor scans the other loops after it has set its bit.

    /// The owner has nothing to run. `asleep`: it must be woken for what it receives.
    void starves(unsigned position, bool asleep) noexcept {
        const unsigned turn = turn_of_[position];
        const std::uint64_t bit = std::uint64_t{1} << turn % 64;
        if (asleep) room_[turn / 64].asleep.fetch_or(bit, std::memory_order_seq_cst);
        if (room_[turn / 64].looks.load(std::memory_order_relaxed) & bit)
            room_[turn / 64].looks.fetch_and(~bit, std::memory_order_relaxed);
        if (!(room_[turn / 64].hungry.fetch_or(bit, std::memory_order_seq_cst) & bit))
            count_hungry(position, 1);
    }
    /// The owner sleeps for a short time only, and then scans by itself. Until `starves` is called
    /// anew.
    void looks_again(unsigned position) noexcept {
        const unsigned turn = turn_of_[position];
        room_[turn / 64].looks.fetch_or(std::uint64_t{1} << turn % 64, std::memory_order_relaxed);
    }
    /// Work is on its way to the position, or the owner has found some. Returns true to one caller,
    /// if the position was hungry.
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

    /// How many positions of that home range are hungry: a hint, for frequent readers. For a moment
    /// it may be one less than zero (unsigned).
    [[nodiscard]] const std::atomic<std::uint32_t>& hungry_in(weight w) const noexcept {
        return hungry_in_[static_cast<std::size_t>(w)];
    }

    /// Below zero for the moment in which a loop has started, but not yet published, tokens that it
    /// routed to itself.
    [[nodiscard]] int occupancy(unsigned position) const noexcept {
        const slot& s = slots_[position];
        // Pairs with the exchange in publish_room().
        std::uint32_t done = s.started.load(std::memory_order_seq_cst);
        // relaxed: whichever of the two counts is older, the other side corrects it (see above);
        // counts wrap modulo 2^32.
        return static_cast<int>(s.routed.load(std::memory_order_relaxed) - done);
    }

    [[nodiscard]] unsigned window(unsigned position) const noexcept {
        return slots_[position].window.load(std::memory_order_relaxed);
    }

    /// How many more tokens of its own classes the position accepts; negative if routers overbooked
    /// it.
    [[nodiscard]] int free(unsigned position) const noexcept {
        int occupied = occupancy(position);  // read before the window: the load acquires it
        return static_cast<int>(window(position)) - occupied;
    }

    /// How many tokens the position accepts while at least half its window is free before each: the
    /// room for spilled tokens.
    [[nodiscard]] int half_free(unsigned position) const noexcept {
        int occupied = occupancy(position);
        return static_cast<int>(window(position) / 2) + 1 - occupied;
    }

    /// The position's bit in the bitmap.
    [[nodiscard]] bool has_room(unsigned position) const noexcept {
        unsigned turn = slots_[position].turn;
        return room(turn / 64) >> turn % 64 & 1;
    }

private:
    friend class router;

    // One bit more than positions: the control loop's.
    static constexpr unsigned most_words = most_positions / 64 + 1;

    /// One line, not two: a router that publishes into `routed` reads the others at the same time.
    struct alignas(64) slot {
        std::atomic<std::uint32_t> routed = 0;   // added to by routers and by the owner
        std::atomic<std::uint32_t> started = 0;  // stored by the owner alone
        std::atomic<std::uint32_t> window = window_for(0);
        // Constant: the position's place in the order of staggering, and in the bitmap.
        std::uint32_t turn = 0;
        // The owner's: `started` or `window` were stored since the last publish_room.
        bool changed = false;
    };
    struct alignas(64) room_word {
        std::atomic<std::uint64_t> bits = 0;
        std::atomic<std::uint64_t> hungry = 0;  // beside the room, since routers read both
        std::atomic<std::uint64_t> asleep = 0;  // of the hungry positions
        // Of the sleeping positions: they soon wake by themselves.
        std::atomic<std::uint64_t> looks = 0;
    };

    [[nodiscard]] unsigned words() const noexcept { return (layout_.positions() + 63) / 64; }
    [[nodiscard]] unsigned position_at(unsigned turn) const noexcept { return position_at_[turn]; }
    [[nodiscard]] std::uint64_t room(unsigned word) const noexcept {
        return room_[word].bits.load(std::memory_order_relaxed);  // a hint
    }

    [[nodiscard]] std::uint64_t hungry(unsigned word) const noexcept {
        return room_[word].hungry.load(std::memory_order_relaxed);  // a hint
    }

    /// Relaxed: the thread that changed the bit counts it, in any order.
    void count_hungry(unsigned position, std::uint32_t more) noexcept;

    /// Called by a router that found the position full. Clears its bit, reads the room again, and
    /// sets the bit again if there is room after all. Returns that room.
    int retract(unsigned position) noexcept;

    core_layout layout_;
    std::unique_ptr<slot[]> slots_;           // by position
    std::array<room_word, most_words> room_;  // by turn
    /// By weight. Added to by the thread that changes a bit of `hungry`; loaded by every core for
    /// each child that it keeps.
    alignas(64) std::array<std::atomic<std::uint32_t>, 3> hungry_in_{};
    std::vector<std::uint16_t> position_at_;  // by turn
    std::vector<std::uint16_t> turn_of_;      // by position; the last entry is the control loop's
};

}  // namespace tokengate::detail
