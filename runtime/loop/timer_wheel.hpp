// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/timer.hpp>

#include <algorithm>
#include <bit>
#include <cstdint>

/// The timers of one loop: a hierarchical wheel whose slots are lists through the timers themselves.
///
///     timer t; t.deadline_ns = now + 5'000'000; t.run = fire;
///     wheel.arm(t);                        // t stays where it is until it fired or was withdrawn
///     while (hook* due = wheel.pop_due(now)) due->run(due);
///
/// One thread; whoever embeds a timer owns it, and withdraws it before it goes. Arming and withdrawing are O(1), touch
/// at most two other timers and never allocate. Nothing here fails.
///
/// Time is counted in ticks of 2^14 ns (16.4 µs), and a deadline is rounded up to a tick: a timer fires at the first
/// `pop_due` at or after that tick, never before its deadline. Timers fire in the order of their ticks, and those of
/// one tick in the order they were armed; one whose tick had passed when it was armed belongs to the tick the wheel is
/// at, so who arms such a one while firing meets it again in the same round. Deadlines after the last whole tick of 64
/// bits, ~0 among them, never fire.
///
/// A timer is in the level of the highest base-64 digit in which its tick differs from the wheel's, in the slot of its
/// own digit there. That is a function of the two ticks alone (hence the order within a tick, and no slot number in
/// the timer); it stays true because the wheel steps from one occupied slot to the next, and when it comes to the begin
/// of a slot above the lowest level, spreads that slot over the levels below. A timer is moved at most once a level.

namespace tokengate::detail {

class timer_wheel {
public:
    static constexpr unsigned tick_bits = 14;

    timer_wheel() = default;
    timer_wheel(const timer_wheel&) = delete;
    timer_wheel& operator=(const timer_wheel&) = delete;

    [[nodiscard]] bool empty() const noexcept { return occupied_levels_ == 0; }

    /// When `pop_due` has something to do next, unless empty: the tick of the earliest timer if it is in the lowest
    /// level, else the begin of its slot. No later than `now_ns` of the last `pop_due` if a timer is due already, and
    /// always below 2^63, so that its distance from any clock fits a signed count.
    [[nodiscard]] std::uint64_t earliest_ns() const noexcept {
        return std::min(begin(first_occupied()), latest_reported) << tick_bits;
    }

    /// Not while it is armed.
    void arm(timer& unarmed) noexcept { append(unarmed); }

    void withdraw(timer& any) noexcept {
        if (any.armed()) unlink(any);
    }

    /// Not null: a timer whose deadline is at or before `now_ns`, no longer armed. Null: none is left, and the wheel is
    /// at `now_ns`.
    timer* pop_due(std::uint64_t now_ns) noexcept {
        const std::uint64_t now = now_ns >> tick_bits;
        if (now >= look_at_) {
            if (timer* due = step(now)) return due;
        }
        tick_ = std::max(tick_, now);
        return nullptr;
    }

private:
    static constexpr unsigned digit_bits = 6;
    static constexpr unsigned levels =
        (64 - tick_bits + 1 + digit_bits - 1) / digit_bits;  // + 1: rounding up carries
    static constexpr std::uint64_t never = ~std::uint64_t{0};
    static constexpr std::uint64_t latest_reported = never >> 1 >> tick_bits;

    struct slot {
        hook* first;
        hook** end;  // the null that ends the list; meaningful only while the slot is occupied
    };

    struct position {
        unsigned level;
        unsigned digit;
    };

    slot& at(position where) noexcept { return slots_[where.level][where.digit]; }

    [[nodiscard]] position position_of(const timer& any) const noexcept {
        const std::uint64_t whole = any.deadline_ns >> tick_bits;
        const std::uint64_t tick = std::max(tick_, whole + (whole << tick_bits != any.deadline_ns));
        const unsigned level =
            static_cast<unsigned>(std::bit_width((tick ^ tick_) | 1) - 1) / digit_bits;
        return {level, static_cast<unsigned>(tick >> level * digit_bits & 63)};
    }

    /// What is in a level comes before all that is in the levels above, and nothing anywhere before the wheel's tick.
    [[nodiscard]] position first_occupied() const noexcept {
        const unsigned level = static_cast<unsigned>(std::countr_zero(occupied_levels_));
        return {level, static_cast<unsigned>(std::countr_zero(occupied_[level]))};
    }

    [[nodiscard]] std::uint64_t begin(position where) const noexcept {
        const unsigned shift = where.level * digit_bits;
        return (tick_ >> shift >> digit_bits << digit_bits | where.digit) << shift;
    }

    timer* step(std::uint64_t now) noexcept {
        while (!empty()) {
            const position first = first_occupied();
            look_at_ = begin(first);
            if (look_at_ > now) return nullptr;
            tick_ = look_at_;
            if (first.level == 0) {
                timer* due = static_cast<timer*>(at(first).first);
                unlink(*due);
                return due;
            }
            spread(first);
        }
        look_at_ = never;
        return nullptr;
    }

    void append(timer& added) noexcept {
        const position where = position_of(added);
        slot& to = at(where);
        const std::uint64_t bit = std::uint64_t{1} << where.digit;
        if (!(occupied_[where.level] & bit)) {
            occupied_[where.level] |= bit;
            occupied_levels_ |= 1U << where.level;
            look_at_ = std::min(look_at_, begin(where));
            to.end = &to.first;
        }
        *to.end = &added;
        added.link = to.end;
        added.next = nullptr;
        to.end = &added.next;
    }

    void unlink(timer& removed) noexcept {
        *removed.link = removed.next;
        if (removed.next) {
            static_cast<timer*>(removed.next)->link = removed.link;
        } else {
            const position where = position_of(removed);
            slot& from = at(where);
            from.end = removed.link;
            if (!from.first) vacate(where);
        }
        removed.link = nullptr;
    }

    void vacate(position where) noexcept {
        occupied_[where.level] &= ~(std::uint64_t{1} << where.digit);
        if (!occupied_[where.level]) occupied_levels_ &= ~(1U << where.level);
    }

    /// The wheel is at the slot's begin: each of its timers now differs from it in a lower digit only, or in none.
    void spread(position where) noexcept {
        hook* each = at(where).first;
        vacate(where);
        while (each) {
            hook* next = each->next;
            prefetch_beyond(each, next);
            append(static_cast<timer&>(*each));
            each = next;
        }
    }

    /// A list cannot be read ahead, but sleepers made one after the other lie at regular distances: guesses the one
    /// sixteen further on. A million of those fire in a third of the time; a wrong guess is harmless, for prefetches do
    /// not fault.
    static void prefetch_beyond(const hook* each, const hook* next) noexcept {
        const std::uintptr_t from = reinterpret_cast<std::uintptr_t>(each);
        const std::uintptr_t stride = reinterpret_cast<std::uintptr_t>(next) - from;
        __builtin_prefetch(std::bit_cast<const void*>(from + 16 * stride));
    }

    std::uint64_t tick_ = 0;  // where the wheel is: nothing armed is before it
    std::uint64_t look_at_ =
        never;  // before this tick `pop_due` has nothing to do; withdrawing leaves it too early
    std::uint32_t occupied_levels_ = 0;
    std::uint64_t occupied_[levels] = {};
    slot slots_[levels][64] = {};
};

}  // namespace tokengate::detail
