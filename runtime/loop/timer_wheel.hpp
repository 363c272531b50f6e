// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/timer.hpp>

#include <algorithm>
#include <bit>
#include <cstdint>

/// The timers of one loop: a hierarchical wheel. Its slots are lists linked through the timers
/// themselves.
///
///     timer t; t.deadline_ns = now + 5'000'000; t.run = fire;
///     wheel.arm(t);                        // t stays in place until it fired or was withdrawn
///     while (hook* due = wheel.pop_due(now)) due->run(due);
///
/// For one thread. The object that embeds a timer owns it, and withdraws it before it is destroyed.
/// Arming and withdrawing take O(1), touch at most two other timers and never allocate. Nothing
/// here fails.
///
/// Time is counted in ticks of 2^14 ns (16.4 µs), and a deadline is rounded up to a tick. A timer
/// fires at the first `pop_due` at or after that tick, never before its deadline. Timers fire in
/// the order of their ticks, and those of one tick in the order in which they were armed. If the
/// tick of a timer has passed when it is armed, the timer belongs to the wheel's current tick. So
/// if a timer's `run` arms such a timer, it fires in the same round. Deadlines after the last whole
/// tick of 64 bits, ~0 among them, never fire.
///
/// The level of a timer is that of the highest base-64 digit in which its tick differs from the
/// wheel's. Its slot there is its own digit. The position is thus a function of the two ticks
/// alone. That gives the order within a tick, and the timer needs no slot number. It stays true
/// because the wheel steps from one occupied slot to the next. When the wheel comes to the
/// beginning of a slot above the lowest level, it spreads that slot over the levels below. A timer
/// is moved at most once a level.

namespace tokengate::detail {

class timer_wheel {
public:
    static constexpr unsigned tick_bits = 14;

    timer_wheel() = default;
    timer_wheel(const timer_wheel&) = delete;
    timer_wheel& operator=(const timer_wheel&) = delete;

    [[nodiscard]] bool empty() const noexcept { return occupied_levels_ == 0; }

    /// The time at which `pop_due` next has something to do, unless the wheel is empty: the tick of
    /// the earliest timer if that is in the lowest level, else the beginning of its slot. If a
    /// timer is due already, the time is no later than `now_ns` of the last `pop_due`. It is always
    /// below 2^63, so that its distance from any clock fits a signed count.
    [[nodiscard]] std::uint64_t earliest_ns() const noexcept {
        return std::min(begin(first_occupied()), latest_reported) << tick_bits;
    }

    /// Call it only while the timer is not armed.
    void arm(timer& unarmed) noexcept { append(unarmed); }

    void withdraw(timer& any) noexcept {
        if (any.armed()) unlink(any);
    }

    /// Not null: a timer whose deadline is at or before `now_ns`; it is no longer armed. Null: no
    /// such timer is left, and the wheel is at `now_ns`.
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
    // + 1: rounding up carries.
    static constexpr unsigned levels = (64 - tick_bits + 1 + digit_bits - 1) / digit_bits;
    static constexpr std::uint64_t never = ~std::uint64_t{0};
    static constexpr std::uint64_t latest_reported = never >> 1 >> tick_bits;

    struct slot {
        hook* first;
        hook** end;  // the null that ends the list; valid only while the slot is occupied
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

    /// The timers of a level come before all timers of the levels above. No timer comes before the
    /// wheel's tick.
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

    /// The wheel is at the beginning of the slot: each of its timers now differs from the wheel in
    /// a lower digit only, or in none.
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

    /// The next items of a list are not known in advance. But sleepers made one after the other lie
    /// at regular distances, so this guesses the address of the sixteenth one from here. A million
    /// of those fire in a third of the time. A wrong guess is harmless, because a prefetch does not
    /// fault.
    static void prefetch_beyond(const hook* each, const hook* next) noexcept {
        const std::uintptr_t from = reinterpret_cast<std::uintptr_t>(each);
        const std::uintptr_t stride = reinterpret_cast<std::uintptr_t>(next) - from;
        __builtin_prefetch(std::bit_cast<const void*>(from + 16 * stride));
    }

    std::uint64_t tick_ = 0;  // where the wheel is: no armed timer is before it
    // Before this tick `pop_due` has nothing to do. After a timer is withdrawn it may be too early.
    std::uint64_t look_at_ = never;
    std::uint32_t occupied_levels_ = 0;
    std::uint64_t occupied_[levels] = {};
    slot slots_[levels][64] = {};
};

}  // namespace tokengate::detail
