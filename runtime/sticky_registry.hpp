// SPDX-License-Identifier: MIT
#pragma once

#include <atomic>
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
/// A *pin* counts the tokens in flight under its key. The count rises by compare-and-swap, only from above zero;
/// whoever lowers it to zero unlinks that very pin, and a newcomer that finds it at zero helps to unlink it and inserts
/// its own. No step waits for another thread. Two keys with one hash share a pin, and so a core: harmless.
///
/// Pins live in a libcds `MichaelHashSet` with dynamic hazard pointers. Its `unlink` erases one node and never
/// whichever node bears the key by now, which `FeldmanHashMap::erase(key)` can not promise. Feldman's intrusive set
/// could, but it makes readers of a slot wait for a preempted writer that splits it, and what it splits never shrinks:
/// random keys would make it grow for ever. Michael's table is fixed, so keys beyond its size cost time, not
/// correctness. Pins come from a free list of the process: in steady state neither acquire nor release allocates.
///
/// Every thread that calls in holds a `cds_thread`; the destructor attaches itself. Calls are safe from many threads at
/// once, except that the registry outlives all of them. Errors: std::bad_alloc, and what `place` throws; neither leaves
/// a pin.

namespace tokengate::detail {

/// Attaches the thread to libcds for its lifetime; belongs to the thread that made it. Nests, also with attachments
/// that the application made itself, before or after. Sets libcds and its DHP singleton up where nobody has; they stay
/// to the end of the process. (An application that has a `cds::gc::DHP` object of its own keeps it until its runtimes
/// are gone.)
class cds_thread {
public:
    cds_thread();
    ~cds_thread();
    cds_thread(const cds_thread&) = delete;
    cds_thread& operator=(const cds_thread&) = delete;
};

/// Held by the tokens in flight under its key; valid from `acquire` to the matching `release`.
class pin {
public:
    [[nodiscard]] unsigned position() const noexcept { return position_.load(std::memory_order_relaxed); }

protected:
    pin() = default;
    ~pin() = default;

    // Atomic, all three, because a newcomer may still look at a pin whose key has just been given up.
    std::atomic<std::uint64_t> key_{0};
    std::atomic<std::uint64_t> tokens_{0};
    std::atomic<unsigned> position_{0};
};

class sticky_registry {
public:
    struct acquired {
        pin* held;
        bool redirected;  ///< a pin that was there decided the position
    };

    /// `expected_pins` sizes the table, 16 bytes each, once.
    explicit sticky_registry(std::size_t expected_pins = 16384);
    ~sticky_registry();
    sticky_registry(const sticky_registry&) = delete;
    sticky_registry& operator=(const sticky_registry&) = delete;

    /// The pin of `key`, counting one token more. Where none is in force, a new one at `place()`, which is called at
    /// most once.
    template <class Place>
    [[nodiscard]] acquired acquire(std::uint64_t key, Place&& place) {
        using callable = std::remove_reference_t<Place>;
        return acquire(
            key, [](const void* erased) -> unsigned { return (*static_cast<callable*>(const_cast<void*>(erased)))(); },
            std::addressof(place));
    }

    void release(pin* held) noexcept;

    /// Pins in force; exact while nobody acquires or releases.
    [[nodiscard]] std::size_t size() const noexcept;

private:
    struct node;
    struct table;

    acquired acquire(std::uint64_t key, unsigned (*place)(const void*), const void* erased);

    std::unique_ptr<table> table_;
};

}  // namespace tokengate::detail
