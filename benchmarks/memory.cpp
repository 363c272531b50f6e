// SPDX-License-Identifier: MIT

/// What a token takes. A million of them at a time
///
///   made         suspended at admission, nobody has run
///   admitted     and waiting at the gate for a core that has room
///   started      each suspended inside its body
///
/// with the bytes a token that the frame pool has mapped, and by which the process has grown (the handles apart).
/// `steady` counts what the path allocates once it is warm, by standing in front of malloc: nothing, or the benchmark
/// fails. `frame` shows the frame of each kind of operation, and the slot it lies in.

#include "support/in_token.hpp"

#include <tokengate/tokengate.hpp>

#include <benchmark/benchmark.h>

#include <unistd.h>
#include <atomic>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace tg = tokengate;

// ---- malloc, counted ------------------------------------------------------------------------------------------------

namespace {
std::atomic<std::uint64_t> allocations{0};
}

extern "C" {
void* __libc_malloc(std::size_t) noexcept;
void* __libc_calloc(std::size_t, std::size_t) noexcept;
void* __libc_realloc(void*, std::size_t) noexcept;
void* __libc_memalign(std::size_t, std::size_t) noexcept;

// operator new comes here as well.
void* malloc(std::size_t bytes) noexcept {
    allocations.fetch_add(1, std::memory_order_relaxed);
    return __libc_malloc(bytes);
}
void* calloc(std::size_t count, std::size_t bytes) noexcept {
    allocations.fetch_add(1, std::memory_order_relaxed);
    return __libc_calloc(count, bytes);
}
void* realloc(void* old, std::size_t bytes) noexcept {
    allocations.fetch_add(1, std::memory_order_relaxed);
    return __libc_realloc(old, bytes);
}
void* aligned_alloc(std::size_t alignment, std::size_t bytes) noexcept {
    allocations.fetch_add(1, std::memory_order_relaxed);
    return __libc_memalign(alignment, bytes);
}
}

// ---- frames, measured -----------------------------------------------------------------------------------------------

namespace {

std::size_t frame_bytes = 0;  // of the last frame of a measured callable

/// Adds nothing to the promise but a look at what is asked for.
template <class T>
struct measuring_promise : tg::detail::promise<T> {
    static void* operator new(std::size_t bytes) {
        frame_bytes = bytes;
        return tg::detail::allocate_frame(bytes);
    }
};

struct int_of_int;
struct void_of_nothing;
struct coroutine;
struct awaits_task;
struct awaits_token;

template <class Callable, class... Any>
concept one_of = (std::is_same_v<Callable, Any> || ...);

template <class Callable>
concept measured = one_of<std::remove_cvref_t<std::remove_pointer_t<Callable>>, int_of_int,
                          void_of_nothing, coroutine, awaits_task, awaits_token>;

}  // namespace

/// An ordinary function runs in a coroutine of the operation's, whose first parameter is the callable's address.
template <class T, measured Callable, class... Arguments>
struct std::coroutine_traits<tg::task<T>, Callable, Arguments...> {
    using promise_type = measuring_promise<T>;
};

namespace {

const tg::operation child{{.name = "child"}, [](int n) { return n + 1; }};
tg::task<int> subroutine(int n) { co_return n + 1; }

struct int_of_int {
    int operator()(int n) const { return n + 1; }
};
struct void_of_nothing {
    void operator()() const {}
};
struct coroutine {
    tg::task<int> operator()(int n) const { co_return n + 1; }
};
struct awaits_task {
    tg::task<int> operator()(int n) const { co_return co_await subroutine(n); }
};
struct awaits_token {
    tg::task<int> operator()(int n) const { co_return co_await child(n); }
};

template <class Callable, int... arguments>
void frame(benchmark::State& state) {
    const tg::operation measured_here{{.name = "measured"}, Callable{}};
    for (auto _ : state) {
        auto token = measured_here(arguments...);
        benchmark::DoNotOptimize(token.valid());
    }
    using pool = tg::detail::frame_pool;
    state.counters["bytes"] = static_cast<double>(frame_bytes);
    state.counters["slot_bytes"] =
        static_cast<double>(pool::class_size(pool::class_of(frame_bytes)));
}

// ---- a million tokens -----------------------------------------------------------------------------------------------

constexpr std::size_t many = 1'000'000;

std::size_t resident_bytes() {
    std::FILE* file = std::fopen("/proc/self/statm", "r");
    if (!file) return 0;
    std::size_t pages = 0, resident = 0;
    const int read = std::fscanf(file, "%zu %zu", &pages, &resident);
    std::fclose(file);
    return read == 2 ? resident * static_cast<std::size_t>(sysconf(_SC_PAGESIZE)) : 0;
}

class grown {
public:
    void report(benchmark::State& state) const {
        const auto now = tg::detail::frame_pool::statistics();
        state.counters["mapped_bytes"] =
            (static_cast<double>(now.mapped_bytes) - static_cast<double>(before_.mapped_bytes)) /
            many;
        state.counters["resident_bytes"] =
            (static_cast<double>(resident_bytes()) - static_cast<double>(resident_)) / many;
        if (now.live_slots - before_.live_slots < many)
            state.SkipWithError("there are fewer frames than tokens");
    }

private:
    tg::detail::frame_pool_statistics before_ = tg::detail::frame_pool::statistics();
    std::size_t resident_ = resident_bytes();
};

tg::task<void> check_sum(benchmark::State& state, std::vector<tg::token<int>> tokens) {
    auto all = tg::when_all(std::move(tokens));
    const std::vector<int> results = co_await std::move(all);
    std::size_t right = 0;
    for (std::size_t i = 0; i < results.size(); ++i) right += results[i] == static_cast<int>(i) + 1;
    if (right != many) state.SkipWithError("wrong results");
}

tg::task<void> made_body(benchmark::State& state, const tg::runtime&) {
    for (auto _ : state) {
        std::vector<tg::token<int>> tokens(many);
        const grown since;
        for (std::size_t i = 0; i < many; ++i) tokens[i] = child(static_cast<int>(i));
        since.report(state);
        co_await check_sum(state, std::move(tokens));
    }
}

std::atomic<int> occupied{0};  // 1: the core is; 0: it may go on

const tg::operation occupy{{.name = "occupy"}, [] {
                               occupied.store(1, std::memory_order_release);
                               occupied.notify_one();
                               occupied.wait(1, std::memory_order_acquire);
                           }};

tg::task<void> admitted_body(benchmark::State& state, const tg::runtime&) {
    for (auto _ : state) {
        std::vector<tg::token<int>> tokens(many);
        tg::token<void> occupier = occupy();
        const grown since;
        occupier.admit();  // leaves in the first chain, and so comes first
        for (std::size_t i = 0; i < many; ++i) {
            tokens[i] = child(static_cast<int>(i));
            tokens[i].admit();
        }
        since.report(state);
        occupied.wait(0, std::memory_order_acquire);
        occupied.store(0, std::memory_order_release);
        occupied.notify_one();
        co_await occupier;
        co_await check_sum(state, std::move(tokens));
    }
}

/// Where tokens of one core wait until another token there lets them go on.
class meeting {
public:
    struct arrival {
        meeting& at;
        std::coroutine_handle<> waiting{};
        arrival* next = nullptr;

        bool await_ready() const noexcept { return false; }
        void await_suspend(std::coroutine_handle<> arrived) noexcept {
            waiting = arrived;
            next = std::exchange(at.last_, this);
            at.present_.fetch_add(1, std::memory_order_relaxed);
        }
        void await_resume() const noexcept {}
    };

    arrival arrive() noexcept { return {*this}; }
    void dismiss() noexcept {
        present_.store(0, std::memory_order_relaxed);
        for (arrival* each = std::exchange(last_, nullptr); each;) {
            arrival* next = each->next;
            each->waiting.resume();
            each = next;
        }
    }
    [[nodiscard]] std::size_t present() const noexcept {
        return present_.load(std::memory_order_relaxed);
    }

private:
    arrival* last_ = nullptr;
    std::atomic<std::size_t> present_{0};
};

meeting place;

const tg::operation attend{{.name = "attend"}, [](int n) -> tg::task<int> {
                               co_await place.arrive();
                               co_return n + 1;
                           }};
const tg::operation dismiss{{.name = "dismiss"}, [] { place.dismiss(); }};

tg::task<void> started_body(benchmark::State& state, const tg::runtime&) {
    for (auto _ : state) {
        std::vector<tg::token<int>> tokens(many);
        const grown since;
        for (std::size_t i = 0; i < many; ++i) {
            tokens[i] = attend(static_cast<int>(i));
            tokens[i].admit();
        }
        co_await child(0);  // one core, one class: it starts after all of them
        since.report(state);
        if (place.present() != many) state.SkipWithError("not every token has started");
        co_await dismiss();
        co_await check_sum(state, std::move(tokens));
    }
}

/// On a thread of its own: its frame pool is empty, so that all it maps is for the tokens.
void on_new_thread(benchmark::State& state,
                   tg::task<void> (*body)(benchmark::State&, const tg::runtime&)) {
    std::thread([&] { in_main(state, body, {.cores = 1}); }).join();
}

void made(benchmark::State& state) { on_new_thread(state, made_body); }
void admitted(benchmark::State& state) { on_new_thread(state, admitted_body); }
void started(benchmark::State& state) { on_new_thread(state, started_body); }

// ---- the steady state -----------------------------------------------------------------------------------------------

const tg::operation nothing{{.name = "nothing"}, [] {}};
const tg::operation chain{{.name = "chain"}, tg::lead{"child"}, [](int length) -> tg::task<int> {
                              int n = 0;
                              for (int i = 0; i < length; ++i) n = co_await child(n);
                              co_return n;
                          }};

tg::task<void> steady_body(benchmark::State& state, const tg::runtime&) {
    constexpr int each = 20'000;
    std::uint64_t allocated = 0;
    std::int64_t mapped = 0;
    for (auto _ : state) {
        for (bool warm : {false, true}) {
            std::vector<tg::token<void>> tokens;
            tokens.reserve(each);
            const std::uint64_t allocations_before = allocations.load(std::memory_order_relaxed);
            const std::size_t mapped_before = tg::detail::frame_pool::statistics().mapped_bytes;
            int n = 0;
            for (int i = 0; i < each; ++i) n = co_await child(n);
            n += co_await chain(each);
            for (int i = 0; i < each; ++i) tokens.push_back(nothing());
            {
                auto all = tg::when_all(std::move(tokens));
                co_await all;
            }
            if (n != 2 * each) state.SkipWithError("wrong results");
            if (!warm) continue;
            allocated += allocations.load(std::memory_order_relaxed) - allocations_before;
            mapped += static_cast<std::int64_t>(tg::detail::frame_pool::statistics().mapped_bytes -
                                                mapped_before);
        }
    }
    state.counters["allocations_per_token"] = static_cast<double>(allocated) / (3.0 * each);
    state.counters["mapped_bytes_per_token"] = static_cast<double>(mapped) / (3.0 * each);
    if (allocated != 0) state.SkipWithError("the path allocates in steady state");
}

void steady(benchmark::State& state) { in_main(state, steady_body); }

BENCHMARK(made)->Iterations(1)->Unit(benchmark::kMillisecond);
BENCHMARK(admitted)->Iterations(1)->Unit(benchmark::kMillisecond);
BENCHMARK(started)->Iterations(1)->Unit(benchmark::kMillisecond);
BENCHMARK(steady)->Iterations(1)->Unit(benchmark::kMillisecond);
BENCHMARK(frame<int_of_int, 1>);
BENCHMARK(frame<void_of_nothing>);
BENCHMARK(frame<coroutine, 1>);
BENCHMARK(frame<awaits_task, 1>);
BENCHMARK(frame<awaits_token, 1>);

}  // namespace

BENCHMARK_MAIN();
