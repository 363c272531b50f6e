// SPDX-License-Identifier: MIT
#include "sticky_registry.hpp"

#include <cds/gc/dhp.h>
#include <cds/init.h>
#include <cds/intrusive/free_list.h>
#include <cds/intrusive/michael_list_dhp.h>
#include <cds/intrusive/michael_set.h>

#include <algorithm>
#include <mutex>
#include <new>

namespace tokengate::detail {
namespace {

using cds::gc::DHP;
using cds::intrusive::FreeList;

// ---- libcds' own memory: each scan (one in 256 unpinned keys) sorts the hazards in a vector made for that ----

struct alignas(std::max_align_t) block : FreeList::node {
    // What a scan takes with libcds' defaults (16 hazards for 64 threads), and more than a block of 256 retired pins.
    static constexpr std::size_t common_size = 8192;

    std::size_t size;
};

/// Never destroyed: libcds gives memory back until the very end of the process.
FreeList& spare_blocks() {
    static FreeList& list = *new FreeList;
    return list;
}

void* lend_block(std::size_t size) {
    size = std::max(size, block::common_size);
    if (size == block::common_size)
        if (FreeList::node* spare = spare_blocks().get()) return static_cast<block*>(spare) + 1;
    block* fresh = new (::operator new(sizeof(block) + size)) block;
    fresh->size = size;
    return fresh + 1;
}

void take_block_back(void* memory) {
    block* back = static_cast<block*>(memory) - 1;
    if (back->size == block::common_size) return spare_blocks().put(back);
    back->~block();
    ::operator delete(back);
}

/// Attaching and detaching take turns. Detaching looks through the records of dead threads, and libcds asserts there
/// what an attaching thread that reuses such a record may break in that moment. It also tells TSan, which does not see
/// into libcds, that one thread's record is handed to the next.
std::mutex& attach_mutex() {
    static std::mutex& mutex = *new std::mutex;
    return mutex;
}

}  // namespace

cds_thread::cds_thread() {
    std::scoped_lock lock(attach_mutex());
    static const bool initialized = (cds::Initialize(), true);
    static_cast<void>(initialized);
    if (!DHP::isUsed()) {
        DHP::set_memory_allocator(lend_block, take_block_back);
        cds::gc::dhp::smr::construct();
    }
    cds::threading::Manager::attachThread();
    // The application may have attached this thread while there was no DHP; the manager would not look again.
    cds::gc::dhp::smr::attach_thread();
}

cds_thread::~cds_thread() {
    std::scoped_lock lock(attach_mutex());
    cds::threading::Manager::detachThread();
}

// ---- pins ----

/// A cache line each: pins of different cores do not share one.
struct alignas(64) sticky_registry::node : pin, cds::intrusive::michael_list::node<DHP>, FreeList::node {
    [[nodiscard]] std::uint64_t key() const noexcept { return key_.load(std::memory_order_relaxed); }

    void start(std::uint64_t key, unsigned position) noexcept {
        key_.store(key, std::memory_order_relaxed);
        position_.store(position, std::memory_order_relaxed);
        tokens_.store(1, std::memory_order_release);  // pairs with the CAS in raise()
    }

    /// One token more, unless the last has left.
    [[nodiscard]] bool raise() noexcept {
        std::uint64_t seen = tokens_.load(std::memory_order_relaxed);
        while (seen != 0)
            // acquire: pairs with start(), so that the position is the one of this pin
            if (tokens_.compare_exchange_weak(seen, seen + 1, std::memory_order_acquire, std::memory_order_relaxed))
                return true;
        return false;
    }

    /// True for the last token. acq_rel: all that was done under the pin comes before its next use as another.
    [[nodiscard]] bool lower() noexcept { return tokens_.fetch_sub(1, std::memory_order_acq_rel) == 1; }

    // One free list for the process, and never destroyed: libcds may let go of a pin after its registry has gone, and
    // the list looks at pins that another thread has just taken, so their memory is never returned.
    static FreeList& unused() {
        static FreeList& list = *new FreeList;
        return list;
    }

    static node* take() {
        FreeList::node* recycled = unused().get();
        return recycled ? static_cast<node*>(recycled) : new node;
    }

    static void recycle(node* idle) { unused().put(idle); }
};

struct sticky_registry::table {
    struct compare {
        static std::uint64_t key(std::uint64_t key) { return key; }
        static std::uint64_t key(const node& item) { return item.key(); }

        template <class Left, class Right>
        int operator()(const Left& left, const Right& right) const {
            return key(left) < key(right) ? -1 : key(left) > key(right);
        }
    };

    struct disposer {
        void operator()(node* unlinked) const { node::recycle(unlinked); }
    };

    struct list_traits : cds::intrusive::michael_list::traits {
        using hook = cds::intrusive::michael_list::base_hook<cds::opt::gc<DHP>>;
        using compare = table::compare;
        using disposer = table::disposer;
        using back_off = cds::backoff::empty;  // the default one yields the CPU
        // libcds' weaker order lets a pin be reached over a link whose store its insertion does not happen before.
        using memory_model = cds::opt::v::sequential_consistent;
    };

    struct set_traits : cds::intrusive::michael_set::traits {
        struct hash {
            // Keys may differ in their high bits only; the table uses the low ones. (2^64 divided by the golden ratio)
            template <class Item>
            std::size_t operator()(const Item& item) const {
                return (compare::key(item) * 0x9E37'79B9'7F4A'7C15u) >> 32;
            }
        };
    };

    using list = cds::intrusive::MichaelList<DHP, node, list_traits>;
    cds::intrusive::MichaelHashSet<DHP, list, set_traits> pins;
};

sticky_registry::sticky_registry(std::size_t expected_pins) : table_(new table{{expected_pins, 1}}) {}

sticky_registry::~sticky_registry() {
    cds_thread attached;  // what is still pinned is retired
    table_.reset();
}

sticky_registry::acquired sticky_registry::acquire(std::uint64_t key, unsigned (*place)(const void*),
                                                   const void* erased) {
    node* fresh = nullptr;
    for (;;) {
        if (auto guarded = table_->pins.get(key)) {
            if (guarded->raise()) {
                if (fresh) node::recycle(fresh);  // nobody has seen it
                return {&*guarded, true};
            }
            table_->pins.unlink(*guarded);  // the last token has left and is about to do the same
        }
        if (!fresh) {
            unsigned position = place(erased);
            fresh = node::take();
            fresh->start(key, position);
        }
        if (table_->pins.insert(*fresh)) return {fresh, false};
    }
}

void sticky_registry::release(pin* held) noexcept {
    node& mine = static_cast<node&>(*held);
    // Guarded while our token still holds it: after the last, a newcomer may unlink it, and what is unlinked here must
    // not be the same memory in its next use.
    DHP::Guard guard;
    guard.assign(&mine);
    if (mine.lower()) table_->pins.unlink(mine);
}

std::size_t sticky_registry::size() const noexcept {
    // Counted after linking and after unlinking, so for a moment there may be fewer than none.
    auto counted = static_cast<std::ptrdiff_t>(table_->pins.size());
    return static_cast<std::size_t>(std::max<std::ptrdiff_t>(counted, 0));
}

}  // namespace tokengate::detail
