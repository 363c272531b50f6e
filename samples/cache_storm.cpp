// SPDX-License-Identifier: MIT

// A cache without locks. Every entry has a sticky key: while any token of a key is in flight, all
// its tokens run on one core, one after the other. For each key, a holder token keeps the key in
// flight and submits bursts of visits to other keys. Meanwhile foreign threads submit theirs. No
// visit may run on another core than its key's holder.

#include "support/command_line.hpp"
#include "support/json.hpp"

#include <tokengate/tokengate.hpp>

#include <array>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <functional>
#include <future>
#include <latch>
#include <random>
#include <thread>
#include <vector>

namespace tg = tokengate;

namespace {

constexpr int bursts = 20, burst = 50;  // each foreign thread: how many bursts, of how many visits

/// Plain members without locks: visits do not race, because they are sticky.
struct entry {
    unsigned executor = 0;  // the one where the key's holder runs
    std::uint64_t visits = 0, misses = 0;
};

std::vector<entry> cache;
std::atomic<bool> storm_is_over{false};

void count_visit(unsigned key) {
    entry& visited = cache[key];
    ++visited.visits;
    if (tg::this_token::executor() != visited.executor) ++visited.misses;
}
const tg::operation visit{{.name = "visit", .weight = tg::weight::light},
                          tg::sticky{"entry", [](unsigned key) { return key; }},
                          count_visit};

/// The storm begins when all keys are held. No holder releases its key before the last holder has
/// made its last burst.
struct phases {
    std::latch all_held, all_done;
    explicit phases(unsigned keys) : all_held(keys), all_done(keys) {}
};

/// Keeps its key in flight, and so on this core, to the end of the storm. Before and after the
/// storm it visits only its own key.
tg::task<> visit_until_over(unsigned key, phases* storm) {
    cache[key].executor = tg::this_token::executor();
    storm->all_held.count_down();
    while (!storm->all_held.try_wait()) co_await visit(key);
    std::minstd_rand random(key + 1);
    const auto some_key = [&] { return static_cast<unsigned>(random() % cache.size()); };
    while (!storm_is_over.load(std::memory_order_relaxed))
        co_await tg::when_all(visit(some_key()), visit(some_key()), visit(some_key()), visit(key));
    storm->all_done.count_down();
    while (!storm->all_done.try_wait()) co_await visit(key);
}
const tg::operation hold{{.name = "hold", .weight = tg::weight::heavy},
                         tg::sticky{"entry", [](unsigned key, const phases*) { return key; }},
                         visit_until_over};

void storm(tg::runtime& runtime, unsigned thread) {
    std::minstd_rand random(~thread);
    for (int i = 0; i < bursts; ++i) {
        std::array<std::future<void>, burst> visits;
        for (auto& each : visits)
            each = runtime.submit(visit(static_cast<unsigned>(random() % cache.size())));
        for (auto& each : visits) each.get();
    }
}

}  // namespace

int main(int argc, char** argv) try {
    support::command_line line(
        argc, argv, "cache_storm",
        "bursts from everywhere at keys whose tokens all stay on one core each.");
    const unsigned keys =
        line.number("--keys", 1, 1'000'000, "sticky keys held in flight (default: 1000)")
            .value_or(1000);
    const unsigned threads =
        line.number("--threads", 1, 1000, "foreign threads that fire at them (default: 64)")
            .value_or(64);
    const auto cores = line.cores();
    const auto json_file = line.json_file();
    line.finish();

    cache.resize(keys);
    tg::runtime runtime{{.cores = cores}};
    runtime.start();

    phases of_the_storm(keys);
    std::vector<std::future<void>> holders;
    for (unsigned key = 0; key < keys; ++key)
        holders.push_back(runtime.submit(hold(key, &of_the_storm)));
    of_the_storm.all_held.wait();

    std::vector<std::thread> foreign;
    for (unsigned thread = 0; thread < threads; ++thread)
        foreign.emplace_back(storm, std::ref(runtime), thread);
    for (std::thread& each : foreign) each.join();
    storm_is_over = true;
    for (auto& each : holders) each.get();
    runtime.stop();

    entry sum;
    for (const entry& each : cache) {
        sum.visits += each.visits;
        sum.misses += each.misses;
    }
    const std::uint64_t fired = std::uint64_t{threads} * bursts * burst;
    const tg::snapshot after = runtime.snapshot();

    std::printf("%u keys held on %u cores, %u threads\n\n", keys, runtime.cores(), threads);
    std::printf("visits           %10llu, of these from foreign threads %llu\n",
                static_cast<unsigned long long>(sum.visits),
                static_cast<unsigned long long>(fired));
    std::printf("redirections     %10llu\n", static_cast<unsigned long long>(after.redirections));
    std::printf("misses           %10llu\n", static_cast<unsigned long long>(sum.misses));
    std::printf("left-over pins   %10llu\n", static_cast<unsigned long long>(after.pins));
    support::write_json(json_file, support::json()
                                       .add("tokens", keys + sum.visits)
                                       .add("misses", sum.misses)
                                       .add("redirections", after.redirections)
                                       .add("leftover_pins", after.pins));

    // Every key was held, so an existing pin routed every visit.
    return sum.misses == 0 && after.pins == 0 && sum.visits > fired &&
                   after.redirections == sum.visits
               ? 0
               : 1;
} catch (const std::exception& error) {
    std::fprintf(stderr, "cache_storm: %s\n", error.what());
    return 1;
}
