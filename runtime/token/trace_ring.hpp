// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/relaxed.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

/// What happened to tokens on one thread: the last so many events, oldest overwritten.
///
///     trace_ring ring(65536);                                                      // 2 MiB, touched as it fills
///     ring.note(trace_kind::segment_begin, sequence, operation, created_ns, now);  // its owner
///     const trace_reading read = ring.read(event_loop::steady_ns());               // anybody, meanwhile
///
/// `note` belongs to one thread at a time, waits for nobody, and costs four stores and a fifth for the head; `read` is
/// for any thread and never holds up the owner. A ring of n events gives n − 1 of them back: the oldest may be being
/// overwritten. Times are those of the steady clock, in ns. Throws std::bad_alloc from the constructor and from `read`.

namespace tokengate::detail {

struct operation_record;

/// What an event says of the token it names, and what its argument is.
enum class trace_kind : std::uint8_t {
    spawned,         ///< on the spawner's thread; the spawner's sequence, 0 if none
    admitted,        ///< routed; the position it was sent to
    segment_begin,   ///< the loop starts or resumes its body; created_ns of the token
    in_place_begin,  ///< its body starts inside its awaiter's segment; created_ns
    continued,  ///< a token it awaited has ended, and it goes on in the same segment; created_ns
    ended,      ///< the token_state it ended in
    segment_end,  ///< of no token: control is back at the loop, whatever was open on this thread is over; 0
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
    std::uint64_t lost = 0;           ///< how many came before them
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
        // Each pairs with its load in `read`: who finds one of these words knows that the head had reached `at`.
        into.time_and_kind.store_release(ns << kind_bits | static_cast<std::uint64_t>(kind));
        into.sequence.store_release(sequence);
        into.operation.store_release(operation);
        into.argument.store_release(argument);
        head_.store_release(
            at + 1);  // pairs with the first look at the head in `read`: the words are there
    }

    /// `now_ns`: the steady clock, give or take a year.
    [[nodiscard]] trace_reading read(std::uint64_t now_ns) const {
        const std::uint64_t end = head_.load_acquire();  // pairs with `note`
        const std::uint64_t oldest = end > capacity() ? end - capacity() : 0;
        trace_reading copied{{}, oldest};
        copied.events.reserve(end - oldest);
        for (std::uint64_t at = oldest; at != end; ++at) {
            const slot& from = slots_[at & mask_];
            const std::uint64_t time_and_kind =
                from.time_and_kind.load_acquire();  // pairs with `note`, like the next
            const std::uint64_t sequence = from.sequence.load_acquire();
            const operation_record* operation = from.operation.load_acquire();
            const std::uint64_t argument = from.argument.load_acquire();
            copied.events.push_back(
                {restore(time_and_kind >> kind_bits, now_ns), sequence, operation, argument,
                 static_cast<trace_kind>(time_and_kind & ((1U << kind_bits) - 1))});
        }
        // Meanwhile the owner may have gone round. Had one of the words above been of a later event, number n, the load
        // that found it would have acquired n too, so that this look finds n at least; and n overwrites number n −
        // capacity. So all that is younger than the one that the head's event overwrites is whole.
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
        relaxed<std::uint64_t>
            time_and_kind;  ///< without the time's upper 8 bits, which last 2.3 years each
        relaxed<std::uint64_t> sequence;
        relaxed<const operation_record*> operation;
        relaxed<std::uint64_t> argument;
    };
    static_assert(sizeof(slot) == 32);

    /// The time nearest to now that has these lower 56 bits.
    static std::uint64_t restore(std::uint64_t low, std::uint64_t now_ns) noexcept {
        const auto apart = static_cast<std::int64_t>((low - now_ns) << kind_bits) >> kind_bits;
        return now_ns + static_cast<std::uint64_t>(apart);
    }

    const std::size_t mask_;
    const std::unique_ptr<slot[]> slots_;  // uninitialised, hence untouched, beyond the head
    relaxed<std::uint64_t> head_{};        // events noted so far
};

}  // namespace tokengate::detail
