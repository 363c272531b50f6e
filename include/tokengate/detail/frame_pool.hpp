// SPDX-License-Identifier: MIT
#pragma once

#include <atomic>
#include <bit>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>

#if defined(__SANITIZE_ADDRESS__)
#define TOKENGATE_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TOKENGATE_ASAN 1
#endif
#endif
#ifdef TOKENGATE_ASAN
#include <sanitizer/asan_interface.h>
#endif

/// The frame pool: memory for coroutine frames and a few other small objects of the runtime. Each
/// thread has one pool. A pool has size classes over slabs of 256 KiB. Slots are aligned to 32
/// bytes and have no header.
///
///     frame_pool* pool = frame_pool::acquire();            // once per thread
///     void* frame = pool->allocate(bytes, slab_kind::frame);  // throws std::bad_alloc
///     pool->deallocate(frame, bytes, slab_kind::frame);    // on any thread, with its own pool
///     frame_pool::release(pool);                           // when the thread ends
///     frame_pool::for_each_slot([](void* slot, std::size_t size) { ... });    // any thread
///
/// In each class one slab is current. The pool itself holds the current slab's list of free slots
/// and its count. Allocating and freeing there therefore touch only the pool and the slot. The
/// other slabs keep their own lists; a slot freed into one of them is reused once that slab becomes
/// current. A slab stops being current only when all its slots are live.
///
/// A pool and its slabs belong to the thread that acquired it. Other threads access only
/// `returned_`. A thread returns slots of another pool in batches, with one compare-and-swap each.
/// Pools are never destroyed. When its thread ends, a pool keeps the slabs that still hold live
/// slots, and accepts returns. The next thread that requests a pool gets it.
///
/// The first 8 bytes of a free slot are the pool's link, written and read atomically. The pool
/// writes nowhere else in a slot, and a new slab is zero. A visitor may therefore read a word at a
/// fixed place behind the link, atomically, at any time. It finds zero or a value that a user of
/// the slot stored there. If the users store the word atomically, and "dead" before they
/// deallocate, the value is the truth. A visited slot may be live, free or half made; it stays
/// mapped.

namespace tokengate::detail {

class frame_pool;

enum class slab_kind : std::uint8_t { frame, object };  // only slots of frame slabs are enumerated

/// The head of a slab; its slots follow. Masking the address of a slot yields its slab.
struct alignas(64) slab {
    static constexpr std::size_t size = 256 * 1024;

    enum class place : std::uint8_t { current, full, partial, empty, large };

    // Written by the owner's thread only. Other threads read the atomics, relaxed, for enumeration
    // and statistics. While the slab is current, its pool counts the live slots and holds the freed
    // ones, and the first three fields have no meaning.
    void* free = nullptr;  // freed slots, last in first out
    // How many frees remain until the owner has to move this slab to another place.
    std::atomic<std::uint32_t> left{0};
    // Live slots = left + taken. A slot freed on another thread counts as live until it is
    // returned.
    std::atomic<std::uint32_t> taken{0};
    std::atomic<std::uint32_t> carved{0};  // slots handed out at least once
    place where = place::current;
    slab* previous = nullptr;  // in the list of its place
    slab* next = nullptr;

    // Written once, so that remote threads that read the owner do not contend for the line. The
    // links belong to the registry.
    alignas(64) frame_pool* owner = nullptr;
    std::size_t slot_size = 0;
    std::size_t mapped = 0;
    std::uint32_t capacity = 0;
    slab_kind kind = slab_kind::frame;
    std::uint8_t index = 0;  // size class
    slab* newer = nullptr;
    slab* older = nullptr;
    slab* same_bucket = nullptr;

    static slab* of(const void* slot) noexcept {
        return reinterpret_cast<slab*>(reinterpret_cast<std::uintptr_t>(slot) & ~(size - 1));
    }
    /// Whether `of(slot) == item`, in one instruction less.
    static bool holds(const slab* item, const void* slot) noexcept {
        return (reinterpret_cast<std::uintptr_t>(slot) ^ reinterpret_cast<std::uintptr_t>(item)) <
               size;
    }
    std::byte* slot(std::size_t number) noexcept {
        return reinterpret_cast<std::byte*>(this) + sizeof(slab) + number * slot_size;
    }
    std::uint32_t live() const noexcept {
        return left.load(std::memory_order_relaxed) + taken.load(std::memory_order_relaxed);
    }
};

struct frame_pool_statistics {
    std::size_t pools;  // made since the process began
    std::size_t slabs;  // of both kinds, large ones included
    std::size_t mapped_bytes;
    std::size_t live_slots;  // including slots freed elsewhere and not yet returned
};

class frame_pool {
public:
    /// An orphaned pool, or a new one. Throws std::bad_alloc.
    static frame_pool* acquire();
    /// Called by the thread that acquired the pool, to give it up. Sends the slots collected for
    /// other pools, and unmaps the pool's empty slabs.
    static void release(frame_pool* pool) noexcept;

    frame_pool(const frame_pool&) = delete;
    frame_pool& operator=(const frame_pool&) = delete;

    void* allocate(std::size_t bytes, slab_kind kind) {
        void* slot = try_allocate(bytes, kind);
        if (!slot) [[unlikely]]
            slot = allocate_slowly(bytes, kind);
        return slot;
    }

    /// `bytes` and `kind` are those passed to `allocate`.
    void deallocate(void* slot, std::size_t bytes, slab_kind kind) noexcept {
        if (!try_deallocate(slot, bytes, kind)) [[unlikely]]
            deallocate_slowly(slot);
    }

    /// The fast paths, for callers that inline them with a constant size. `try_allocate` returns
    /// null if the current slab of the class has no freed slot. `try_deallocate` returns false if
    /// the slot is not in the current slab. Both may be called on `none`, where they always fail.
    [[gnu::always_inline]] void* try_allocate(std::size_t bytes, slab_kind kind) noexcept {
        if (bytes > largest_class) [[unlikely]]
            return nullptr;
        current& here = current_[index_of(bytes, kind)];
        void* slot = here.free;
        if (!slot) [[unlikely]]
            return nullptr;
        here.pop(slot);
        unpoison(slot, bytes);
        return slot;
    }
    [[gnu::always_inline]] bool try_deallocate(void* slot, std::size_t bytes,
                                               slab_kind kind) noexcept {
        if (bytes > largest_class) [[unlikely]]
            return false;
        assert(bytes <= slab::of(slot)->slot_size && kind == slab::of(slot)->kind);
        current& here = current_[index_of(bytes, kind)];
        if (!slab::holds(here.from.load(std::memory_order_relaxed), slot)) [[unlikely]]
            return false;
        poison(slot, slab::of(slot));
        here.push(slot);
        return true;
    }

    /// A pool without slabs, never written, for threads that have no pool yet.
    static frame_pool none;

    /// Returns the slots of another pool that were freed here. A thread calls it before it sleeps.
    void flush_returns() noexcept;

    /// Takes the slots that other threads returned, and unmaps empty slabs beyond the limit.
    /// Allocation takes the returned slots itself when the current slab has no freed slot.
    void collect() noexcept;

    /// How many bytes of entirely free slabs each pool keeps for reuse. Process-wide, 256 MiB by
    /// default.
    static void keep(std::size_t bytes) noexcept { keep_.store(bytes, std::memory_order_relaxed); }

    /// Calls visit(void* slot, std::size_t size) for every slot of the frame slabs that was ever
    /// handed out. It does not see slabs made meanwhile, and no slab is unmapped meanwhile. The
    /// visitor may allocate, deallocate and throw.
    template <class Visit>
    static void for_each_slot(Visit&& visit) {
        using visitor = std::remove_reference_t<Visit>;
        enumerate([](void* context, void* slot,
                     std::size_t size) { (*static_cast<visitor*>(context))(slot, size); },
                  const_cast<void*>(static_cast<const void*>(std::addressof(visit))));
    }

    /// Calls `visit` if `inside` lies in a mapped frame slab, and keeps the slab mapped during the
    /// call. Returns false if it does not. The slot there may be free, or hold another frame than
    /// the caller expects. Any thread; `visit` must not allocate.
    template <class Visit>
    static bool visit_if_mapped(const void* inside, Visit&& visit) {
        using visitor = std::remove_reference_t<Visit>;
        return visit_mapped(
            inside, [](void* context) { (*static_cast<visitor*>(context))(); },
            const_cast<void*>(static_cast<const void*>(std::addressof(visit))));
    }

    /// Whether a slot of a frame slab begins at this address. Any thread; takes a mutex.
    static bool begins_slot(const void* address) noexcept;

    /// Exact while no thread uses a pool, and approximate otherwise.
    static frame_pool_statistics statistics();

    // Multiples of 32 up to 512, of 64 up to 1024, then two steps to a doubling: 1536, 2048, 3072,
    // ... A larger object has its own slab. A slot may have more bytes than its class: see
    // next_slab().
    static constexpr std::size_t largest_class = 32 * 1024;
    static constexpr unsigned classes = 34;

    static constexpr unsigned class_of(std::size_t bytes) noexcept {
        const std::size_t last = bytes - (bytes != 0);  // the highest offset in use
        if (last < 512) return static_cast<unsigned>(last / 32);
        if (last < 1024) return static_cast<unsigned>(8 + last / 64);
        const unsigned log = static_cast<unsigned>(std::bit_width(last)) - 1;
        return 24 + 2 * (log - 10) + static_cast<unsigned>(last >> (log - 1) & 1);
    }
    static constexpr std::size_t class_size(unsigned index) noexcept {
        if (index < 16) return (index + 1) * std::size_t{32};
        if (index < 24) return (index - 7) * std::size_t{64};
        return std::size_t{1024 + (index % 2 + 1) * 512} << (index - 24) / 2;
    }

private:
    struct slab_list {
        slab* first = nullptr;

        void push(slab* item) noexcept;
        void remove(slab* item) noexcept;
    };

    /// The current slab of a class. A class has none until its first use. The owner's thread is the
    /// only writer; other threads read the atomics, relaxed, for statistics.
    struct alignas(32) current {
        void* free = nullptr;              // slots of `from` that were freed, last in first out
        std::atomic<slab*> from{nullptr};  // the slab that allocation uses
        // Live slots of `from`. A slot freed on another thread counts as live until it is returned.
        std::atomic<std::uint32_t> live{0};

        void pop(void* slot) noexcept {
            free = next_of(slot);
            live.store(live.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
        }
        void push(void* slot) noexcept {
            set_next(slot, free);
            free = slot;
            live.store(live.load(std::memory_order_relaxed) - 1, std::memory_order_relaxed);
        }
    };

    using link [[gnu::may_alias]] = void*;

    // How many slots freed for another pool are returned together.
    static constexpr unsigned batch = 32;
    // Of a free slot. AddressSanitizer poisons the rest.
    static constexpr std::size_t visible_bytes = 128;

    constexpr frame_pool() noexcept = default;

    static constexpr unsigned index_of(std::size_t bytes, slab_kind kind) noexcept {
        return static_cast<unsigned>(kind) * classes + class_of(bytes);
    }
    static void* next_of(void* slot) noexcept {
        return __atomic_load_n(static_cast<link*>(slot), __ATOMIC_RELAXED);
    }
    static void set_next(void* slot, void* next) noexcept {
        __atomic_store_n(static_cast<link*>(slot), next, __ATOMIC_RELAXED);
    }

    void* allocate_slowly(std::size_t bytes, slab_kind kind);
    void deallocate_slowly(void* slot) noexcept;
    void put(slab* home, void* slot) noexcept;
    void* refill(unsigned index);
    void* allocate_large(std::size_t bytes, slab_kind kind);
    void move(slab* item) noexcept;
    void collect_for(frame_pool* owner, void* slot) noexcept;
    void take_returned() noexcept;
    void trim(std::size_t limit) noexcept;
    slab* next_slab(unsigned index);

    static void enumerate(void (*visit)(void* context, void* slot, std::size_t size),
                          void* context);
    static bool visit_mapped(const void* inside, void (*visit)(void* context), void* context);

    static void poison([[maybe_unused]] void* slot, [[maybe_unused]] const slab* home) noexcept {
#ifdef TOKENGATE_ASAN
        if (home->slot_size <= visible_bytes) return;
        __asan_poison_memory_region(static_cast<char*>(slot) + visible_bytes,
                                    home->slot_size - visible_bytes);
#endif
    }
    static void unpoison([[maybe_unused]] void* slot, [[maybe_unused]] std::size_t size) noexcept {
#ifdef TOKENGATE_ASAN
        __asan_unpoison_memory_region(slot, size);
#endif
    }

    static std::atomic<std::size_t> keep_;

    // The owner's thread only.
    current current_[2 * classes];
    slab_list partial_[2 * classes];
    slab_list empty_[2 * classes];
    std::size_t kept_ = 0;  // bytes in empty_

    // Slots of another pool that the owner's thread freed, newest first.
    frame_pool* batch_owner_ = nullptr;
    void* batch_newest_ = nullptr;
    void* batch_oldest_ = nullptr;
    unsigned batch_size_ = 0;

    frame_pool* next_orphan_ = nullptr;  // the registry's link

    // Chains that flush_returns of other threads pushes (release) and take_returned takes whole
    // (acquire).
    alignas(64) std::atomic<void*> returned_{nullptr};
};

}  // namespace tokengate::detail
