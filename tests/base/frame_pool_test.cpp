// SPDX-License-Identifier: MIT
#include <tokengate/detail/frame_pool.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <new>
#include <random>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

using tokengate::detail::frame_pool;
using tokengate::detail::slab;
using tokengate::detail::slab_kind;

namespace {

/// A thread's pool for the time of a scope.
struct pool_user {
    frame_pool* const pool = frame_pool::acquire();

    pool_user() = default;
    pool_user(const pool_user&) = delete;
    pool_user& operator=(const pool_user&) = delete;
    ~pool_user() { frame_pool::release(pool); }

    void* get(std::size_t bytes, slab_kind kind = slab_kind::frame) {
        return pool->allocate(bytes, kind);
    }
    void put(void* slot, std::size_t bytes, slab_kind kind = slab_kind::frame) {
        pool->deallocate(slot, bytes, kind);
    }
};

/// The process-wide limit for the time of a scope.
struct keeping {
    explicit keeping(std::size_t bytes) { frame_pool::keep(bytes); }
    keeping(const keeping&) = delete;
    keeping& operator=(const keeping&) = delete;
    ~keeping() { frame_pool::keep(std::size_t{256} << 20); }
};

template <class Body>
void on_another_thread(Body body) {
    std::thread(body).join();
}

/// The word that enumeration looks at: behind the pool's link.
std::uint64_t read_word(void* slot) {
    return __atomic_load_n(static_cast<std::uint64_t*>(slot) + 1, __ATOMIC_RELAXED);
}
void write_word(void* slot, std::uint64_t value) {
    __atomic_store_n(static_cast<std::uint64_t*>(slot) + 1, value, __ATOMIC_RELAXED);
}

/// Fills a block but for its visited word; a block that overlaps another one has lost its pattern when it is freed.
struct block {
    unsigned char* slot = nullptr;
    std::size_t bytes = 0;
    unsigned char pattern = 0;

    void fill() {
        std::memset(slot, pattern, 8);
        std::memset(slot + 16, pattern, bytes - 16);
    }
    bool intact() const {
        const auto same = [this](unsigned char each) { return each == pattern; };
        return std::all_of(slot, slot + 8, same) && std::all_of(slot + 16, slot + bytes, same);
    }
};

std::size_t live_slots() { return frame_pool::statistics().live_slots; }
std::size_t slabs() { return frame_pool::statistics().slabs; }

}  // namespace

TEST_CASE("frame_pool: every size has the smallest class that holds it") {
    static_assert(frame_pool::class_size(frame_pool::class_of(1)) == 32);
    static_assert(frame_pool::class_size(frame_pool::class_of(152)) == 160);
    static_assert(frame_pool::class_size(frame_pool::class_of(161)) == 192);
    static_assert(frame_pool::class_size(frame_pool::class_of(512)) == 512);
    static_assert(frame_pool::class_size(frame_pool::class_of(513)) == 576);
    static_assert(frame_pool::class_size(frame_pool::class_of(1024)) == 1024);
    static_assert(frame_pool::class_size(frame_pool::class_of(1025)) == 1536);
    static_assert(frame_pool::class_size(frame_pool::class_of(2049)) == 3072);
    static_assert(frame_pool::class_of(frame_pool::largest_class) == frame_pool::classes - 1);
    static_assert(frame_pool::class_size(frame_pool::classes - 1) == frame_pool::largest_class);
    static_assert(frame_pool::class_of(0) == 0);

    bool holds = true;
    for (std::size_t bytes = 1; bytes <= frame_pool::largest_class; ++bytes) {
        const unsigned index = frame_pool::class_of(bytes);
        holds = holds && frame_pool::class_size(index) >= bytes &&
                frame_pool::class_size(index) % 32 == 0;
        holds = holds && (index == 0 || frame_pool::class_size(index - 1) < bytes);
    }
    CHECK(holds);
}

TEST_CASE("frame_pool: large slots of a class do not compete for the same sets of a cache") {
    pool_user user;
    for (std::size_t bytes : {1025, 2048, 4096, 4500, 20000, 32768}) {
        auto* first = static_cast<std::byte*>(user.get(bytes));
        auto* second = static_cast<std::byte*>(user.get(bytes));
        CHECK((second - first) % 128 == 64);  // an odd number of lines apart
        user.put(first, bytes);
        user.put(second, bytes);
    }
}

TEST_CASE("frame_pool: slots are aligned, and the one freed last is handed out first") {
    pool_user user;
    for (std::size_t bytes :
         {1, 64, 65, 200, 1024, 1025, 4096, 20000, 32768, 32769, 300000, 3000000}) {
        void* slot = user.get(bytes);
        CHECK(reinterpret_cast<std::uintptr_t>(slot) % 32 == 0);
        std::memset(slot, 1, bytes);
        user.put(slot, bytes);
    }
    void* first = user.get(200);
    void* second = user.get(200);
    CHECK(first != second);
    user.put(first, 200);
    user.put(second, 200);
    CHECK(user.get(224) == second);
    CHECK(user.get(193) == first);
    user.put(first, 193);
    user.put(second, 224);
}

TEST_CASE(
    "frame_pool: slots of a class lie side by side, as large as the class, until their slab is "
    "full") {
    pool_user user;
    for (std::size_t size = 32; size <= 512; size += 32) {
        const std::size_t capacity = (slab::size - sizeof(slab)) / size;
        std::vector<std::byte*> slots(2 * capacity);
        for (std::byte*& slot : slots) slot = static_cast<std::byte*>(user.get(size - 8));
        // The class may have a slab from before, whose freed slots come first: the second half has one of its own.
        const auto first = std::find_if(slots.begin(), slots.end(), [&](std::byte* slot) {
            return slot == reinterpret_cast<std::byte*>(slab::of(slot)) + sizeof(slab);
        });
        REQUIRE(first != slots.end());
        const std::size_t together =
            std::min<std::size_t>(capacity, static_cast<std::size_t>(slots.end() - first));
        bool side_by_side = true;
        for (std::size_t i = 0; i < together; ++i)
            side_by_side = side_by_side && first[i] == *first + i * size;
        CHECK(side_by_side);
        for (std::byte* slot : slots) user.put(slot, size - 8);
    }
}

TEST_CASE(
    "frame_pool: the short ways serve the current slab of a class, and say so where they do not") {
    pool_user user;
    frame_pool& pool = *user.pool;
    std::vector<void*> slots;
    slots.push_back(user.get(96));
    while (slab::of(slots.back()) == slab::of(slots.front())) slots.push_back(user.get(96));
    void* in_current = slots.back();
    void* in_full = slots.front();

    CHECK(pool.try_deallocate(in_current, 96, slab_kind::frame));
    CHECK(pool.try_allocate(96, slab_kind::object) == nullptr);
    CHECK(pool.try_allocate(65, slab_kind::frame) == in_current);
    CHECK(pool.try_allocate(96, slab_kind::frame) == nullptr);  // never carves
    CHECK_FALSE(pool.try_deallocate(in_full, 96, slab_kind::frame));

    void* large = user.get(frame_pool::largest_class + 1);
    CHECK_FALSE(pool.try_deallocate(large, frame_pool::largest_class + 1, slab_kind::frame));
    CHECK(pool.try_allocate(frame_pool::largest_class + 1, slab_kind::frame) == nullptr);
    user.put(large, frame_pool::largest_class + 1);

    pool_user other;
    CHECK_FALSE(other.pool->try_deallocate(in_current, 96, slab_kind::frame));
    CHECK(frame_pool::none.try_allocate(96, slab_kind::frame) == nullptr);
    CHECK_FALSE(frame_pool::none.try_deallocate(in_current, 96, slab_kind::frame));
    for (void* slot : slots) user.put(slot, 96);
}

TEST_CASE("frame_pool: a slot begins where one was handed out, and nowhere between") {
    pool_user user;
    for (std::size_t bytes : {32, 152, 200, 1000, 5000, 32768, 300'000}) {
        auto* first = static_cast<std::byte*>(user.get(bytes));
        auto* second = static_cast<std::byte*>(user.get(bytes));
        CHECK(frame_pool::begins_slot(first));
        CHECK(frame_pool::begins_slot(second));
        bool between = false;
        for (std::size_t at = 8; at < bytes; at += 8)
            between = between || frame_pool::begins_slot(second + at);
        CHECK_FALSE(between);
        user.put(first, bytes);
        user.put(second, bytes);
    }
    void* object = user.get(200, slab_kind::object);
    CHECK_FALSE(frame_pool::begins_slot(object));
    CHECK_FALSE(frame_pool::begins_slot(slab::of(object)));
    CHECK_FALSE(frame_pool::begins_slot(&user));
    CHECK_FALSE(frame_pool::begins_slot(nullptr));
    user.put(object, 200, slab_kind::object);
}

TEST_CASE("frame_pool: frames and objects do not share slabs") {
    pool_user user;
    void* frame = user.get(64, slab_kind::frame);
    void* object = user.get(64, slab_kind::object);
    CHECK(slab::of(frame) != slab::of(object));
    user.put(frame, 64, slab_kind::frame);
    CHECK(user.get(64, slab_kind::object) != frame);
    user.put(object, 64, slab_kind::object);
    user.put(static_cast<std::byte*>(object) + 64, 64, slab_kind::object);
}

TEST_CASE("frame_pool: a million slots live at once, and none overlaps another") {
    pool_user user;
    const std::size_t before = live_slots();
    std::vector<void*> slots(1'000'000);
    for (std::size_t i = 0; i < slots.size(); ++i) {
        slots[i] = user.get(96);
        *static_cast<std::size_t*>(slots[i]) = i;
        write_word(slots[i], ~i);
    }
    CHECK(live_slots() == before + slots.size());
    bool intact = true;
    for (std::size_t i = 0; i < slots.size(); ++i)
        intact = intact && *static_cast<std::size_t*>(slots[i]) == i && read_word(slots[i]) == ~i;
    CHECK(intact);
    std::shuffle(slots.begin(), slots.end(), std::mt19937(1));
    const std::size_t mapped = slabs();
    for (void* slot : slots) user.put(slot, 96);
    for (void*& slot : slots) slot = user.get(96);
    CHECK(slabs() ==
          mapped);  // within the limit of kept bytes: nothing was unmapped, nothing new was needed
    for (void* slot : slots) user.put(slot, 96);
    CHECK(live_slots() == before);
}

TEST_CASE("frame_pool: what the kernel does not give is std::bad_alloc") {
    pool_user user;
    CHECK_THROWS_AS(user.get(SIZE_MAX), std::bad_alloc);
    CHECK_THROWS_AS(user.get(std::size_t{1} << 60), std::bad_alloc);
    user.put(user.get(100), 100);
}

TEST_CASE("frame_pool: a large size has a slab of its own, zero, enumerated, unmapped when freed") {
    pool_user user;
    const auto before = frame_pool::statistics();
    constexpr std::size_t bytes = 1'000'000;
    auto* slot = static_cast<unsigned char*>(user.get(bytes));
    CHECK(std::all_of(slot, slot + bytes, [](unsigned char each) { return each == 0; }));
    CHECK(slabs() == before.slabs + 1);
    CHECK(live_slots() == before.live_slots + 1);
    std::memset(slot, 7, bytes);
    unsigned seen = 0;
    frame_pool::for_each_slot([&](void* each, std::size_t size) {
        seen += each == slot && size >= bytes;
    });
    CHECK(seen == 1);
    user.put(slot, bytes);
    CHECK(frame_pool::statistics().mapped_bytes == before.mapped_bytes);

    void* elsewhere = user.get(bytes);
    on_another_thread([&] {
        pool_user other;
        other.put(elsewhere, bytes);
    });
    CHECK(slabs() == before.slabs + 1);
    user.pool->collect();
    CHECK(slabs() == before.slabs);
}

TEST_CASE("frame_pool: empty slabs beyond the limit are unmapped") {
    pool_user user;
    const std::size_t before = slabs();
    const auto fill_and_empty = [&] {
        std::vector<void*> slots(20'000);
        for (void*& slot : slots) slot = user.get(1000);
        const std::size_t full = slabs();
        for (void* slot : slots) user.put(slot, 1000);
        return full;
    };
    {
        keeping nothing(0);
        CHECK(fill_and_empty() >= before + 20'000 / 256);
        CHECK(slabs() <= before + 1);  // the current one stays
    }
    {
        keeping some(10 * slab::size);
        fill_and_empty();
        CHECK(slabs() <= before + 11);
        CHECK(slabs() >= before + 10);
        frame_pool::keep(3 * slab::size);
        user.pool->collect();
        CHECK(slabs() <= before + 4);
        CHECK(slabs() >= before + 3);
    }
    const std::size_t full = fill_and_empty();
    CHECK(slabs() == full);
}

TEST_CASE(
    "frame_pool: the live slots are known exactly while slabs become full, current and empty") {
    constexpr unsigned seed = 5;
    MESSAGE("seed " << seed);
    std::mt19937 random(seed);
    keeping little(2 * slab::size);
    pool_user user;
    pool_user other;
    const std::size_t before = live_slots();
    std::vector<void*> slots;  // of one class, four slabs of them at most
    bool exact = true;
    for (int phase = 0; phase < 40; ++phase) {
        const std::size_t aim = random() % (4 * slab::size / 480);
        while (slots.size() < aim) {
            slots.push_back(user.get(480));
            if (random() % 64 == 0) exact = exact && live_slots() == before + slots.size();
        }
        while (slots.size() > aim) {
            std::swap(slots[random() % slots.size()], slots.back());
            (random() % 8 ? user : other).put(slots.back(), 480);
            slots.pop_back();
            if (random() % 64) continue;
            other.pool->flush_returns();
            user.pool->collect();
            exact = exact && live_slots() == before + slots.size();
        }
        // From a third thread as well, while the first two rest.
        other.pool->flush_returns();
        user.pool->collect();
        on_another_thread([&] { exact = exact && live_slots() == before + slots.size(); });
    }
    CHECK(exact);
    for (void* slot : slots) user.put(slot, 480);
    CHECK(live_slots() == before);
}

TEST_CASE("frame_pool: a thread that ends leaves only slabs with live slots, also current ones") {
    pool_user user;
    const std::size_t before = slabs();
    std::vector<void*> live;
    frame_pool* orphan = nullptr;
    on_another_thread([&] {
        pool_user mine;
        orphan = mine.pool;
        for (std::size_t size = 32; size <= 1024; size += 32) {
            void* slot = mine.get(size);
            if (size % 128 == 0)
                live.push_back(slot);
            else
                mine.put(slot, size);
        }
    });
    CHECK(slabs() <= before + live.size());
    on_another_thread([&] {
        pool_user heir;
        CHECK(heir.pool == orphan);
        for (std::size_t i = 0; i < live.size(); ++i) heir.put(live[i], (i + 1) * 128);
        // What a freed current slab forgot is not handed out by the next one.
        for (std::size_t size = 32; size <= 1024; size += 32) heir.put(heir.get(size), size);
    });
    CHECK(slabs() <= before);
}

TEST_CASE("frame_pool: memory stays while a live slot lies in it") {
    keeping nothing(0);
    pool_user user;
    const std::size_t before = slabs();
    std::vector<block> blocks(10'000);
    for (std::size_t i = 0; i < blocks.size(); ++i) {
        blocks[i] = {static_cast<unsigned char*>(user.get(512)), 512,
                     static_cast<unsigned char>(i)};
        blocks[i].fill();
    }
    for (std::size_t i = 0; i < blocks.size(); ++i)
        if (i % 1000) user.put(blocks[i].slot, 512);
    for (std::size_t i = 0; i < blocks.size(); i += 1000) CHECK(blocks[i].intact());
    CHECK(slabs() >= before + 9);
    CHECK(slabs() <= before + 11);
    for (std::size_t i = 0; i < blocks.size(); i += 1000) user.put(blocks[i].slot, 512);
    CHECK(slabs() <= before + 1);
}

TEST_CASE(
    "frame_pool: a visit sees every frame slot ever handed out, live or free, once, and no "
    "object") {
    pool_user user;
    std::unordered_map<void*, unsigned> seen;
    std::vector<void*> slots;
    for (int i = 0; i < 5000; ++i) slots.push_back(user.get(320));
    void* object = user.get(320, slab_kind::object);
    for (std::size_t i = 0; i < slots.size(); i += 2) user.put(slots[i], 320);
    frame_pool::for_each_slot([&](void* slot, std::size_t size) {
        seen[slot] += slab::of(slot)->slot_size == size;
    });
    CHECK(std::all_of(slots.begin(), slots.end(), [&](void* slot) { return seen[slot] == 1; }));
    CHECK(seen.count(object) == 0);
    for (std::size_t i = 1; i < slots.size(); i += 2) user.put(slots[i], 320);
    user.put(object, 320, slab_kind::object);
}

TEST_CASE("frame_pool: a new slot is zero, and a freed one keeps all but its link") {
    pool_user user;
    auto* slot = static_cast<unsigned char*>(user.get(40'000));
    CHECK(std::all_of(slot, slot + 40'000, [](unsigned char each) { return each == 0; }));
    user.put(slot, 40'000);

    auto* small = static_cast<unsigned char*>(user.get(128));
    std::memset(small, 0x5a, 128);
    user.put(small, 128);
    CHECK(std::all_of(small + 8, small + 128, [](unsigned char each) { return each == 0x5a; }));

#ifdef TOKENGATE_ASAN
    auto* freed = static_cast<unsigned char*>(user.get(400));
    user.put(freed, 400);
    CHECK(__asan_region_is_poisoned(freed, 128) == nullptr);
    CHECK(__asan_address_is_poisoned(freed + 128));
    CHECK(__asan_address_is_poisoned(freed + 399));
    CHECK(user.get(400) == freed);
    CHECK(__asan_region_is_poisoned(freed, 400) == nullptr);
    user.put(freed, 400);
#endif
}

TEST_CASE("frame_pool: nothing is unmapped under a visit, and the pool grows during one") {
    keeping nothing(0);
    pool_user user;
    const std::size_t before = slabs();
    std::vector<void*> slots(4000);
    for (void*& slot : slots) slot = user.get(1024);
    void* large = user.get(100'000);
    for (void* slot : slots) write_word(slot, 77);
    std::size_t visited = 0;
    std::size_t intact = 0;
    frame_pool::for_each_slot([&](void* slot, std::size_t size) {
        if (visited++ == 0) {
            for (void* each : slots) user.put(each, 1024);
            user.put(large, 100'000);
            user.put(user.get(2048), 2048);
            frame_pool::for_each_slot([](void*, std::size_t) {});  // not the last reader
        }
        intact += size == 1024 && read_word(slot) == 77;
    });
    CHECK(intact >= slots.size());
    CHECK(slabs() <= before + 2);
}

TEST_CASE("frame_pool: a visitor that throws leaves nothing pinned") {
    keeping nothing(0);
    pool_user user;
    const std::size_t before = slabs();
    void* large = user.get(100'000);
    CHECK_THROWS_AS(frame_pool::for_each_slot([](void*, std::size_t) { throw 1; }), int);
    user.put(large, 100'000);
    CHECK(slabs() == before);
}

TEST_CASE("frame_pool: slots freed on another thread come home in batches") {
    pool_user user;
    const std::size_t before = live_slots();
    std::vector<void*> slots(40);
    for (void*& slot : slots) slot = user.get(64);

    SUBCASE("a full batch goes by itself, the rest when it is flushed") {
        frame_pool* other = nullptr;
        on_another_thread([&] {
            other = frame_pool::acquire();
            for (void* slot : slots) other->deallocate(slot, 64, slab_kind::frame);
        });
        CHECK(live_slots() == before + 40);
        user.pool->collect();
        CHECK(live_slots() == before + 8);
        other->flush_returns();
        other->flush_returns();
        user.pool->collect();
        CHECK(live_slots() == before);
        frame_pool::release(other);
    }
    SUBCASE("a slot of a third pool sends the batch for the second") {
        pool_user third;
        void* theirs = third.get(64);
        frame_pool* other = nullptr;
        on_another_thread([&] {
            other = frame_pool::acquire();
            for (void* slot : slots) other->deallocate(slot, 64, slab_kind::frame);
            other->deallocate(theirs, 64, slab_kind::frame);
        });
        user.pool->collect();
        CHECK(live_slots() == before + 1);
        frame_pool::release(other);
        third.pool->collect();
        CHECK(live_slots() == before);
    }
    SUBCASE("allocating takes them before anything new") {
        on_another_thread([&] {
            pool_user other;
            for (void* slot : slots) other.put(slot, 64);
        });
        std::vector<void*> again(slots.size());
        for (void*& slot : again) slot = user.get(64);
        std::sort(slots.begin(), slots.end());
        std::sort(again.begin(), again.end());
        CHECK(slots == again);
        for (void* slot : again) user.put(slot, 64);
    }
}

TEST_CASE(
    "frame_pool: slots that come home find their slab current, full, partial or about to be "
    "empty") {
    keeping nothing(0);
    pool_user user;
    const std::size_t before = live_slots();
    std::vector<void*> slots;
    for (std::size_t i = 0; i < 3 * slab::size / 160; ++i) slots.push_back(user.get(152));
    for (std::size_t i = 0; i < slots.size(); ++i) write_word(slots[i], i + 1);
    const std::size_t mapped = slabs();
    pool_user other;
    // Every second one elsewhere, newest first: of the current slab, then of full ones.
    std::size_t freed = 0;
    for (std::size_t i = slots.size(); i-- > 0;) {
        if (i % 2) continue;
        other.put(slots[i], 152);
        ++freed;
    }
    other.pool->flush_returns();
    user.pool->collect();
    CHECK(live_slots() == before + slots.size() - freed);
    bool intact = true;
    for (std::size_t i = 1; i < slots.size(); i += 2)
        intact = intact && read_word(slots[i]) == i + 1;
    CHECK(intact);
    // What came home serves; no slab is made, and none that is live is handed out.
    std::vector<void*> again(freed);
    for (void*& slot : again) slot = user.get(160);
    CHECK(slabs() == mapped);
    std::vector<void*> all = again;
    for (std::size_t i = 1; i < slots.size(); i += 2) all.push_back(slots[i]);
    std::sort(all.begin(), all.end());
    CHECK(std::adjacent_find(all.begin(), all.end()) == all.end());
    // The rest comes home as well: all slabs but the current one are empty and go.
    for (void* slot : all) other.put(slot, 152);
    other.pool->flush_returns();
    user.pool->collect();
    CHECK(live_slots() == before);
    CHECK(slabs() <= mapped - 2);
}

TEST_CASE(
    "stress: visits see each live frame once while its neighbours come and go, and slabs with "
    "them") {
    constexpr unsigned seed = 11;
    constexpr std::uint64_t magic = 0xbeef'0000'0000'0000;
    MESSAGE("seed " << seed);
    keeping little(slab::size);
    std::atomic<bool> done{false};
    std::atomic<unsigned> ready{0};
    std::vector<std::vector<void*>> pinned(2);
    std::vector<std::thread> threads;
    for (unsigned number = 0; number < 2; ++number) {
        threads.emplace_back([&, number] {
            std::mt19937 random(seed + number);
            pool_user mine;
            std::vector<std::pair<void*, std::size_t>> churn(8000);
            for (auto& [slot, bytes] : churn) {
                bytes = 32 + random() % 160;
                slot = mine.get(bytes);
                write_word(slot, 1);
                if (random() % 64) continue;
                void* stays = mine.get(bytes);
                write_word(stays, magic + number * 1000 + pinned[number].size());
                pinned[number].push_back(stays);
            }
            ++ready;
            while (!done) {
                auto& [slot, bytes] = churn[random() % churn.size()];
                write_word(slot, 0);
                mine.put(slot, bytes);
                bytes = 32 + random() % 160;
                slot = mine.get(bytes);
                write_word(slot, 1);
            }
            for (auto& [slot, bytes] : churn) {
                write_word(slot, 0);
                mine.put(slot, bytes);
            }
            // Their sizes are in the slabs: a slot goes back as what it was.
            for (void* slot : pinned[number]) {
                write_word(slot, 0);
                mine.put(slot, slab::of(slot)->slot_size);
            }
        });
    }
    while (ready != 2) std::this_thread::yield();
    bool complete = true;
    for (int visit = 0; visit < 40; ++visit) {
        std::vector<unsigned> seen(2000);
        frame_pool::for_each_slot([&](void* slot, std::size_t size) {
            if (size > 192) return;
            const std::uint64_t index = read_word(slot) - magic;
            if (index < seen.size()) ++seen[index];
        });
        for (unsigned number = 0; number < 2; ++number)
            for (std::size_t i = 0; i < pinned[number].size(); ++i)
                complete = complete && seen[number * 1000 + i] == 1;
    }
    done = true;
    for (std::thread& each : threads) each.join();
    CHECK(complete);
}

TEST_CASE("frame_pool: a pool outlives its thread and is adopted with its live slots") {
    pool_user user;
    const std::size_t pools = frame_pool::statistics().pools;
    const std::size_t before = live_slots();
    const std::size_t mapped = slabs();
    frame_pool* orphan = nullptr;
    block kept, sent;
    on_another_thread([&] {
        pool_user other;
        orphan = other.pool;
        kept = {static_cast<unsigned char*>(other.get(300)), 300, 0x11};
        sent = {static_cast<unsigned char*>(other.get(300)), 300, 0x22};
        kept.fill();
        sent.fill();
        for (int i = 0; i < 5; ++i) other.put(other.get(4096), 4096);
    });
    CHECK(slabs() <= mapped + 1);  // its empty slabs went with the thread
    CHECK(kept.intact());
    CHECK(sent.intact());
    user.put(sent.slot, 300);
    user.pool->flush_returns();
    CHECK(live_slots() == before + 2);
    on_another_thread([&] {
        pool_user other;
        CHECK(other.pool == orphan);
        other.pool->collect();
        CHECK(kept.intact());
        CHECK(live_slots() == before + 1);
        other.put(kept.slot, 300);
    });
    CHECK(live_slots() == before);
    for (int i = 0; i < 20; ++i) on_another_thread([] { pool_user other; });
    CHECK(frame_pool::statistics().pools <= pools + 1);
}

TEST_CASE("frame_pool: random sizes and lifetimes do not overlap") {
    constexpr unsigned seed = 20240611;
    MESSAGE("seed " << seed);
    std::mt19937 random(seed);
    keeping little(2 * slab::size);
    pool_user user;
    const std::size_t before = live_slots();
    std::vector<block> blocks(3000);
    bool intact = true;
    for (int i = 0; i < 200'000; ++i) {
        block& each = blocks[random() % blocks.size()];
        if (each.slot) {
            intact = intact && each.intact();
            user.put(each.slot, each.bytes);
            each = {};
            continue;
        }
        const std::size_t bytes = 16 + random() % (random() % 50   ? 400
                                                   : random() % 50 ? 5000
                                                                   : 80'000);
        each = {static_cast<unsigned char*>(user.get(bytes)), bytes,
                static_cast<unsigned char>(random())};
        each.fill();
    }
    for (block& each : blocks) {
        if (!each.slot) continue;
        intact = intact && each.intact();
        user.put(each.slot, each.bytes);
    }
    CHECK(intact);
    CHECK(live_slots() == before);
}

TEST_CASE("frame_pool: four threads free each other's slots while two visit") {
    constexpr unsigned seed = 77;
    constexpr std::uint64_t magic = 0xf00d'0000'0000'0000;
    MESSAGE("seed " << seed);
    keeping little(4 * slab::size);
    pool_user user;
    const std::size_t before = live_slots();

    std::vector<void*> pinned(1000);
    for (std::size_t i = 0; i < pinned.size(); ++i)
        write_word(pinned[i] = user.get(192), magic + i);

    std::array<std::atomic<block*>, 512>
        market{};  // blocks are objects of the pool, their slots are frames
    std::atomic<bool> intact{true};
    std::atomic<bool> complete{true};
    std::atomic<unsigned> running{4};
    std::vector<std::thread> threads;
    for (unsigned number = 0; number < 4; ++number) {
        threads.emplace_back([&, number] {
            std::mt19937 random(seed + number);
            for (int life = 0; life < 4; ++life) {
                pool_user mine;
                const auto bury = [&](block* dead) {
                    if (!dead) return;
                    if (!dead->intact()) intact = false;
                    write_word(dead->slot, 0);
                    mine.put(dead->slot, dead->bytes);
                    mine.put(dead, sizeof(block), slab_kind::object);
                };
                for (int i = 0; i < 15'000; ++i) {
                    const std::size_t bytes = 16 + random() % (random() % 500 ? 600 : 40'000);
                    auto* made = new (mine.get(sizeof(block), slab_kind::object)) block;
                    *made = {static_cast<unsigned char*>(mine.get(bytes)), bytes,
                             static_cast<unsigned char>(random())};
                    write_word(made->slot, 1);
                    made->fill();
                    bury(market[random() % market.size()].exchange(made,
                                                                   std::memory_order_acq_rel));
                    if (i % 1000 == 0) mine.pool->flush_returns();
                    if (i % 3000 == 0) mine.pool->collect();
                }
                if (number == 0 && life == 3)
                    for (auto& each : market)
                        bury(each.exchange(nullptr, std::memory_order_acq_rel));
            }
            --running;
        });
    }
    for (int number = 0; number < 2; ++number) {
        threads.emplace_back([&] {
            do {
                std::vector<unsigned> seen(pinned.size());
                frame_pool::for_each_slot([&](void* slot, std::size_t) {
                    const std::uint64_t index = read_word(slot) - magic;
                    if (index < seen.size()) ++seen[index];
                });
                if (!std::all_of(seen.begin(), seen.end(), [](unsigned each) { return each == 1; }))
                    complete = false;
                frame_pool::statistics();
            } while (running.load() != 0);
        });
    }
    for (std::thread& each : threads) each.join();
    CHECK(intact);
    CHECK(complete);

    for (auto& each : market) {
        block* dead = each.load();
        if (!dead) continue;
        CHECK(dead->intact());
        user.put(dead->slot, dead->bytes);
        user.put(dead, sizeof(block), slab_kind::object);
    }
    for (void* slot : pinned) {
        write_word(slot, 0);
        user.put(slot, 192);
    }
    user.pool->flush_returns();
    user.pool->collect();
    {
        // Whoever adopts the four pools finds what came home to them.
        std::array<pool_user, 4> heirs;
        for (pool_user& heir : heirs) heir.pool->collect();
        CHECK(live_slots() == before);
    }
}

TEST_CASE("visit_if_mapped: in a frame slab that is mapped, live or free, and nowhere else") {
    const keeping none(0);
    pool_user user;
    int visits = 0;
    const auto visit = [&visits] { ++visits; };
    void* frame = user.get(192);
    void* object = user.get(192, slab_kind::object);
    void* large = user.get(3 * slab::size);
    int local = 0;
    CHECK(frame_pool::visit_if_mapped(frame, visit));
    CHECK(frame_pool::visit_if_mapped(static_cast<char*>(frame) + 100, visit));
    CHECK(frame_pool::visit_if_mapped(large, visit));
    CHECK(visits == 3);
    CHECK_FALSE(frame_pool::visit_if_mapped(object, visit));
    CHECK_FALSE(frame_pool::visit_if_mapped(&local, visit));
    CHECK_FALSE(frame_pool::visit_if_mapped(nullptr, visit));
    CHECK(visits == 3);
    user.put(frame, 192);
    user.put(object, 192, slab_kind::object);
    user.put(large, 3 * slab::size);
    CHECK_FALSE(frame_pool::visit_if_mapped(large, visit));  // unmapped at once
    CHECK(visits == 3);
}

TEST_CASE("stress: visit_if_mapped against slabs that come and go") {
    const keeping none(0);
    std::atomic<void*> published{nullptr};
    std::atomic<bool> done{false};
    std::thread maps([&] {
        pool_user user;
        for (int i = 0; i < 3000; ++i) {
            void* frame = user.get(2 * slab::size);
            __atomic_store_n(static_cast<std::uint64_t*>(frame) + 8, 7, __ATOMIC_RELAXED);
            published.store(frame);
            user.put(frame, 2 * slab::size);
        }
        done = true;
    });
    std::uint64_t wrong = 0;
    while (!done)
        if (void* frame = published.load())
            frame_pool::visit_if_mapped(frame, [&] {
                const std::uint64_t seen =
                    __atomic_load_n(static_cast<std::uint64_t*>(frame) + 8, __ATOMIC_RELAXED);
                wrong += seen != 7 && seen != 0;
            });
    maps.join();
    CHECK(wrong == 0);
}
