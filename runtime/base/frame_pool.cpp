// SPDX-License-Identifier: MIT
#include <tokengate/detail/frame_pool.hpp>

#include <sys/mman.h>

#include <algorithm>
#include <iterator>
#include <mutex>
#include <new>
#include <utility>

namespace tokengate::detail {

/// The slabs of the process, linked through `older`, guarded by the registry's mutex. It has
/// external linkage and its own name because debuggers begin here (runtime/gdb/tokengate.py), also
/// if they do not know the layout of the registry.
[[gnu::used]] constinit slab* newest_slab = nullptr;

namespace {

/// All slabs and orphaned pools of the process. Never destroyed (it has no destructor to run), so
/// threads may end late.
///
/// Slabs are linked newest first and only added in front. A reader that took the newest under the
/// mutex therefore walks `older` without the mutex. No slab is unlinked while there are readers:
/// the last reader unlinks those that died meanwhile.
struct slab_registry {
    std::mutex mutex;        // also guards newest_slab
    slab* doomed = nullptr;  // linked through slab::next
    std::size_t readers = 0;
    frame_pool* orphans = nullptr;
    std::size_t pools = 0;
    // By address, linked through slab::same_bucket. They show whether an address lies in a slab.
    slab* buckets[1024] = {};

    slab*& bucket_of(const slab* looked_for) noexcept {
        return buckets[reinterpret_cast<std::uintptr_t>(looked_for) / slab::size %
                       std::size(buckets)];
    }
};
constinit slab_registry registry;

std::byte* map(std::size_t bytes) {
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    return static_cast<std::byte*>(memory);
}

/// Zero memory of a multiple of the slab size, aligned to the slab size.
void* map_aligned(std::size_t bytes) {
    // The kernel usually places a mapping next to the latest one. If that one was aligned, so is
    // this one.
    std::byte* memory = map(bytes);
    if (slab::of(memory) == static_cast<void*>(memory)) return memory;
    munmap(memory, bytes);
    memory = map(bytes + slab::size);
    const std::size_t before =
        slab::size - reinterpret_cast<std::uintptr_t>(memory) % slab::size;  // 1 .. slab::size
    munmap(memory, before);
    if (before < slab::size) munmap(memory + before + bytes, slab::size - before);
    return memory + before;
}

slab* make_slab(std::size_t mapped, frame_pool* owner, slab_kind kind) {
    slab* made = new (map_aligned(mapped)) slab;
    made->owner = owner;
    made->mapped = mapped;
    made->kind = kind;
    return made;
}

void link_slab(slab* made) noexcept {
    std::lock_guard lock(registry.mutex);
    made->older = newest_slab;
    if (made->older) made->older->newer = made;
    newest_slab = made;
    slab*& bucket = registry.bucket_of(made);
    made->same_bucket = std::exchange(bucket, made);
}

void unlink_slab(slab* dead) noexcept {
    if (dead->older) dead->older->newer = dead->newer;
    (dead->newer ? dead->newer->older : newest_slab) = dead->older;
    slab** link = &registry.bucket_of(dead);
    while (*link != dead) link = &(*link)->same_bucket;
    *link = dead->same_bucket;
}

void unmap(slab* dead) noexcept {
#ifdef TOKENGATE_ASAN
    // For the next mapping of these addresses.
    __asan_unpoison_memory_region(dead, dead->mapped);
#endif
    munmap(dead, dead->mapped);
}

/// Precondition: the slab has no live slot and is in no list of its pool.
void drop_slab(slab* dead) noexcept {
    {
        std::lock_guard lock(registry.mutex);
        if (registry.readers) {
            dead->next = std::exchange(registry.doomed, dead);
            return;
        }
        unlink_slab(dead);
    }
    unmap(dead);
}

/// Keeps all slabs mapped and the list behind `newest` unchanged.
class slab_reader {
public:
    slab_reader() {
        std::lock_guard lock(registry.mutex);
        ++registry.readers;
        newest = newest_slab;
    }
    ~slab_reader() {
        slab* doomed = nullptr;
        {
            std::lock_guard lock(registry.mutex);
            if (--registry.readers == 0) doomed = std::exchange(registry.doomed, nullptr);
            for (slab* dead = doomed; dead; dead = dead->next) unlink_slab(dead);
        }
        while (doomed) unmap(std::exchange(doomed, doomed->next));
    }
    slab_reader(const slab_reader&) = delete;
    slab_reader& operator=(const slab_reader&) = delete;

    slab* newest;
};

/// Sets how many frees `item` can take until it has to move to another place.
void set_left(slab* item, std::uint32_t left) noexcept {
    item->taken.store(item->live() - left, std::memory_order_relaxed);
    item->left.store(left, std::memory_order_relaxed);
}

}  // namespace

constinit std::atomic<std::size_t> frame_pool::keep_{std::size_t{256} << 20};
constinit frame_pool frame_pool::none;

frame_pool* frame_pool::acquire() {
    {
        std::lock_guard lock(registry.mutex);
        if (registry.orphans)
            return std::exchange(registry.orphans, registry.orphans->next_orphan_);
    }
    frame_pool* made = new frame_pool;
    std::lock_guard lock(registry.mutex);
    ++registry.pools;
    return made;
}

void frame_pool::release(frame_pool* pool) noexcept {
    pool->flush_returns();
    pool->take_returned();
    for (current& each : pool->current_) {
        slab* empty = each.from.load(std::memory_order_relaxed);
        if (!empty || each.live.load(std::memory_order_relaxed) != 0) continue;
        each.free = nullptr;
        each.from.store(nullptr, std::memory_order_relaxed);
        drop_slab(empty);
    }
    pool->trim(0);
    std::lock_guard lock(registry.mutex);
    pool->next_orphan_ = std::exchange(registry.orphans, pool);
}

void frame_pool::slab_list::push(slab* item) noexcept {
    item->previous = nullptr;
    item->next = first;
    if (first) first->previous = item;
    first = item;
}

void frame_pool::slab_list::remove(slab* item) noexcept {
    (item->previous ? item->previous->next : first) = item->next;
    if (item->next) item->next->previous = item->previous;
}

void* frame_pool::allocate_slowly(std::size_t bytes, slab_kind kind) {
    if (bytes > largest_class) return allocate_large(bytes, kind);
    void* slot = refill(index_of(bytes, kind));
    unpoison(slot, bytes);
    return slot;
}

/// Called if the current slab has no freed slot. First takes returned slots, because they are warm,
/// and then slots that were never used.
void* frame_pool::refill(unsigned index) {
    if (returned_.load(std::memory_order_relaxed)) take_returned();
    current& here = current_[index];
    slab* from = here.from.load(std::memory_order_relaxed);
    if (!here.free && (!from || from->carved.load(std::memory_order_relaxed) == from->capacity)) {
        slab* next = next_slab(index);  // may throw; nothing has changed yet
        if (from) {
            assert(here.live.load(std::memory_order_relaxed) == from->capacity);
            from->where = slab::place::full;
            from->taken.store(from->capacity - 1, std::memory_order_relaxed);
            from->left.store(1, std::memory_order_relaxed);
        }
        next->where = slab::place::current;
        here.free = std::exchange(next->free, nullptr);
        here.live.store(next->live(), std::memory_order_relaxed);
        here.from.store(next, std::memory_order_relaxed);
        from = next;
    }
    if (void* slot = here.free) {
        here.pop(slot);
        return slot;
    }
    // release, although a reader finds only zeroes there: the head of the slab was written before a
    // slot is carved.
    const std::uint32_t number = from->carved.load(std::memory_order_relaxed);
    from->carved.store(number + 1, std::memory_order_release);  // pairs with enumerate()
    here.live.store(here.live.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    return from->slot(number);
}

/// Of the slabs with room, takes the one that was full last. Its free slot is warm, and the emptier
/// slabs may become empty.
slab* frame_pool::next_slab(unsigned index) {
    if (slab* found = partial_[index].first) {
        partial_[index].remove(found);
        return found;
    }
    if (slab* found = empty_[index].first) {
        empty_[index].remove(found);
        kept_ -= found->mapped;
        return found;
    }
    slab* made = make_slab(slab::size, this, static_cast<slab_kind>(index / classes));
    made->index = static_cast<std::uint8_t>(index);
    made->slot_size = class_size(index % classes);
    // An odd number of cache lines. Otherwise the same line of every large frame would compete for
    // a few sets of the cache.
    if (made->slot_size % 128 == 0 && made->slot_size > 1024) made->slot_size += 64;
    made->capacity = static_cast<std::uint32_t>((slab::size - sizeof(slab)) / made->slot_size);
    link_slab(made);
    return made;
}

void* frame_pool::allocate_large(std::size_t bytes, slab_kind kind) {
    if (bytes > SIZE_MAX / 2) throw std::bad_alloc();
    slab* made =
        make_slab((bytes + sizeof(slab) + slab::size - 1) / slab::size * slab::size, this, kind);
    made->where = slab::place::large;
    made->slot_size = (bytes + 63) / 64 * 64;
    made->capacity = 1;
    made->carved.store(1, std::memory_order_relaxed);
    made->left.store(1, std::memory_order_relaxed);
    link_slab(made);
    return made->slot(0);
}

/// Frees a slot that is large or is not in the current slab of its class.
void frame_pool::deallocate_slowly(void* slot) noexcept {
    slab* home = slab::of(slot);
    poison(slot, home);
    if (home->owner == this)
        put(home, slot);
    else
        collect_for(home->owner, slot);
}

/// Frees a slot of this pool. Its slab may be current or not.
void frame_pool::put(slab* home, void* slot) noexcept {
    if (home->where == slab::place::current) {
        current_[home->index].push(slot);
        return;
    }
    set_next(slot, home->free);
    home->free = slot;
    // There is one writer, so this is no read-modify-write.
    const std::uint32_t left = home->left.load(std::memory_order_relaxed) - 1;
    home->left.store(left, std::memory_order_relaxed);
    if (left == 0) move(home);
}

/// Called when `item` can take no further free in its place.
void frame_pool::move(slab* item) noexcept {
    if (item->where == slab::place::full) {
        item->where = slab::place::partial;
        partial_[item->index].push(item);
        set_left(item, item->live());
        return;
    }
    if (item->where == slab::place::partial) {
        partial_[item->index].remove(item);
        if (kept_ + item->mapped <= keep_.load(std::memory_order_relaxed)) {
            item->where = slab::place::empty;
            empty_[item->index].push(item);
            kept_ += item->mapped;
            return;
        }
    }
    drop_slab(item);
}

void frame_pool::trim(std::size_t limit) noexcept {
    for (slab_list& list : empty_) {
        while (kept_ > limit && list.first) {
            slab* dead = list.first;
            list.remove(dead);
            kept_ -= dead->mapped;
            drop_slab(dead);
        }
    }
}

void frame_pool::collect_for(frame_pool* owner, void* slot) noexcept {
    if (owner != batch_owner_) {
        flush_returns();
        batch_owner_ = owner;
    }
    if (batch_size_ == 0) batch_oldest_ = slot;
    set_next(slot, batch_newest_);
    batch_newest_ = slot;
    if (++batch_size_ == batch) flush_returns();
}

void frame_pool::flush_returns() noexcept {
    if (batch_size_ == 0) return;
    std::atomic<void*>& list = batch_owner_->returned_;
    void* seen = list.load(std::memory_order_relaxed);
    do set_next(batch_oldest_, seen);
    while (!list.compare_exchange_weak(seen, batch_newest_, std::memory_order_release,
                                       std::memory_order_relaxed));
    batch_newest_ = nullptr;
    batch_size_ = 0;
}

void frame_pool::take_returned() noexcept {
    void* slot =
        returned_.exchange(nullptr,
                           std::memory_order_acquire);  // pairs with the release in flush_returns()
    while (slot) {
        void* next = next_of(slot);
        put(slab::of(slot), slot);
        slot = next;
    }
}

void frame_pool::collect() noexcept {
    if (returned_.load(std::memory_order_relaxed)) take_returned();
    trim(keep_.load(std::memory_order_relaxed));
}

void frame_pool::enumerate(void (*visit)(void* context, void* slot, std::size_t size),
                           void* context) {
    const slab_reader reader;
    for (slab* each = reader.newest; each; each = each->older) {
        if (each->kind != slab_kind::frame) continue;
        const std::uint32_t carved =
            each->carved.load(std::memory_order_acquire);  // pairs with refill()
        for (std::uint32_t number = 0; number < carved; ++number)
            visit(context, each->slot(number), each->slot_size);
    }
}

bool frame_pool::visit_mapped(const void* inside, void (*visit)(void* context), void* context) {
    const slab* looked_for = slab::of(inside);
    std::lock_guard lock(registry.mutex);
    for (const slab* each = registry.bucket_of(looked_for); each; each = each->same_bucket) {
        if (each != looked_for) continue;
        if (each->kind != slab_kind::frame) return false;
        visit(context);
        return true;
    }
    return false;
}

bool frame_pool::begins_slot(const void* address) noexcept {
    slab* looked_for = slab::of(address);
    std::lock_guard lock(registry.mutex);
    for (const slab* each = registry.bucket_of(looked_for); each; each = each->same_bucket) {
        if (each != looked_for) continue;
        const std::size_t first = sizeof(slab);
        const std::size_t at = reinterpret_cast<std::uintptr_t>(address) % slab::size;
        return each->kind == slab_kind::frame && at >= first && (at - first) % each->slot_size == 0;
    }
    return false;
}

frame_pool_statistics frame_pool::statistics() {
    const slab_reader reader;
    frame_pool_statistics sum{};
    for (slab* each = reader.newest; each; each = each->older) {
        ++sum.slabs;
        sum.mapped_bytes += each->mapped;
        // The owner's thread may change either value meanwhile.
        const current& at = each->owner->current_[each->index];
        const bool is_current = at.from.load(std::memory_order_relaxed) == each;
        sum.live_slots +=
            std::min(is_current ? at.live.load(std::memory_order_relaxed) : each->live(),
                     each->capacity);
    }
    std::lock_guard lock(registry.mutex);
    sum.pools = registry.pools;
    return sum;
}

}  // namespace tokengate::detail
