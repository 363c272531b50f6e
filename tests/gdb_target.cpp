// SPDX-License-Identifier: MIT

// What tests/gdb.sh looks into: a population of tokens that stands still, and what the program itself says of it. A line for
// each: `alive ID STATE CORE AWAITER DOMAIN`; and `chain SEQUENCE NAME...` for one and who awaits it, up to the root.
// With the argument `abort` it aborts then, else it waits.

#include "lifecycle/runtime_core.hpp"

#include <tokengate/tokengate.hpp>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <future>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace tg = tokengate;

// gdb stops here. Not inlined and with external linkage: it must be found in a release build, too.
extern "C" [[gnu::noinline]] void population_stands() { asm volatile("" ::: "memory"); }

namespace {

/// What only the bodies know, by sequence.
struct {
    std::mutex mutex;
    std::map<std::uint64_t, std::string> domain;
    std::vector<tg::token_id> held;  // made and kept, not admitted

    void in_domain(const tg::token_id& who, const tg::token_id& lead) {
        const std::scoped_lock lock(mutex);
        domain[who.sequence] = lead.text();
    }
} known;

std::atomic<int> resting{0};
std::atomic<bool> quick_ran{false};

tg::task<> rest() {
    ++resting;
    co_await tg::sleep_for(std::chrono::hours(1));
}

// ---- a token for each way to wait ---------------------------------------------------------------------------------------

const tg::operation sleeper{{.name = "sleeper"}, []() -> tg::task<> { co_await rest(); }};
const tg::operation storing{{.name = "storing", .storage = tg::storage::slow},
                            []() -> tg::task<> { co_await rest(); }};
const tg::operation family{{.name = "family"}, []() -> tg::task<> {
                               std::vector<tg::token<>> children;
                               for (int i = 0; i < 3; ++i) children.push_back(sleeper());
                               co_await tg::when_all(std::move(children));
                           }};
const tg::operation quick{{.name = "quick"}, [] { quick_ran = true; }};

// ---- a conducted chain, whose last link keeps one that it has not admitted ----------------------------------------------

tg::task<> innermost_body(tg::token_id lead);
tg::task<> middle_body(tg::token_id lead);
tg::task<> outermost_body();
const tg::operation innermost{{.name = "innermost"}, innermost_body};
const tg::operation middle{{.name = "middle"}, middle_body};
const tg::operation outermost{{.name = "outermost"}, tg::lead{"middle"}, outermost_body};

tg::task<> innermost_body(tg::token_id lead) {
    const tg::token<> later = sleeper();
    known.in_domain(tg::this_token::id(), lead);
    known.in_domain(later.id(), lead);
    {
        const std::scoped_lock lock(known.mutex);
        known.held.push_back(later.id());
    }
    co_await rest();
}
tg::task<> middle_body(tg::token_id lead) {
    known.in_domain(tg::this_token::id(), lead);
    co_await innermost(lead);
}
tg::task<> outermost_body() {
    known.in_domain(tg::this_token::id(), tg::this_token::id());
    co_await middle(tg::this_token::id());
}

// ---- handles ------------------------------------------------------------------------------------------------------------

const tg::operation detached{{.name = "detached"}, rest};
const tg::operation kept{{.name = "kept", .weight = tg::weight::heavy}, rest};
const tg::operation holder{{.name = "holder"}, []() -> tg::task<> {
                               detached().admit();
                               tg::token<> running = kept();
                               running.admit();
                               tg::token<> over = quick();
                               over.admit();
                               co_await rest();
                           }};

const tg::operation every_core{
    {.name = "every_core"}, []() -> tg::task<> {
        std::vector<tg::token<>> each;
        for (unsigned core = 0; core < 2; ++core)
            each.push_back(tg::as_token([]() -> tg::task<> { co_return; }(), core));
        co_await tg::when_all(std::move(each));
    }};

tg::task<> around_a_token() { co_await sleeper(); }
tg::task<> main_body() { co_await around_a_token(); }

// ---- what the program says of them --------------------------------------------------------------------------------------

std::size_t count(const std::vector<tg::token_info>& tokens, tg::token_state state) {
    std::size_t found = 0;
    for (const tg::token_info& each : tokens) found += each.state == state;
    return found;
}

/// What the table says where no token awaits.
std::string without_awaiter(const tg::token_info& token) {
    if (token.id.operation == "main") return "(run)";
    if (token.id.operation == "detached") return "(detached)";
    if (token.id.operation == "kept") return "(handle)";
    return "(future)";
}

void print(const tg::token_info& token, const std::map<std::uint64_t, tg::token_info>& all) {
    const bool routed =
        token.state == tg::token_state::executing || token.state == tg::token_state::admitted;
    const std::string core = token.core != tg::control_core ? std::to_string(token.core)
                             : routed                       ? "control"
                                                            : "-";
    const std::string awaiter = token.awaited_by_sequence
                                    ? all.at(token.awaited_by_sequence).id.text()
                                    : without_awaiter(token);
    const auto domain = known.domain.find(token.id.sequence);
    std::printf("alive %s %s %s %s %s\n", token.id.text().c_str(),
                std::string(name_of(token.state)).c_str(), core.c_str(), awaiter.c_str(),
                domain == known.domain.end() ? "-" : domain->second.c_str());
}

/// Those that are merely held print themselves: `known` has them, wherever they were made.
std::vector<tg::token_info> admitted(const tg::runtime& of) {
    std::vector<tg::token_info> found = of.tokens();
    std::erase_if(found, [](const tg::token_info& each) {
        return each.state == tg::token_state::created;
    });
    return found;
}

}  // namespace

/// Brings the types of the library into this program's debug information: the library itself may have none.
[[gnu::used]] tokengate::detail::runtime_core* types_for_gdb = nullptr;

int main(int argc, char** argv) {
    std::setvbuf(stdout, nullptr, _IOLBF, 0);
    tg::runtime_options options{.cores = 2};
    options.storage.slow = 1;
    tg::runtime runtime(options);
    runtime.start();
    tg::runtime other({.cores = 2, .workers_per_core = 2});
    std::thread([&] { other.run(main_body); }).detach();

    const tg::token<> unused = sleeper();
    known.held.push_back(unused.id());
    std::vector<std::future<void>> results;
    for (int i = 0; i < 2; ++i) results.push_back(runtime.submit(storing()));
    results.push_back(runtime.submit(sleeper()));
    results.push_back(runtime.submit(family()));
    results.push_back(runtime.submit(outermost()));
    results.push_back(runtime.submit(holder()));

    // storing, sleeper, family with 3, a chain of 3, holder, detached, kept; another of storing waits.
    constexpr std::size_t executing = 1 + 1 + 4 + 3 + 3;
    std::vector<tg::token_info> tokens;
    std::vector<tg::token_info> others;
    do {
        std::this_thread::yield();
        tokens = admitted(runtime);
        others = admitted(other);
    } while (tokens.size() != executing + 1 ||
             count(tokens, tg::token_state::executing) != executing ||
             count(tokens, tg::token_state::waiting) != 1 ||
             count(others, tg::token_state::executing) != 2 || resting != 10 || !quick_ran);
    // Whoever rests has been left by its core once that has run another.
    for (tg::runtime* each : {&runtime, &other}) each->submit(every_core()).get();
    tokens = admitted(runtime);

    std::map<std::uint64_t, tg::token_info> all;
    tokens.insert(tokens.end(), others.begin(), others.end());
    for (const tg::token_info& each : tokens) all.emplace(each.id.sequence, each);
    for (const tg::token_info& each : tokens) print(each, all);
    const std::scoped_lock lock(known.mutex);
    for (const tg::token_id& each : known.held) {
        const auto domain = known.domain.find(each.sequence);
        std::printf("alive %s created - (handle) %s\n", each.text().c_str(),
                    domain == known.domain.end() ? "-" : domain->second.c_str());
    }
    for (const tg::token_info& each : tokens) {
        if (each.id.operation != "innermost" && each.id.operation != "sleeper") continue;
        std::printf("chain %llu", static_cast<unsigned long long>(each.id.sequence));
        for (const tg::token_info* at = &each; at;
             at = at->awaited_by_sequence ? &all.at(at->awaited_by_sequence) : nullptr)
            std::printf(" %s", std::string(at->id.operation).c_str());
        std::printf("\n");
    }
    population_stands();
    if (argc > 1 && std::string_view(argv[1]) == "abort") std::abort();
    for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
}
