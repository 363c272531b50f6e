// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>

/// The position (executor) on which the tokens of a sticky key run while any of them is in flight.
///
///     auto [pin, redirected] = registry.acquire(key, [&] { return router.place(weight::light); });
///     ... the token runs at pin->position() ...
///     registry.release(pin);      // the last release unpins the key
///
/// A *pin* counts the tokens in flight under its key. `key` is the hash of what the user's anchor
/// selects: two user keys with one hash share a pin, and so a core. That is harmless.
///
/// Pins are kept in 256 tables, chosen by eight bits of a hash of `key`. Each table is libcds'
/// intrusive `StripedSet`, with one lock and the rest of its state in one cache line. `acquire` and
/// `release` are one short section each under that lock: 2 locked instructions a pair. The
/// lock-free sets of libcds take 15 to 31 with their hazard pointers, and 2 to 13 times the time
/// (docs/benchmarks.md).
///
/// Lifetime. A thread searches a table, and changes a pin's count, only under the table's lock
/// (exchange with acquire; its partner is the store with release that unlocks). So a count is zero
/// only within the section that unlinks the pin, and no other thread finds such a pin. A later
/// `acquire` of the key runs either before that section and counts its token, or after it and makes
/// a new pin. When the pin is unlinked, no other thread has a reference, and the pin's memory is
/// free at once: nothing is left to reclaim later. Nor can a thread mistake a reused pin for the
/// former one (ABA), since a thread reads a pin that it does not hold only under the lock. The
/// holder of a pin reads its key and position without the lock. Both were written by the end of the
/// section that made the pin, before the holder's own section ends, and change only after its
/// release.
///
/// Memory. A table doubles if it has more pins than buckets. It halves if it has eight times fewer,
/// down to its initial size. Growing moves the pins of one table of 256: a few thousand pins out of
/// 10^6. Without memory for that, the table stays as it is and its chains get longer. Pins are
/// slots of the threads' frame pools. In steady state neither acquire nor release allocates; after
/// a burst, tables and slots are freed again.
///
/// If a lock's holder has been preempted, other threads wait for the lock (brief_lock.hpp describes
/// how): only threads that use one of the same 256th of the keys.
///
/// Calls are safe from many threads at once; the registry must outlive all of them. Errors:
/// std::bad_alloc, and what `place` throws; neither leaves a pin.

namespace tokengate::detail {

/// Held by the tokens in flight under its key; valid from `acquire` to the matching `release`.
class pin {
public:
    [[nodiscard]] unsigned position() const noexcept { return position_; }

protected:
    pin() = default;
    ~pin() = default;

    std::uint64_t key_ = 0;
    std::uint64_t tokens_ = 0;  // under the lock of its table
    unsigned position_ = 0;
};

class sticky_registry {
public:
    struct acquired {
        pin* held;
        bool redirected;  ///< an existing pin decided the position
    };

    /// Has room for `expected_pins` before a table grows, 8 bytes each; at least 4,096.
    explicit sticky_registry(std::size_t expected_pins = 4096);
    ~sticky_registry();
    sticky_registry(const sticky_registry&) = delete;
    sticky_registry& operator=(const sticky_registry&) = delete;

    /// The pin of `key`, with one token more. If there is none, makes one at `place()`. `place` is
    /// called at most once, and only if its result is used. It runs under the lock: it must be
    /// short, and must not call the registry.
    template <class Place>
    [[nodiscard]] acquired acquire(std::uint64_t key, Place&& place) {
        using callable = std::remove_reference_t<Place>;
        return acquire(
            key,
            [](const void* erased) -> unsigned {
                return (*static_cast<callable*>(const_cast<void*>(erased)))();
            },
            std::addressof(place));
    }

    void release(pin* held) noexcept;

    /// Pins in force; exact while no thread acquires or releases.
    [[nodiscard]] std::size_t size() const noexcept;

    /// Bytes of the tables, without the pins; exact while no thread acquires or releases.
    [[nodiscard]] std::size_t table_bytes() const noexcept;

private:
    struct node;
    struct held_pin;
    struct bucket;
    struct table;

    acquired acquire(std::uint64_t key, unsigned (*place)(const void*), const void* erased);
    [[nodiscard]] table& table_of(std::uint64_t key) const noexcept;

    std::unique_ptr<table[]> tables_;
};

}  // namespace tokengate::detail
