// SPDX-License-Identifier: MIT

// What a compiler's optimisation could break, as a program that is built at every level and with link-time
// optimisation: a token sees one thread and one set of thread-locals for its whole life, and a million awaits that
// complete at once do not use up a stack of 256 KiB. Exits 1, saying what went wrong.

#include <tokengate/tokengate.hpp>

#include <pthread.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

namespace tg = tokengate;

namespace {

thread_local int visits = 0;
std::atomic<int> strayed{0};

tg::task<int> plain(int n) { co_return n; }

const tg::operation hop{{.name = "hop", .weight = tg::weight::heavy}, [](int n) { return n + 1; }};

/// Reads its thread's identity and a thread-local before and after each await, as code that caches their addresses would.
tg::task<int> wander(int rounds) {
    const std::thread::id home = std::this_thread::get_id();
    const int* const mine = &visits;
    int n = 0;
    for (int i = 0; i < rounds; ++i) {
        ++visits;
        const int before = visits;
        n = co_await hop(n);
        n = co_await plain(n);
        if (std::this_thread::get_id() != home || &visits != mine || visits < before) ++strayed;
    }
    co_return n;
}

const tg::operation wanderer{{.name = "wanderer", .weight = tg::weight::heavy}, wander};
const tg::operation child{{.name = "child"}, [](int n) { return n + 1; }};

tg::task<int> many_at_once(int count) {
    int n = 0;
    for (int i = 0; i < count; ++i) n = co_await plain(n) + 1;
    co_return n;
}

tg::task<int> many_children(int count) {
    int n = 0;
    for (int i = 0; i < count; ++i) n = co_await child(n);
    co_return n;
}

const tg::operation chain{{.name = "chain"}, tg::lead{"child"}, many_children};

tg::task<int> deep(int levels) {
    if (levels == 0) co_return 0;
    const int below = co_await deep(levels - 1);
    co_return below + 1;
}

tg::task<int> all() {
    std::vector<tg::token<int>> tokens;
    for (int i = 0; i < 64; ++i) tokens.push_back(wanderer(200));
    int sum = 0;
    for (const int n : co_await tg::when_all(std::move(tokens))) sum += n;
    const int million = co_await many_at_once(1'000'000);
    const int children = co_await chain(1'000'000);
    const int levels = co_await deep(20'000);
    const bool right =
        sum == 64 * 200 && million == 1'000'000 && children == 1'000'000 && levels == 20'000;
    if (!right) std::printf("wrong results: %d %d %d %d\n", sum, million, children, levels);
    if (strayed != 0)
        std::printf("%d times a token found itself on another thread\n", strayed.load());
    co_return right&& strayed == 0 ? 0 : 1;
}

void* run_on_a_small_stack(void*) {
    tg::runtime runtime{{.cores = 4}};
    static int status;
    status = runtime.run(all);
    return &status;
}

}  // namespace

int main() {
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 256 * 1024);
    pthread_t thread;
    if (pthread_create(&thread, &attributes, run_on_a_small_stack, nullptr) != 0) return 2;
    void* status = nullptr;
    pthread_join(thread, &status);
    return *static_cast<int*>(status);
}
