// SPDX-License-Identifier: MIT

// Steady state allocates nothing. A program of its own, since it counts every allocation of the process: with a
// sanitizer through its hooks, else by standing in front of the C library's functions, which operator new uses as well.

#include "support/leaks.hpp"
#include "support/sanitizers.hpp"

#include <tokengate/operation.hpp>
#include <tokengate/runtime.hpp>
#include <tokengate/when_all.hpp>

#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <utility>
#include <vector>

namespace tg = tokengate;

namespace {
std::atomic<std::uint64_t> allocations{0};  // by any thread; relaxed would do
}

#if defined(TOKENGATE_TEST_UNDER_ASAN) || defined(TOKENGATE_TEST_UNDER_TSAN)
#include <sanitizer/allocator_interface.h>

namespace {
const int hooked = __sanitizer_install_malloc_and_free_hooks(
    +[](const volatile void*, std::size_t) { allocations.fetch_add(1); },
    +[](const volatile void*) {});
}  // namespace
#elif defined(__GLIBC__)
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);

void* malloc(std::size_t bytes) {
    allocations.fetch_add(1);
    return __libc_malloc(bytes);
}
void* calloc(std::size_t count, std::size_t bytes) {
    allocations.fetch_add(1);
    return __libc_calloc(count, bytes);
}
void* realloc(void* old, std::size_t bytes) {
    allocations.fetch_add(1);
    return __libc_realloc(old, bytes);
}
void* memalign(std::size_t alignment, std::size_t bytes) {
    allocations.fetch_add(1);
    return __libc_memalign(alignment, bytes);
}
void* aligned_alloc(std::size_t alignment, std::size_t bytes) { return memalign(alignment, bytes); }
int posix_memalign(void** to, std::size_t alignment, std::size_t bytes) {
    *to = memalign(alignment, bytes);
    return *to ? 0 : ENOMEM;
}
}
#else
#define CANNOT_COUNT
#endif

namespace {

using number = std::uint64_t;

const tg::operation light{{.name = "allocation_test_light", .weight = tg::weight::light},
                          [](number n) { return n + 1; }};
const tg::operation heavy{{.name = "allocation_test_heavy", .weight = tg::weight::heavy},
                          [](number n) { return n + 1; }};
const tg::operation coroutine{{.name = "allocation_test_coroutine"},
                              [](number n) -> tg::task<number> { co_return co_await light(n); }};
const tg::operation nothing{{.name = "allocation_test_nothing", .weight = tg::weight::heavy},
                            [](number) {}};
const tg::operation sticky{{.name = "allocation_test_sticky"},
                           tg::sticky{"allocation_test"},
                           [](number n) { return n + 1; }};
const tg::operation slow{{.name = "allocation_test_slow", .storage = tg::storage::slow},
                         [](number) {}};
const tg::operation lead{{.name = "allocation_test_lead"},
                         tg::lead{"allocation_test_light"},
                         [](number n) -> tg::task<number> {
                             number last = n;
                             for (int i = 0; i < 4; ++i) last = co_await light(last);
                             co_await tg::when_all(nothing(last), nothing(last));
                             nothing(last).admit();           // detached
                             static_cast<void>(heavy(last));  // dropped unadmitted
                             co_return last;
                         }};

tg::task<number> subroutine(number n) { co_return n + 1; }

/// A round of some kind of tokens.
using round = tg::task<> (*)(number tokens);

tg::task<> tasks(number tokens) {
    for (number i = 0; i < tokens; ++i) {
        const number next = co_await subroutine(i);
        static_cast<void>(next);
    }
}

/// Awaits one after the other.
template <const auto& Operation>
tg::task<> awaited(number tokens) {
    for (number i = 0; i < tokens; ++i) {
        auto token = Operation(i);
        co_await token;
    }
}

/// Admits all, then awaits them; admits and drops; makes and drops. At most so many at a time, as in any steady state.
constexpr number wave = 500;
tg::task<> admitted(number tokens) {
    std::array<tg::token<number>, wave> kept;
    for (number done = 0; done < tokens; done += 2 * wave) {
        for (number i = 0; i < wave; ++i) {
            kept[i] = i % 2 == 0 ? heavy(i) : coroutine(i);
            kept[i].admit();
            nothing(i).admit();
            static_cast<void>(nothing(i));
        }
        for (auto& each : kept) {
            const number result = co_await each;
            static_cast<void>(result);
        }
    }
}

/// All at once, in a vector that is made before anybody counts.
std::vector<std::vector<tg::token<void>>> vectors;
tg::task<> grouped(number) {
    for (auto& tokens : vectors) {
        for (number i = 0; i < wave; ++i) tokens.push_back(nothing(i));
        auto all = tg::when_all(std::move(tokens));
        co_await std::move(all);
    }
}

tg::task<> storage(number tokens) {
    std::array<tg::token<void>, wave> kept;
    for (number done = 0; done < tokens; done += wave) {
        for (number i = 0; i < wave; ++i) {
            kept[i] = slow(i);
            kept[i].admit();
        }
        for (auto& each : kept) co_await each;
    }
}

/// Allocations, and slabs of frames, that `tokens` of a kind take once everything is warm.
struct cost {
    std::uint64_t allocations;
    std::size_t slabs;
};
cost steady_cost(round run_round, number tokens,
                 const tg::runtime_options& options = {.cores = 2}) {
    const auto make_vectors = [&] {
        vectors.clear();
        vectors.resize(tokens / wave);
        for (auto& each : vectors) each.reserve(wave);
    };
    tg::runtime runtime(options);
    cost found{};
    runtime.run([&]() -> tg::task<> {
        // Warm: what lies in queues at a time differs from round to round, so several.
        for (int warm = 0; warm < 5; ++warm) {
            make_vectors();
            co_await run_round(tokens);
        }
        // Which core begins how many differs, too, and each has frames of its own: so until a round takes no slab. Nothing else
        // may be allocated in any of them.
        constexpr int most_rounds = 20;
        for (int measured = 0; measured < most_rounds; ++measured) {
            make_vectors();
            const std::size_t slabs = tg::detail::frame_pool::statistics().slabs;
            const std::uint64_t before = allocations;
            co_await run_round(tokens);
            found.allocations += allocations - before;
            found.slabs = tg::detail::frame_pool::statistics().slabs - slabs;
            if (found.slabs == 0) break;
        }
        vectors.clear();
    });
    return found;
}

}  // namespace

#ifndef CANNOT_COUNT
TEST_SUITE("allocation") {
    TEST_CASE("the counter counts") {
        const std::uint64_t before = allocations;
        int* volatile one = new int(1);  // volatile: a compiler leaves out what nobody looks at
        void* volatile aligned = std::aligned_alloc(64, 64);
        void* volatile cleared = std::calloc(1, 64);
        CHECK(allocations >= before + 2);  // ThreadSanitizer's hooks do not hear of aligned ones
        delete one;
        std::free(aligned);
        std::free(cleared);
    }

    TEST_CASE("steady state allocates nothing") {
        constexpr number many = tg::test::under_tsan ? 20'000 : 100'000;
        const std::pair<const char*, round> kinds[] = {
            {"tasks", tasks},
            {"awaited", awaited<light>},
            {"awaited coroutines with a child", awaited<coroutine>},
            {"leads with conducted children", awaited<lead>},
            {"sticky", awaited<sticky>},
            {"admitted, kept, dropped, never admitted", admitted},
            {"when_all", grouped},
            {"with permits", storage},
        };
        for (const auto& [name, kind] : kinds) {
            CAPTURE(name);
            // One after the other, every token crosses to a core and back: fewer of them.
            const bool one_by_one =
                kind != tasks && kind != admitted && kind != grouped && kind != storage;
            const cost found = steady_cost(kind, one_by_one ? many / 10 : many);
            CHECK(found.allocations == 0);
            CHECK(found.slabs == 0);
        }
    }

    TEST_CASE("inside of a conducted chain, too: 100,000 children of one lead") {
        static const tg::operation long_lead{
            {.name = "allocation_test_long_lead"},
            tg::lead{"allocation_test_light", "allocation_test_nothing"},
            [](number n) -> tg::task<std::uint64_t> {
                const std::uint64_t before = allocations;
                for (number i = 0; i < n; ++i) {
                    const number next = co_await light(i);
                    static_cast<void>(next);
                    if (i % 64 == 0) co_await tg::when_all(nothing(i), nothing(i));
                }
                co_return allocations - before;
            }};
        tg::runtime runtime{{.cores = 1}};
        runtime.run([]() -> tg::task<> {
            const std::uint64_t warm = co_await long_lead(1000);
            static_cast<void>(warm);
            const std::uint64_t found = co_await long_lead(100'000);
            CHECK(found == 0);
        });
    }
}
#endif
