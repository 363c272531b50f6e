// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>

/// Which position (executor) the tokens of a sticky key run on while any of them is in flight.
///
///     auto [pin, redirected] = registry.acquire(key, [&] { return router.place(weight::light); });
///     ... the token runs at pin->position() ...
///     registry.release(pin);      // the last one out unpins the key
///
/// A *pin* counts the tokens in flight under its key. Two keys with one hash share a pin, and so a core: harmless.
///
/// Pins stand in 256 tables, chosen by eight bits of the key's hash: libcds' intrusive `StripedSet`, each with one lock
/// and the rest of its state in one cache line. `acquire` and `release` are one short section under it: 2 locked
/// instructions a pair. The lock-free sets of libcds take 15 to 31 with their hazard pointers, and 2 to 13 times the
/// time (docs/benchmarks.md).
///
/// Lifetime. A table is searched, and a pin's count changed, only under the table's lock (exchange with acquire; its
/// partner is the store with release that unlocks). So a count is zero only within the section that unlinks the pin:
/// nobody finds such a pin, a newcomer comes before that section and counts itself, or after it and makes a new pin. No
/// other thread has a reference then, and the pin's memory is free at once: there is nothing to reclaim later, and a
/// pin in its next use can not be mistaken for the former one (ABA), since nobody looks at one that he does not hold
/// without the lock. Who holds a pin reads its key and position without it: they were written in the section that made
/// it, before his own, and change only after his release.
///
/// Memory. A table doubles when it has more pins than buckets, and halves when it has eight times fewer, down to what it
/// began with; growing moves the pins of one table of 256, a few thousand where there are 10^6. Without memory for that,
/// it stays as it is and its chains get longer. Pins are slots of the threads' frame pools. In steady state neither
/// acquire nor release allocates; after a burst tables and slots go back.
///
/// A lock whose holder was preempted is waited for (brief_lock.hpp says how): only by those who want one of the
/// same 256th of the keys.
///
/// Calls are safe from many threads at once, except that the registry outlives all of them. Errors: std::bad_alloc, and
/// what `place` throws; neither leaves a pin.

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
        bool redirected;  ///< a pin that was there decided the position
    };

    /// Has room for `expected_pins` before a table grows, 8 bytes each; at least 4,096.
    explicit sticky_registry(std::size_t expected_pins = 4096);
    ~sticky_registry();
    sticky_registry(const sticky_registry&) = delete;
    sticky_registry& operator=(const sticky_registry&) = delete;

    /// The pin of `key`, counting one token more. Where there is none, a new one at `place()`, which is called at most
    /// once and never in vain, under the lock: it must be short, and not call the registry.
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

    /// Pins in force; exact while nobody acquires or releases.
    [[nodiscard]] std::size_t size() const noexcept;

    /// Bytes of the tables, without the pins; exact while nobody acquires or releases.
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
