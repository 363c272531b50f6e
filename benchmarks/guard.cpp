// SPDX-License-Identifier: MIT

/// The instructions of the shortest paths, counted by stepping through one thread
/// (support/instruction_counter.hpp), as a line of JSON for guard.py:
///
///   task             P1: a nested `co_await task<int>`, made, run, awaited, destroyed
///   conducted        P2: a conducted child, awaited in place
///   routed_make      P3: a routed empty operation is made, on the thread that awaits a group of them
///   routed_send      … is admitted with its group, routed, and its end noticed there
///   routed_destroy   … its frame is destroyed there
///   routed_run       … is taken from the mailbox, started and ended, on its executor
///   group_of_8       a `when_all` of eight conducted children, one child of it
///   kept             as `conducted`, outside of chains: a short operation that nobody else is hungry for
///   kept_of_8        as `group_of_8`, of those
///   admission        a routed operation is made, admitted and let go
///   wake_here        `event::set` wakes a token of the same core, which runs until its next wait
///   wake_there       `event::set` for a token of another core, the sender's side
///
/// A figure is the difference between a long and a short run, divided by the difference of their lengths, so that
/// what is paid once does not count. Each length is run several times; the run with the fewest instructions counts:
/// the others met a look at the clock, a sleep or a foreign wake-up. A thread that is stepped through is a thousand
/// times slower: the first body that its executor times is taken for a long one, and then each is timed. Executors
/// time every 32nd run of a short operation; so where tokens are started by the loop, runs are shorter than that.

#include "support/instruction_counter.hpp"

#include <tokengate/tokengate.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace {

namespace tg = tokengate;
using namespace std::chrono_literals;

constexpr int runs = 6;

/// The least of what was counted at two lengths.
class slope {
public:
    slope(unsigned shorter, unsigned longer) : lengths_{shorter, longer} {}

    [[nodiscard]] unsigned length(int which) const noexcept { return lengths_[which]; }
    /// How often: short ones more often, since they count on meeting nothing that is timed.
    [[nodiscard]] int repeats() const noexcept { return lengths_[1] < 32 ? 2 * runs : runs; }
    void note(int which, std::uint64_t instructions) noexcept {
        least_[which] = std::min(least_[which], instructions);
    }
    [[nodiscard]] double value() const noexcept {
        return (static_cast<double>(least_[1]) - static_cast<double>(least_[0])) /
               (lengths_[1] - lengths_[0]);
    }

private:
    unsigned lengths_[2];
    std::uint64_t least_[2]{std::numeric_limits<std::uint64_t>::max(),
                            std::numeric_limits<std::uint64_t>::max()};
};

void start(instruction_counter& counter) {
    if (!counter.start()) throw std::runtime_error("this system lets no process trace another");
}

// ---- in one token
// -------------------------------------------------------------------------------------------------------

[[gnu::noinline]] tg::task<int> add(int a, int b) { co_return a + b; }
const tg::operation child{{.name = "child"}, add};

tg::task<int> await_tasks(unsigned count) {
    int total = 0;
    for (unsigned i = 0; i < count; ++i) total = co_await add(total, 1);
    co_return total;
}
tg::task<int> await_children(unsigned count) {
    int total = 0;
    for (unsigned i = 0; i < count; ++i) total = co_await child(total, 1);
    co_return total;
}
tg::task<int> await_eights(unsigned count) {
    int total = 0;
    for (unsigned i = 0; i < count; i += 8) {
        auto eight = tg::when_all(child(0, 1), child(0, 1), child(0, 1), child(0, 1), child(0, 1),
                                  child(0, 1), child(0, 1), child(0, 1));
        const auto [a, b, c, d, e, f, g, h] = co_await std::move(eight);
        total += a + b + c + d + e + f + g + h;
    }
    co_return total;
}

/// Two tokens of one core that wake each other in turn.
struct pair {
    tg::event ping, pong;
};
tg::task<> answer(pair* with, unsigned count) {
    for (unsigned i = 0; i < count; ++i) {
        co_await with->ping.wait();
        with->ping.reset();
        with->pong.set();
    }
}
tg::task<int> ask(pair* with, unsigned count) {
    for (unsigned i = 0; i < count; ++i) {
        with->ping.set();
        co_await with->pong.wait();
        with->pong.reset();
    }
    co_return static_cast<int>(count);
}

using body = tg::task<int> (*)(unsigned);

tg::task<> count_body(body run, slope* counted) {
    instruction_counter counter;
    for (int i = 0; i < counted->repeats(); ++i)
        for (int which = 0; which < 2; ++which) {
            const unsigned length = counted->length(which);
            const unsigned warm_up =
                1024 + 8 * static_cast<unsigned>(i);  // meets the loop's turns elsewhere each time
            int result = co_await run(warm_up);
            start(counter);
            result += co_await run(length);
            counted->note(which, counter.stop().instructions);
            if (result != static_cast<int>(warm_up + length)) throw std::logic_error("a wrong sum");
        }
}

tg::task<> count_wakes(slope* counted) {
    instruction_counter counter;
    for (int i = 0; i < counted->repeats(); ++i)
        for (int which = 0; which < 2; ++which) {
            const unsigned length = counted->length(which);
            pair two;
            const unsigned warm_up = 200 + 5 * static_cast<unsigned>(i);
            tg::token<> answering = tg::as_token(answer(&two, warm_up + length));
            answering.admit();
            co_await ask(&two, warm_up);
            start(counter);
            co_await ask(&two, length);
            counted->note(which, counter.stop().instructions / 2);
            co_await answering;
        }
}

const tg::operation counts_body{{.name = "counts_body"}, tg::lead{"child"}, count_body};
const tg::operation counts_outside{{.name = "counts_outside"}, count_body};
const tg::operation counts_wakes{{.name = "counts_wakes"}, count_wakes};

template <class Operation>
double in_token(const Operation& counts, body run, slope counted) {
    tg::runtime runtime{{.cores = 1}};
    const auto main = [&]() -> tg::task<> { co_await counts(run, &counted); };
    runtime.run(main);
    return counted.value();
}

double wake_here() {
    slope counted(4, 12);
    tg::runtime runtime{{.cores = 1}};
    const auto main = [&]() -> tg::task<> { co_await counts_wakes(&counted); };
    runtime.run(main);
    return counted.value();
}

// ---- between two threads
// ------------------------------------------------------------------------------------------------

const tg::operation empty{{.name = "empty", .weight = tg::weight::heavy}, [] {}};

struct routed {
    slope make{16, 48}, send{16, 48}, destroy{16, 48}, admission{16, 48}, run{4, 12}, wake{8, 24};
};

tg::task<> run_group(unsigned count) {
    std::vector<tg::token<>> tokens;
    tokens.reserve(count);
    for (unsigned i = 0; i < count; ++i) tokens.push_back(empty());
    co_await tg::when_all(std::move(tokens));
}

/// On the awaiting thread.
tg::task<> count_sender(routed* counted, int which) {
    instruction_counter counter;
    const unsigned length = counted->make.length(which);
    co_await run_group(2048);
    std::vector<tg::token<>> tokens;
    tokens.reserve(length);
    start(counter);
    for (unsigned i = 0; i < length; ++i) tokens.push_back(empty());
    counted->make.note(which, counter.stop().instructions);
    {
        auto all = tg::when_all(std::move(tokens));
        start(counter);
        co_await all;
        counted->send.note(which, counter.stop().instructions);
        start(counter);
    }
    counted->destroy.note(which, counter.stop().instructions);
    co_await run_group(2048);
    start(counter);
    for (unsigned i = 0; i < length; ++i) empty().admit();
    counted->admission.note(which, counter.stop().instructions);
    co_await run_group(1);
}

/// On the executing thread: between a token that starts the counter and one that stops it, in the order of their
/// routing.
struct bracket {
    instruction_counter counter;
    bool counts = false;
    std::uint64_t instructions = 0;
};
const tg::operation opens{{.name = "opens", .weight = tg::weight::heavy}, [](bracket* at) {
                              start(at->counter);
                              at->counts = true;
                          }};
const tg::operation closes{{.name = "closes", .weight = tg::weight::heavy},
                           [](bracket* at) { at->instructions = at->counter.stop().instructions; }};

tg::task<> count_executor(routed* counted, int which) {
    for (int warm_up = 0; warm_up < 4; ++warm_up) co_await run_group(2048);
    bracket at;
    std::vector<tg::token<>> tokens;
    tokens.push_back(opens(&at));
    for (unsigned i = 0; i < counted->run.length(which); ++i) tokens.push_back(empty());
    tokens.push_back(closes(&at));
    co_await tg::when_all(std::move(tokens));
    if (!at.counts) throw std::logic_error("the bracket was not opened");
    counted->run.note(which, at.instructions);
}

tg::task<> count_routed(routed* counted) {
    for (int i = 0; i < 3 * runs; ++i)  // more of them: whether a thread sleeps meanwhile is chance
        for (int which = 0; which < 2; ++which) {
            co_await count_sender(counted, which);
            co_await count_executor(counted, which);
        }
}

// ---- between two executors
// ----------------------------------------------------------------------------------------------

tg::task<> wait_once(tg::event* of) { co_await of->wait(); }
tg::task<> tell(std::atomic<bool>* waiting) {
    waiting->store(true, std::memory_order_release);  // pairs with count_sets
    co_return;
}
/// They start in the order given, each when the one before waits: so the last one knows that all do.
tg::task<> wait_there(std::vector<std::unique_ptr<tg::event>>* events, std::atomic<bool>* waiting) {
    std::vector<tg::task<>> all;
    all.reserve(events->size() + 1);
    for (const auto& each : *events) all.push_back(wait_once(each.get()));
    all.push_back(tell(waiting));
    co_await tg::when_all(std::move(all));
}

/// The other executor keeps awake (it spins), so no wake-up call is among what is counted.
tg::task<> count_sets(slope* counted, int which) {
    instruction_counter counter;
    const unsigned length = counted->length(which);
    std::vector<std::unique_ptr<tg::event>> events;
    events.reserve(length);
    for (unsigned i = 0; i < length; ++i) events.push_back(std::make_unique<tg::event>());
    std::atomic<bool> waiting{false};
    tg::token<> there = tg::as_token(wait_there(&events, &waiting), 1);
    there.admit();
    while (!waiting.load(std::memory_order_acquire)) co_await tg::sleep_for(100us);
    start(counter);
    for (const auto& each : events) each->set();
    counted->note(which, counter.stop().instructions);
    co_await there;
}
tg::task<> count_all_sets(slope* counted) {
    for (int i = 0; i < counted->repeats(); ++i)
        for (int which = 0; which < 2; ++which)
            co_await tg::as_token(count_sets(counted, which), 0);
}

}  // namespace

int main() try {
    routed counted;
    {
        tg::runtime runtime{{.cores = 1, .spin = 1s}};
        runtime.run(count_routed(&counted));
    }
    {
        tg::runtime runtime{{.cores = 2, .cpus = {0, 1}, .spin = 1s}};
        runtime.run(count_all_sets(&counted.wake));
    }
    const std::vector<std::pair<const char*, double>> figures{
        {"task", in_token(counts_body, await_tasks, {32, 96})},
        {"conducted", in_token(counts_body, await_children, {32, 96})},
        {"kept", in_token(counts_outside, await_children, {32, 96})},
        {"routed_make", counted.make.value()},
        {"routed_send", counted.send.value()},
        {"routed_destroy", counted.destroy.value()},
        {"routed_run", counted.run.value()},
        {"group_of_8", in_token(counts_body, await_eights, {8, 16})},
        {"kept_of_8", in_token(counts_outside, await_eights, {8, 16})},
        {"admission", counted.admission.value()},
        {"wake_here", wake_here()},
        {"wake_there", counted.wake.value()},
    };
#if defined(__clang__)
    std::printf("{\"compiler\": \"clang-%d\"", __clang_major__);
#else
    std::printf("{\"compiler\": \"g++-%d\"", __GNUC__);
#endif
    for (const auto& [name, value] : figures) std::printf(", \"%s\": %.2f", name, value);
    std::printf("}\n");
    return 0;
} catch (const std::exception& error) {
    std::fprintf(stderr, "guard: %s\n", error.what());
    return 1;
}
