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

/// The frame pool: memory for coroutine frames and a few other small objects of the runtime. One pool per thread, size
/// classes over slabs of 256 KiB, slots aligned to 32 bytes with no header in front.
///
///     frame_pool* pool = frame_pool::acquire();                    // once per thread
///     void* frame = pool->allocate(bytes, slab_kind::frame);       // throws std::bad_alloc
///     pool->deallocate(frame, bytes, slab_kind::frame);            // here or, with its own pool, on any other thread
///     frame_pool::release(pool);                                   // when the thread ends
///     frame_pool::for_each_slot([](void* slot, std::size_t size) { ... });    // any thread, nothing is stopped
///
/// In each class one slab is current: the pool itself holds its list of free slots and counts it, so that allocating there
/// and freeing there touch the pool and the slot and nothing else. The other slabs keep their own lists, and what is freed
/// into them waits until they become current. A slab loses that place only when all its slots are live.
///
/// A pool and its slabs belong to the thread that acquired it; only `returned_` is for others. A slot freed on another
/// thread goes home in a batch, with one compare-and-swap. Pools are never destroyed: when its thread ends, a pool
/// keeps the slabs that still hold live slots, accepts returns, and is given to the next thread that asks.
///
/// The first 8 bytes of a free slot are the pool's link, written and read atomically; the pool never writes elsewhere
/// in a slot, and a slab is zero when it is new. So a visitor may read a word at a fixed place behind the link,
/// atomically, at any time: it finds zero or what the slot's users stored there, and users who store honestly
/// (atomically, "dead" before deallocating) make it the truth. A slot under visit may be live, free or half made; it
/// stays mapped.

namespace tokengate::detail {

class frame_pool;

enum class slab_kind : std::uint8_t { frame, object };  // only slots of frame slabs are enumerated

/// The head of a slab: its slots follow. Found from any of its slots by masking.
struct alignas(64) slab {
    static constexpr std::size_t size = 256 * 1024;

    enum class place : std::uint8_t { current, full, partial, empty, large };

    // The owner's thread only; others read the atomics, relaxed, for enumeration and statistics. While the slab is
    // current, its pool counts the live slots and has the freed ones: the first three mean nothing then.
    void* free = nullptr;  // freed slots, last in first out
    std::atomic<std::uint32_t> left{
        0};  // frees until the owner has to move this slab to another place
    std::atomic<std::uint32_t> taken{0};  // live slots = left + taken; remote frees count once home
    std::atomic<std::uint32_t> carved{0};  // slots handed out at least once
    place where = place::current;
    slab* previous = nullptr;  // the list of its place
    slab* next = nullptr;

    // Written once, so that remote threads looking for the owner do not disturb it; the links belong to the registry.
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
    /// Whether `of(slot)` is `item`, one instruction shorter.
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
    std::size_t pools;  // ever made
    std::size_t slabs;  // of both kinds, large ones included
    std::size_t mapped_bytes;
    std::size_t live_slots;  // slots freed elsewhere and not yet home are live
};

class frame_pool {
public:
    /// An orphaned pool, or a new one. Throws std::bad_alloc.
    static frame_pool* acquire();
    /// The thread that acquired the pool gives it up. Sends what it collected for others, unmaps its empty slabs.
    static void release(frame_pool* pool) noexcept;

    frame_pool(const frame_pool&) = delete;
    frame_pool& operator=(const frame_pool&) = delete;

    void* allocate(std::size_t bytes, slab_kind kind) {
        void* slot = try_allocate(bytes, kind);
        if (!slot) [[unlikely]]
            slot = allocate_slowly(bytes, kind);
        return slot;
    }

    /// `bytes` and `kind` as they were at `allocate`.
    void deallocate(void* slot, std::size_t bytes, slab_kind kind) noexcept {
        if (!try_deallocate(slot, bytes, kind)) [[unlikely]]
            deallocate_slowly(slot);
    }

    /// The short ways, for who inlines them where the size is a constant: null, or false, where the current slab of the
    /// class has no freed slot, or is not the slot's. Both may be asked of `none`, which says so always.
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

    /// A pool without slabs that is never written, for threads that have none yet.
    static frame_pool none;

    /// Sends home what was freed here for another pool. A thread calls it before it sleeps.
    void flush_returns() noexcept;

    /// Takes in what others freed, and unmaps empty slabs beyond the limit. Allocating does the first when it must.
    void collect() noexcept;

    /// How many bytes of entirely free slabs each pool keeps for later; process-wide, 256 MiB unless set.
    static void keep(std::size_t bytes) noexcept { keep_.store(bytes, std::memory_order_relaxed); }

    /// visit(void* slot, std::size_t size) for every slot of the frame slabs that was ever handed out. Slabs made
    /// meanwhile are not seen; none is unmapped meanwhile. The visitor may allocate and deallocate, and throw.
    template <class Visit>
    static void for_each_slot(Visit&& visit) {
        using visitor = std::remove_reference_t<Visit>;
        enumerate([](void* context, void* slot,
                     std::size_t size) { (*static_cast<visitor*>(context))(slot, size); },
                  const_cast<void*>(static_cast<const void*>(std::addressof(visit))));
    }

    /// Calls `visit` if `inside` lies in a frame slab that is mapped, and keeps it mapped meanwhile; false if not. What is
    /// there may be free, or another frame than the caller thinks of. Any thread; `visit` must not allocate.
    template <class Visit>
    static bool visit_if_mapped(const void* inside, Visit&& visit) {
        using visitor = std::remove_reference_t<Visit>;
        return visit_mapped(
            inside, [](void* context) { (*static_cast<visitor*>(context))(); },
            const_cast<void*>(static_cast<const void*>(std::addressof(visit))));
    }

    /// Whether a slot of a frame slab begins at this address. Any thread; takes a mutex.
    static bool begins_slot(const void* address) noexcept;

    /// Exact while no thread uses a pool, close to it otherwise.
    static frame_pool_statistics statistics();

    // Multiples of 32 up to 512, of 64 up to 1024, then two steps to a doubling: 1536, 2048, 3072, ... What is larger has
    // its own slab. A slot of a class may have more bytes than the class: see next_slab().
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

    /// The current slab of a class; it has none until the class is first used. One writer, the owner's thread; others read
    /// the atomics, relaxed, for statistics.
    struct alignas(32) current {
        void* free = nullptr;                // slots of `from` that were freed, last in first out
        std::atomic<slab*> from{nullptr};    // where allocation happens
        std::atomic<std::uint32_t> live{0};  // slots of `from`; remote frees count once home

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

    static constexpr unsigned batch = 32;  // remote frees that go home together
    static constexpr std::size_t visible_bytes =
        128;  // of a free slot; the rest is poisoned under AddressSanitizer

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

    // What the owner's thread freed of another pool, newest first.
    frame_pool* batch_owner_ = nullptr;
    void* batch_newest_ = nullptr;
    void* batch_oldest_ = nullptr;
    unsigned batch_size_ = 0;

    frame_pool* next_orphan_ = nullptr;  // the registry's

    // Chains pushed by other threads' flush_returns (release), taken whole by take_returned (acquire).
    alignas(64) std::atomic<void*> returned_{nullptr};
};

}  // namespace tokengate::detail
