// SPDX-License-Identifier: MIT
#include "routing/sticky_registry.hpp"

#include <tokengate/detail/brief_lock.hpp>
#include <tokengate/detail/core_context.hpp>

#include <cds/intrusive/striped_set.h>

#include <bit>
#include <mutex>
#include <new>
#include <utility>

namespace tokengate::detail {
namespace {

constexpr std::size_t table_count = 256;
constexpr unsigned bucket_bits = 24;  // of a hash; the bits above choose the table

/// Keys may differ in their high bits only. (2^64 divided by the golden ratio)
std::size_t hash_of(std::uint64_t key) noexcept { return (key * 0x9E37'79B9'7F4A'7C15u) >> 32; }

/// One lock for a whole set, inside the set: as libcds' `striping` it would be on a line of its
/// own.
class one_lock {
public:
    explicit one_lock(std::size_t /*capacity*/) {}

    class scoped_cell_lock {
    public:
        scoped_cell_lock(one_lock& of, std::size_t /*hash*/) noexcept : lock_(of.lock_) {}

    private:
        std::scoped_lock<brief_lock> lock_;
    };

    class scoped_full_lock : scoped_cell_lock {
    public:
        explicit scoped_full_lock(one_lock& of) noexcept : scoped_cell_lock(of, 0) {}
    };

    class scoped_resize_lock : scoped_cell_lock {
    public:
        explicit scoped_resize_lock(one_lock& of) noexcept : scoped_cell_lock(of, 0) {}
        [[nodiscard]] static bool success() noexcept { return true; }
    };

    static void resize(std::size_t /*capacity*/) noexcept {}

private:
    brief_lock lock_;
};

/// The memory for the next table that this thread makes.
constinit thread_local void* reserved = nullptr;

/// Allocates a set's buckets, on cache lines of their own. A growing set stores its new size before
/// it allocates, so that allocation must not fail: its memory has been reserved before.
template <class T>
struct table_memory {
    using value_type = T;
    static constexpr std::align_val_t alignment{64};

    table_memory() = default;
    template <class U>
    table_memory(const table_memory<U>& /*other*/) noexcept {}

    [[nodiscard]] T* allocate(std::size_t count) {
        void* memory = std::exchange(reserved, nullptr);
        return static_cast<T*>(memory ? memory : ::operator new(count * sizeof(T), alignment));
    }
    void deallocate(T* memory, std::size_t /*count*/) noexcept {
        ::operator delete(memory, alignment);
    }

    [[nodiscard]] static bool reserve(std::size_t count) noexcept {
        reserved = ::operator new(count * sizeof(T), alignment, std::nothrow);
        return reserved;
    }
};

}  // namespace

/// A slot of the frame pool is a cache line: pins of different cores do not share one.
struct sticky_registry::node : pin {
    node* next = nullptr;

    [[nodiscard]] std::uint64_t key() const noexcept { return key_; }
    void raise() noexcept { ++tokens_; }
    [[nodiscard]] bool lower() noexcept { return --tokens_ == 0; }  ///< true for the last token
    void place_at(unsigned position) noexcept { position_ = position; }

    static node* make(std::uint64_t key) {
        node* made = new (context().pool->allocate(sizeof(node), slab_kind::object)) node;
        made->key_ = key;
        return made;
    }
    static void dispose(node* unused) noexcept {
        static_assert(std::is_trivially_destructible_v<node>);
        context().pool->deallocate(unused, sizeof(node), slab_kind::object);
    }
};

struct sticky_registry::held_pin {
    node& held;
    [[nodiscard]] std::uint64_t key() const noexcept { return held.key(); }
};

/// A chain of pins, with the members that StripedSet requires of its containers. Everything here
/// runs under the table's lock.
struct sticky_registry::bucket {
    using value_type = node;
    using default_resizing_policy = cds::intrusive::striped_set::no_resizing;

    class iterator {
    public:
        iterator() = default;
        explicit iterator(node* at) noexcept : at_(at) {}
        node& operator*() const noexcept { return *at_; }
        iterator& operator++() noexcept {
            at_ = at_->next;
            return *this;
        }
        friend bool operator==(iterator, iterator) = default;

    private:
        node* at_ = nullptr;
    };
    using const_iterator = iterator;

    [[nodiscard]] iterator begin() const noexcept { return iterator(first); }
    [[nodiscard]] iterator end() const noexcept { return iterator(nullptr); }

    /// Calls found(is_new, pin, candidate) with the pin of the candidate's key; if there is none,
    /// the candidate becomes the pin. If `found` throws, no pin is left.
    template <class Found>
    std::pair<bool, bool> update(node& candidate, Found found, bool /*may_insert*/) {
        for (node& each : *this)
            if (each.key() == candidate.key()) {
                found(false, each, candidate);
                return {true, false};
            }
        found(true, candidate, candidate);
        candidate.next = std::exchange(first, &candidate);
        return {true, true};
    }

    /// Counts one token less of a held pin. If that was the last, calls ended(pin) and returns the
    /// pin, taken out; else null.
    template <class Ended>
    node* erase(const held_pin& leaving, Ended ended) noexcept {
        if (!leaving.held.lower()) return nullptr;
        ended(leaving.held);
        node** link = &first;
        while (*link != &leaving.held) link = &(*link)->next;
        *link = leaving.held.next;
        return &leaving.held;
    }

    void move_item(bucket& /*from*/, iterator which) noexcept {
        (*which).next = std::exchange(first, &*which);
    }

    void clear() noexcept { first = nullptr; }
    template <class Dispose>
    void clear(Dispose dispose) {
        while (first) dispose(std::exchange(first, first->next));
    }

    node* first = nullptr;
};

namespace {

struct bucket_hash {
    template <class Pin>
    std::size_t operator()(const Pin& of) const noexcept {
        return hash_of(of.key());
    }
};

}  // namespace

/// The table counts its pins under its lock: StripedSet's own counter takes a locked instruction
/// for each.
struct alignas(64) sticky_registry::table
    : private cds::intrusive::StripedSet<bucket, cds::opt::hash<bucket_hash>,
                                         cds::opt::mutex_policy<one_lock>,
                                         cds::opt::item_counter<cds::atomicity::empty_item_counter>,
                                         cds::opt::allocator<table_memory<bucket>>> {
    using StripedSet::bucket_count;

    ~table() {
        clear_and_dispose([](node* pinned) { node::dispose(pinned); });
    }

    void begin_with(std::size_t buckets) noexcept {
        if (buckets > bucket_count()) resize_to(buckets);
        least_ = bucket_count();
    }

    /// The pin of the candidate's key, with one token more. If there is none, the candidate becomes
    /// the pin, at `place()`.
    template <class Place>
    acquired raise(node& candidate, Place place) {
        acquired got{nullptr, false};
        bool full = false;
        update(candidate, [&](bool is_new, node& found, node& /*candidate*/) {
            if (is_new) {
                found.place_at(place());
                pins_.add(1);
                full = is_full();
            }
            found.raise();
            got = {&found, !is_new};
        });
        if (full) fit();
        return got;
    }

    /// Counts one token less. True if that was the last: then the caller owns the pin.
    bool lower(node& held) noexcept {
        bool sparse = false;
        const bool last = erase(held_pin{held}, [&](node& /*ended*/) {
            pins_.add(std::uint64_t{0} - 1);
            sparse = is_sparse();
        });
        if (sparse) fit();
        return last;
    }

    [[nodiscard]] std::size_t pins() const noexcept { return pins_.load(); }

private:
    [[nodiscard]] bool is_full() const noexcept { return pins() > bucket_count(); }
    [[nodiscard]] bool is_sparse() const noexcept {
        return pins() < bucket_count() / 8 && bucket_count() > least_;
    }

    /// Tests again under the lock: another thread may have resized the table.
    void fit() noexcept {
        const scoped_resize_lock alone(m_MutexPolicy);
        if (is_full()) resize_to(bucket_count() * 2);
        if (is_sparse()) resize_to(bucket_count() / 2);
    }

    void resize_to(std::size_t buckets) noexcept {
        if (table_memory<bucket_type>::reserve(buckets)) internal_resize(buckets);
    }

    relaxed<std::uint64_t> pins_{};  // changed under the lock
    std::size_t least_ = 0;
};

sticky_registry::table& sticky_registry::table_of(std::uint64_t key) const noexcept {
    return tables_[hash_of(key) >> bucket_bits];
}

sticky_registry::sticky_registry(std::size_t expected_pins) : tables_(new table[table_count]) {
    static_assert(sizeof(table) == 64 && table_count == std::size_t{1} << (32 - bucket_bits));
    for (std::size_t i = 0; i < table_count; ++i)
        tables_[i].begin_with(std::bit_ceil(expected_pins / table_count +
                                            (expected_pins % table_count != 0)));
}

sticky_registry::~sticky_registry() = default;

sticky_registry::acquired sticky_registry::acquire(std::uint64_t key,
                                                   unsigned (*place)(const void*),
                                                   const void* erased) {
    table& in = table_of(key);
    node* const fresh = node::make(key);
    acquired got;
    try {
        got = in.raise(*fresh, [&] { return place(erased); });
    } catch (...) {
        node::dispose(fresh);
        throw;
    }
    if (got.held != fresh) node::dispose(fresh);
    return got;
}

void sticky_registry::release(pin* held) noexcept {
    node& mine = static_cast<node&>(*held);
    if (table_of(mine.key()).lower(mine)) node::dispose(&mine);
}

std::size_t sticky_registry::size() const noexcept {
    std::size_t pins = 0;
    for (std::size_t i = 0; i < table_count; ++i) pins += tables_[i].pins();
    return pins;
}

std::size_t sticky_registry::table_bytes() const noexcept {
    std::size_t bytes = 0;
    for (std::size_t i = 0; i < table_count; ++i)
        bytes += sizeof(table) + tables_[i].bucket_count() * sizeof(bucket);
    return bytes;
}

}  // namespace tokengate::detail
