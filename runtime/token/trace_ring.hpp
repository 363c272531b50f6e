// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/relaxed.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

/// The latest events of the tokens on one thread. If the ring is full, a new event overwrites the
/// oldest.
///
///     trace_ring ring(65536);         // 2 MiB, touched as it fills
///     // its owner:
///     ring.note(trace_kind::segment_begin, sequence, operation, created_ns, now);
///     // any thread, meanwhile:
///     const trace_reading read = ring.read(event_loop::steady_ns());
///
/// `note` belongs to one thread at a time and waits for no other. It costs four stores, and a fifth
/// for the head. Any thread may call `read`, which never delays the owner. A ring of n events
/// returns n − 1 of them, because the oldest may be being overwritten. Times are those of the
/// steady clock, in ns. The constructor and `read` throw std::bad_alloc.

namespace tokengate::detail {

struct operation_record;

/// The kind of an event of the token that it names, and the meaning of its argument.
enum class trace_kind : std::uint8_t {
    spawned,         ///< on the spawner's thread; the spawner's sequence, 0 if none
    admitted,        ///< routed; the position to which it was sent
    segment_begin,   ///< the loop starts or resumes its body; created_ns of the token
    in_place_begin,  ///< its body starts inside its awaiter's segment; created_ns
    /// A token that it awaited has ended, and it continues in the same segment; created_ns.
    continued,
    ended,  ///< the token_state in which it ended
    /// Of no token: control is back at the loop, and every open segment of this thread is over; 0.
    segment_end,
    paused,  ///< held at the gate by a pause; created_ns
    refused  ///< not admitted; created_ns
};

struct trace_event {
    std::uint64_t ns;
    std::uint64_t sequence;
    const operation_record* operation;
    std::uint64_t argument;
    trace_kind kind;

    friend bool operator==(const trace_event&, const trace_event&) = default;
};

struct trace_reading {
    std::vector<trace_event> events;  ///< consecutive, oldest first
    std::uint64_t lost = 0;           ///< how many events came before them
};

class trace_ring {
public:
    static constexpr std::size_t most_events = std::size_t{1} << 24;

    /// Rounded up to a power of two, at least 16; at most `most_events`.
    explicit trace_ring(std::size_t events)
        : mask_(std::bit_ceil(std::max<std::size_t>(events, 16)) - 1),
          slots_(std::make_unique_for_overwrite<slot[]>(mask_ + 1)) {}

    [[nodiscard]] std::size_t capacity() const noexcept { return mask_ + 1; }

    void note(trace_kind kind, std::uint64_t sequence, const operation_record* operation,
              std::uint64_t argument, std::uint64_t ns) noexcept {
        const std::uint64_t at = head_.load();
        slot& into = slots_[at & mask_];
        // Each store pairs with its load in `read`: a thread that finds one of these words knows
        // that the head had reached `at`.
        into.time_and_kind.store_release(ns << kind_bits | static_cast<std::uint64_t>(kind));
        into.sequence.store_release(sequence);
        into.operation.store_release(operation);
        into.argument.store_release(argument);
        // Pairs with the first load of the head in `read`: that thread finds the words of the
        // event.
        head_.store_release(at + 1);
    }

    /// `now_ns`: the steady clock, to within a year.
    [[nodiscard]] trace_reading read(std::uint64_t now_ns) const {
        const std::uint64_t end = head_.load_acquire();  // pairs with `note`
        const std::uint64_t oldest = end > capacity() ? end - capacity() : 0;
        trace_reading copied{{}, oldest};
        copied.events.reserve(end - oldest);
        for (std::uint64_t at = oldest; at != end; ++at) {
            const slot& from = slots_[at & mask_];
            // Pairs with `note`, and so do the loads below.
            const std::uint64_t time_and_kind = from.time_and_kind.load_acquire();
            const std::uint64_t sequence = from.sequence.load_acquire();
            const operation_record* operation = from.operation.load_acquire();
            const std::uint64_t argument = from.argument.load_acquire();
            copied.events.push_back(
                {restore(time_and_kind >> kind_bits, now_ns), sequence, operation, argument,
                 static_cast<trace_kind>(time_and_kind & ((1U << kind_bits) - 1))});
        }
        // Meanwhile the owner may have overwritten old events. If one of the words above was of a
        // later event, number n, the load that found it has also acquired the head's value n. Then
        // the load below finds at least n. Event n overwrites event n − capacity. So every event is
        // whole that is younger than the one that event number `head` overwrites.
        const std::uint64_t head = head_.load();
        const std::uint64_t whole_from = head + 1 > capacity() ? head + 1 - capacity() : 0;
        if (whole_from > oldest) {
            copied.lost = std::min(whole_from, end);
            copied.events.erase(copied.events.begin(),
                                copied.events.begin() +
                                    static_cast<std::ptrdiff_t>(copied.lost - oldest));
        }
        return copied;
    }

private:
    static constexpr unsigned kind_bits = 8;

    struct slot {
        /// Without the upper 8 bits of the time; the lower 56 repeat every 2.3 years.
        relaxed<std::uint64_t> time_and_kind;
        relaxed<std::uint64_t> sequence;
        relaxed<const operation_record*> operation;
        relaxed<std::uint64_t> argument;
    };
    static_assert(sizeof(slot) == 32);

    /// The time nearest to now_ns that has these lower 56 bits.
    static std::uint64_t restore(std::uint64_t low, std::uint64_t now_ns) noexcept {
        const auto apart = static_cast<std::int64_t>((low - now_ns) << kind_bits) >> kind_bits;
        return now_ns + static_cast<std::uint64_t>(apart);
    }

    const std::size_t mask_;
    // Uninitialised beyond the head, so those pages are untouched.
    const std::unique_ptr<slot[]> slots_;
    relaxed<std::uint64_t> head_{};  // events noted so far
};

}  // namespace tokengate::detail
