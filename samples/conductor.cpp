// SPDX-License-Identifier: MIT

// Leads and their descendants. Every descendant must run on its lead's core and inherit its lead's
// seed, however it was spawned, and no domain may outlive its tokens. Afterwards the same chains
// run unconducted, for comparison.
//
//     lead ─┬─ 2 children, awaited one by one
//           ├─ 3 children, awaited together
//           ├─ 1 child, admitted and dropped: runs unawaited
//           ├─ 1 child, returned: the lead's caller awaits it
//           ├─ 1 child, returned: the lead's caller drops it, so it never runs
//           └─ 1 lead inside, with a seed of its own ── 4 grandchildren
//
//     child ─┬─ 1 grandchild, awaited
//            ├─ 2 grandchildren, awaited together
//            ├─ 1 grandchild, admitted and dropped
//            └─ 1 grandchild, dropped before it was admitted: never runs

#include "support/command_line.hpp"
#include "support/json.hpp"

#include <tokengate/tokengate.hpp>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

namespace tg = tokengate;

namespace {

constexpr unsigned descendants = 7 * 5 + 5;  // of each lead; without those that never run
constexpr unsigned rounds = 5;               // of each kind, to measure the throughput

/// The state that a lead and all its descendants share. Conducted tokens of one lead never run at
/// the same time. The counters are atomic so that they stay right if that is violated, and for the
/// unconducted chains, where tokens do run at the same time.
struct alignas(64) family {
    bool with_seed = false;
    unsigned executor = 0;
    std::string seed;
    std::atomic<unsigned> seen{0}, core_misses{0}, seed_misses{0};

    void found_here() {  // called by the lead
        executor = tg::this_token::executor();
        if (with_seed) seed = tg::this_token::seed();
        meet();
    }
    void meet() {
        ++seen;
        if (tg::this_token::executor() != executor) ++core_misses;
        if (with_seed && tg::this_token::seed() != seed) ++seed_misses;
    }
};

/// The family of a lead, and that of the lead inside its chain.
struct household {
    family outer, inner;
    bool conducted = false;
};

/// The children that a lead made, did not admit, and returns to its caller.
struct legacy {
    tg::token<> to_await;
    tg::token<> to_drop;
};

// ---- the operations -----------------------------------------------------------------------------

void meet(family* of) { of->meet(); }
const tg::operation grandchild{{.name = "grandchild", .weight = tg::weight::heavy}, meet};

tg::task<> meet_and_spawn(family* of) {
    of->meet();
    co_await grandchild(of);
    co_await tg::when_all(grandchild(of), grandchild(of));
    grandchild(of).admit();
    const auto dropped = grandchild(of);
}
const tg::operation child{{.name = "child", .weight = tg::weight::heavy}, meet_and_spawn};

tg::task<> inner_chain(household* home) {
    family* own = &home->inner;
    own->found_here();
    if (own->executor != home->outer.executor) ++own->core_misses;
    for (int i = 0; i < 4; ++i) co_await grandchild(own);
}
const tg::operation inner_lead{
    {.name = "inner_lead", .weight = tg::weight::heavy}, tg::lead{"grandchild"}, inner_chain};
const tg::operation inner_free{{.name = "inner_free", .weight = tg::weight::heavy}, inner_chain};

tg::task<legacy> chain(household* home) {
    family* own = &home->outer;
    own->found_here();
    for (int i = 0; i < 2; ++i) co_await child(own);
    co_await tg::when_all(child(own), child(own), child(own));
    child(own).admit();
    auto inside = home->conducted ? inner_lead(home) : inner_free(home);
    co_await inside;
    legacy left{child(own), child(own)};
    co_return left;
}
const tg::operation lead{
    {.name = "lead", .weight = tg::weight::heavy}, tg::lead{"child", "inner_lead"}, chain};
// The same without a lead: the router places its tokens freely.
const tg::operation free_chain{{.name = "free_chain", .weight = tg::weight::heavy}, chain};

// ---- a run --------------------------------------------------------------------------------------

tg::task<> run_chains(std::vector<household>& households) {
    std::vector<tg::token<legacy>> leads;
    leads.reserve(households.size());
    for (household& each : households)
        leads.push_back(each.conducted ? lead(&each) : free_chain(&each));

    std::vector<legacy> left = co_await tg::when_all(std::move(leads));

    std::vector<tg::token<>> children;
    children.reserve(left.size());
    for (legacy& each : left) children.push_back(std::move(each.to_await));
    co_await tg::when_all(std::move(children));
}

struct tally {
    std::uint64_t tokens = 0, core_misses = 0, seed_misses = 0, seed_clashes = 0;
    std::chrono::duration<double> elapsed{};

    tally& operator+=(const tally& other) {
        tokens += other.tokens;
        core_misses += other.core_misses;
        seed_misses += other.seed_misses;
        seed_clashes += other.seed_clashes;
        elapsed += other.elapsed;
        return *this;
    }
    [[nodiscard]] double tok_per_s() const { return static_cast<double>(tokens) / elapsed.count(); }
};

tally run(tg::runtime& runtime, unsigned leads, bool conducted, bool with_seed) {
    std::vector<household> households(leads);
    for (household& each : households) {
        each.conducted = conducted;
        each.outer.with_seed = each.inner.with_seed = with_seed;
    }
    tally sum;
    const auto began = std::chrono::steady_clock::now();
    // Returns when the tokens that were admitted and dropped have ended, too.
    runtime.run(run_chains(households));
    sum.elapsed = std::chrono::steady_clock::now() - began;

    std::unordered_set<std::string_view> seeds;
    for (const household& each : households) {
        for (const family* one : {&each.outer, &each.inner}) {
            sum.tokens += one->seen;
            sum.core_misses += one->core_misses;
            sum.seed_misses += one->seed_misses;
            if (with_seed && !seeds.insert(one->seed).second) ++sum.seed_clashes;
        }
    }
    return sum;
}

void print_fidelity(const char* what, std::uint64_t misses, std::uint64_t of) {
    std::printf("%-16s %8.4f %%, %llu of %llu missed\n", what,
                100.0 * (1.0 - static_cast<double>(misses) / static_cast<double>(of)),
                static_cast<unsigned long long>(misses), static_cast<unsigned long long>(of));
}

}  // namespace

int main(int argc, char** argv) try {
    support::command_line line(
        argc, argv, "conductor",
        "leads whose descendants all stay on their core, and bear their seed.");
    const unsigned leads =
        line.number("--leads", 1, 1'000'000, "how many, 40 descendants each (default: 1000)")
            .value_or(1000);
    const auto cores = line.cores();
    const auto json_file = line.json_file();
    line.finish();

    tg::runtime runtime{{.cores = cores}};
    const tally checked = run(runtime, leads, true, true);

    // These runs do not read the seeds, because only the conducted chains would pay for their
    // SHA-256. The two kinds alternate, so that other programs disturb both alike.
    tally conducted, unconducted;
    for (unsigned round = 0; round < rounds; ++round) {
        conducted += run(runtime, leads, true, false);
        unconducted += run(runtime, leads, false, false);
    }
    const std::uint64_t leaked_domains = runtime.snapshot().domains;
    const std::uint64_t core_misses = checked.core_misses + conducted.core_misses;

    std::printf("%u leads with %u descendants each on %u cores\n\n", leads, descendants,
                runtime.cores());
    print_fidelity("core fidelity", core_misses, checked.tokens + conducted.tokens);
    print_fidelity("seed fidelity", checked.seed_misses, checked.tokens);
    print_fidelity("seed uniqueness", checked.seed_clashes, 2 * std::uint64_t{leads});
    std::printf("leaked domains   %8llu\n\n", static_cast<unsigned long long>(leaked_domains));
    std::printf("conducted        %.0f tok/s\n", conducted.tok_per_s());
    std::printf(
        "unconducted      %.0f tok/s, %.1f %% of the tokens on another core than the first of "
        "their chain\n",
        unconducted.tok_per_s(),
        100.0 * static_cast<double>(unconducted.core_misses) /
            static_cast<double>(unconducted.tokens));
    support::write_json(json_file, support::json()
                                       .add("tokens", checked.tokens)
                                       .add("core_misses", core_misses)
                                       .add("seed_misses", checked.seed_misses)
                                       .add("seed_clashes", checked.seed_clashes)
                                       .add("leaked_domains", leaked_domains)
                                       .add("conducted_tok_per_s", conducted.tok_per_s())
                                       .add("free_tok_per_s", unconducted.tok_per_s()));

    const std::uint64_t expected = std::uint64_t{leads} * (1 + descendants);
    if (checked.tokens != expected || conducted.tokens != rounds * expected ||
        unconducted.tokens != rounds * expected) {
        std::printf("\nSome tokens did not run, or not once: %llu of %llu when checked\n",
                    static_cast<unsigned long long>(checked.tokens),
                    static_cast<unsigned long long>(expected));
        return 1;
    }
    return core_misses + checked.seed_misses + checked.seed_clashes + leaked_domains == 0 ? 0 : 1;
} catch (const std::exception& error) {
    std::fprintf(stderr, "conductor: %s\n", error.what());
    return 1;
}
