// SPDX-License-Identifier: MIT

/// Three ways to hand chains of hooks to a loop, doing the same work side by side:
///
///   take_all_list   runtime/loop/mailbox.hpp: one word; a chain costs one compare-and-swap, taking everything one more
///   looking_cycle   libcds' VyukovMPSCCycleQueue of chain heads, with a pop of our own that never waits (see below)
///   ring_per_pair   libcds' WeakRingBuffer of chain heads, one per sender, and a mask of the rings that have something
///   plain_cycle     VyukovMPSCCycleQueue as it comes; only where the longest take is measured
///
/// `hand_over` moves hooks from 1 or 3 senders to one receiver that takes, walks and writes to them, with a bounded
/// number in flight as under the runtime's windows. Frames that lie in a row let the prefetcher hide the price of
/// moving them from cache to cache, which shows what the queues cost; scattered ones show what is left of that in a
/// real runtime. `longest_take` is the longest single take while there are more senders than CPUs. `held_cell` makes
/// that preemption certain. `when_full` fills each candidate without a receiver. Everything checks its counts and the
/// order of each sender.
///
/// The bounded candidates are shown at their best: the word that parks and closes, which take_all_list has inside,
/// would cost looking_cycle another read-modify-write a chain. Compare medians; run with
/// --benchmark_enable_random_interleaving=true on a machine that others use.

#include "loop/mailbox.hpp"

#include <benchmark/benchmark.h>

#include <cds/container/vyukov_mpmc_cycle_queue.h>
#include <cds/container/weak_ringbuffer.h>

#include <pthread.h>
#include <sched.h>
#include <algorithm>
#include <atomic>
#include <bit>
#include <chrono>
#include <cstdint>
#include <ctime>
#include <memory>
#include <thread>
#include <vector>

namespace {

using tokengate::detail::hook;
using tokengate::detail::mailbox;

struct alignas(64) letter : hook {  // as far apart as frames are
    unsigned sender;
    std::uint64_t number;
    std::uint64_t runs;
};

/// What an outbox collects. `newest_first` is how the take-all list wants it, the other way how a queue of heads does.
template <bool newest_first>
struct chain {
    hook* first = nullptr;
    hook* last = nullptr;

    void add(hook* item) noexcept {
        if constexpr (newest_first) {
            item->next = first;
            first = item;
            if (!last) last = item;
        } else {
            item->next = nullptr;
            (first ? last->next : first) = item;
            last = item;
        }
    }
};

class take_all_list {
public:
    using chain_type = chain<true>;

    explicit take_all_list(unsigned /*senders*/) {}

    bool push(unsigned /*sender*/, chain_type what) noexcept {
        box_.push(what.first, what.last);
        return true;
    }

    template <typename Walk>
    void take(Walk&& walk) {
        if (!box_.empty()) walk(box_.take());
    }

private:
    mailbox box_;
};

constexpr std::size_t cycle_cells = 1024, ring_cells = 256;

class plain_cycle {
public:
    using chain_type = chain<false>;

    explicit plain_cycle(unsigned /*senders*/) {}

    bool push(unsigned /*sender*/, chain_type what) { return heads_.enqueue(what.first); }

    template <typename Wait>
    void push_slowly(hook* head, Wait&& wait) {
        heads_.enqueue_with([&](hook*& cell) {
            wait();
            cell = head;
        });
    }

    template <typename Walk>
    void take(Walk&& walk) {
        for (hook* head; heads_.dequeue(head);) walk(head);
    }

private:
    cds::container::VyukovMPSCCycleQueue<hook*> heads_{cycle_cells};
};

class looking_cycle {
public:
    using chain_type = chain<false>;

    explicit looking_cycle(unsigned /*senders*/) {}

    bool push(unsigned /*sender*/, chain_type what) { return heads_.enqueue(what.first); }

    template <typename Wait>
    void push_slowly(hook* head, Wait&& wait) {
        heads_.enqueue_with([&](hook*& cell) {
            wait();
            cell = head;
        });
    }

    template <typename Walk>
    void take(Walk&& walk) {
        while (hook* head = heads_.pop_if_ready()) walk(head);
    }

private:
    /// The class has no pop that gives up behind a sender that claimed a cell and was preempted, but its members are
    /// protected, so one can be added.
    struct queue : cds::container::VyukovMPSCCycleQueue<hook*> {
        using VyukovMPMCCycleQueue::VyukovMPMCCycleQueue;

        hook* pop_if_ready() noexcept {
            const std::size_t at = m_posDequeue.load(std::memory_order_relaxed);
            cell_type& cell = m_buffer[at & m_nBufferMask];
            // pairs with the release of enqueue
            if (cell.sequence.load(std::memory_order_acquire) != at + 1) return nullptr;
            hook* head = cell.data;
            // The cell is free before the position moves: enqueue would spin between the two the other way round.
            cell.sequence.store(at + m_nBufferMask + 1, std::memory_order_release);
            m_posDequeue.store(at + 1, std::memory_order_release);
            return head;
        }
    };

    queue heads_{cycle_cells};
};

class ring_per_pair {
public:
    using chain_type = chain<false>;

    explicit ring_per_pair(unsigned senders) {
        for (unsigned i = 0; i < senders; ++i) rings_.push_back(std::make_unique<ring>(ring_cells));
    }

    bool push(unsigned sender, chain_type what) {
        if (!rings_[sender]->push(what.first)) return false;
        // Always a read-modify-write: who only looked whether the bit is set could see it just before it is taken.
        dirty_.fetch_or(std::uint64_t{1} << sender, std::memory_order_acq_rel);
        return true;
    }

    template <typename Walk>
    void take(Walk&& walk) {
        if (!dirty_.load(std::memory_order_relaxed)) return;
        for (std::uint64_t mask = dirty_.exchange(0, std::memory_order_acq_rel); mask;
             mask &= mask - 1)
            for (hook* head; rings_[static_cast<unsigned>(std::countr_zero(mask))]->pop(head);)
                walk(head);
    }

private:
    using ring = cds::container::WeakRingBuffer<hook*>;

    std::vector<std::unique_ptr<ring>> rings_;
    alignas(64) std::atomic<std::uint64_t> dirty_{0};
};

std::vector<int> usable_cpus() {
    cpu_set_t set;
    std::vector<int> cpus;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
            if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
    return cpus;
}

const std::vector<int> cpus = usable_cpus();  // before anybody pins itself

void pin_to(std::size_t index) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpus[index % cpus.size()], &set);
    pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}

/// Senders that hand letters to `box` until told to stop or until each has sent its share; and the checks of the
/// receiver.
template <typename Candidate>
class traffic {
public:
    static constexpr std::uint64_t largest_window = 2048;  // the runtime's

    /// Letters that lie `stride` apart follow each other; a sender has at most `in_flight` under way.
    traffic(unsigned senders, unsigned chain_length, std::uint64_t stride,
            std::uint64_t in_flight = largest_window)
        : box_(senders),
          senders_(senders),
          chain_length_(chain_length),
          stride_(stride),
          in_flight_(in_flight) {}

    ~traffic() { stop(); }

    template <typename CpuOf>
    void start(std::uint64_t share, CpuOf cpu_of) {
        for (unsigned i = 0; i < senders_.size(); ++i)
            threads_.emplace_back([this, i, share, cpu = cpu_of(i)] {
                pin_to(cpu);
                ready_.fetch_add(1, std::memory_order_release);
                while (!go_.load(std::memory_order_acquire)) sched_yield();
                send(i, share);
            });
        while (ready_.load(std::memory_order_acquire) != senders_.size()) sched_yield();
        go_.store(true, std::memory_order_release);
    }

    void stop() {
        stopped_.store(true, std::memory_order_relaxed);
        for (std::thread& each : threads_) each.join();
        threads_.clear();
    }

    /// One turn of the receiver: takes and walks what is there. Returns how many hooks that were.
    std::uint64_t take() {
        const std::uint64_t before = received_;
        box_.take([this](hook* oldest) noexcept {
            for (hook* next; oldest; oldest = next) {
                next = oldest->next;
                letter& got = *static_cast<letter*>(oldest);
                ++got.runs;  // who resumes a frame writes to it
                in_order_ &= got.number == senders_[got.sender].received++;
                ++received_;
            }
        });
        return received_ - before;
    }

    /// Lets the senders reuse what has been taken.
    void acknowledge() noexcept {
        for (sender_side& each : senders_)
            each.acknowledged.store(each.received, std::memory_order_release);
    }

    [[nodiscard]] bool in_order() const noexcept { return in_order_; }
    [[nodiscard]] std::uint64_t received() const noexcept { return received_; }

    /// After stop.
    [[nodiscard]] std::uint64_t sent() const noexcept { return sum(&sender_side::sent); }
    [[nodiscard]] std::uint64_t refusals() const noexcept { return sum(&sender_side::refusals); }

private:
    struct sender_side {
        std::vector<letter> letters = std::vector<letter>(2 * largest_window);
        alignas(64) std::uint64_t sent = 0, refusals = 0;  // the sender's
        alignas(64) std::uint64_t received = 0;            // the receiver's
        alignas(64) std::atomic<std::uint64_t> acknowledged{
            0};  // release by the receiver, acquire by the sender
    };

    [[nodiscard]] std::uint64_t sum(std::uint64_t sender_side::* what) const noexcept {
        std::uint64_t total = 0;
        for (const sender_side& each : senders_) total += each.*what;
        return total;
    }

    void send(unsigned index, std::uint64_t share) {
        sender_side& me = senders_[index];
        std::uint64_t next = 0, acknowledged = 0, refusals = 0;
        while (next < share && !stopped_.load(std::memory_order_relaxed)) {
            const std::uint64_t end = std::min(share, next + chain_length_);
            while (end - acknowledged > in_flight_) {
                acknowledged = me.acknowledged.load(std::memory_order_acquire);
                if (end - acknowledged <= in_flight_) break;
                if (stopped_.load(std::memory_order_relaxed)) break;
                sched_yield();
            }
            typename Candidate::chain_type out;
            for (std::uint64_t number = next; number < end; ++number) {
                letter& each = me.letters[number * stride_ % (2 * largest_window)];
                each.sender = index;
                each.number = number;
                out.add(&each);
            }
            bool delivered = box_.push(index, out);
            while (!delivered &&
                   !stopped_.load(
                       std::memory_order_relaxed)) {  // a loop would keep its outbox and go on
                ++refusals;
                sched_yield();
                delivered = box_.push(index, out);
            }
            if (delivered) next = end;
        }
        me.sent = next;
        me.refusals = refusals;
    }

    Candidate box_;
    std::vector<sender_side> senders_;
    std::uint64_t chain_length_, stride_, in_flight_;
    std::uint64_t received_ = 0;
    bool in_order_ = true;
    std::atomic<unsigned> ready_{0};
    std::atomic<bool> go_{false}, stopped_{false};
    std::vector<std::thread> threads_;
};

using clock = std::chrono::steady_clock;

double at_fraction(std::vector<double>& sorted, double fraction) {
    return sorted[static_cast<std::size_t>(fraction * static_cast<double>(sorted.size() - 1))];
}

/// Short runs, of which many fall between two preemptions even on a busy machine; the median and the best tenth of
/// them.
template <typename Candidate>
void hand_over(benchmark::State& state) {
    const auto senders = static_cast<unsigned>(state.range(0));
    const auto chain_length = static_cast<unsigned>(state.range(1));
    const std::uint64_t stride = state.range(2) ? 1021 : 1;
    constexpr std::uint64_t hooks = 3 << 15;
    std::uint64_t refusals = 0, takes = 0;
    std::vector<double> ns_per_hook;
    pin_to(0);
    for (auto _ : state) {
        traffic<Candidate> run(senders, chain_length, stride);
        run.start(hooks / senders, [](unsigned i) { return i + 1; });
        const auto begin = clock::now();
        auto last_progress = begin;
        while (run.received() < hooks) {
            if (run.take()) {
                run.acknowledge();
                last_progress = clock::now();
                ++takes;
            } else if (clock::now() - last_progress > std::chrono::seconds(30)) {
                break;
            } else {
                sched_yield();  // there may be a sender on this CPU
            }
        }
        const std::chrono::duration<double> took = clock::now() - begin;
        run.stop();
        if (run.received() != hooks || run.sent() != hooks)
            return state.SkipWithError("hooks were lost");
        if (!run.in_order()) return state.SkipWithError("a sender's hooks came out of order");
        state.SetIterationTime(took.count());
        ns_per_hook.push_back(took.count() * 1e9 / static_cast<double>(hooks));
        refusals += run.refusals();
    }
    std::sort(ns_per_hook.begin(), ns_per_hook.end());
    const auto total = hooks * state.iterations();
    state.SetItemsProcessed(static_cast<std::int64_t>(total));
    state.counters["ns_per_hook"] = at_fraction(ns_per_hook, 0.5);
    state.counters["ns_per_hook_best_tenth"] = at_fraction(ns_per_hook, 0.1);
    state.counters["hooks_per_take"] = static_cast<double>(total) / static_cast<double>(takes);
    state.counters["refusals"] =
        benchmark::Counter(static_cast<double>(refusals), benchmark::Counter::kAvgIterations);
}

std::int64_t thread_cpu_ns() {
    timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return now.tv_sec * 1'000'000'000 + now.tv_nsec;
}

/// The receiver has a CPU to itself and the senders crowd the others, so that they, not the receiver, are preempted. A
/// take includes the walk over what it took. What others on the machine do to the receiver is in the wall time only.
template <typename Candidate>
void longest_take(benchmark::State& state) {
    const std::size_t others = std::max<std::size_t>(cpus.size() - 1, 1);
    const auto senders = static_cast<unsigned>(std::min<std::size_t>(64, others * 6));
    double longest = 0, longest_cpu = 0;
    std::uint64_t total = 0;
    pin_to(0);
    for (auto _ : state) {
        traffic<Candidate> run(senders, 1, 1021, 128);
        run.start(std::uint64_t(-1) / 2, [&](unsigned i) { return 1 + i % others; });
        const auto begin = clock::now();
        for (auto now = begin; now - begin < std::chrono::seconds(3);) {
            const std::int64_t cpu = thread_cpu_ns();
            now = clock::now();
            run.take();
            const auto after = clock::now();
            longest =
                std::max(longest, std::chrono::duration<double, std::micro>(after - now).count());
            longest_cpu = std::max(longest_cpu, static_cast<double>(thread_cpu_ns() - cpu) / 1e3);
            run.acknowledge();
        }
        run.stop();
        while (run.take()) {}
        if (run.received() != run.sent()) return state.SkipWithError("hooks were lost");
        if (!run.in_order()) return state.SkipWithError("a sender's hooks came out of order");
        state.SetIterationTime(std::chrono::duration<double>(clock::now() - begin).count());
        total += run.received();
    }
    state.SetItemsProcessed(static_cast<std::int64_t>(total));
    state.counters["senders"] = senders;
    state.counters["longest_take_us"] = longest;
    state.counters["longest_take_cpu_us"] = longest_cpu;
}

/// What a take meets when a sender is preempted at the worst moment, made certain: a sender claims a cell and holds it
/// for 20 ms. Only the two cycles have such a moment; a mailbox has none, and a ring's sender is alone until it
/// publishes.
template <typename Candidate>
void held_cell(benchmark::State& state) {
    Candidate box(1);
    letter item{};
    double longest = 0;
    for (auto _ : state) {
        std::atomic<bool> claimed{false};
        std::thread sender([&] {
            box.push_slowly(&item, [&] {
                claimed.store(true, std::memory_order_release);
                std::this_thread::sleep_for(std::chrono::milliseconds(20));
            });
        });
        while (!claimed.load(std::memory_order_acquire)) sched_yield();
        const auto begin = clock::now();
        unsigned taken = 0;
        box.take([&](hook*) { ++taken; });
        const std::chrono::duration<double> took = clock::now() - begin;
        sender.join();
        box.take([&](hook*) { ++taken; });
        if (taken != 1) return state.SkipWithError("hooks were lost");
        state.SetIterationTime(took.count());
        longest = std::max(longest, took.count() * 1e6);
    }
    state.counters["longest_take_us"] = longest;
}

/// 4096 chains and nobody takes: how many are refused, and what a push costs then.
template <typename Candidate>
void when_full(benchmark::State& state) {
    std::vector<letter> letters(4096);
    std::uint64_t refused = 0;
    for (auto _ : state) {
        Candidate box(1);
        refused = 0;
        const auto begin = clock::now();
        for (letter& each : letters) {
            typename Candidate::chain_type out;
            out.add(&each);
            refused += !box.push(0, out);
        }
        state.SetIterationTime(std::chrono::duration<double>(clock::now() - begin).count());
        std::uint64_t taken = 0;
        box.take([&](hook* oldest) {
            for (; oldest; oldest = oldest->next) ++taken;
        });
        if (taken + refused != letters.size()) return state.SkipWithError("hooks were lost");
    }
    state.counters["pushed"] = static_cast<double>(letters.size());
    state.counters["refused"] = static_cast<double>(refused);
    state.SetItemsProcessed(static_cast<std::int64_t>(letters.size()) *
                            static_cast<std::int64_t>(state.iterations()));
}

void shapes(benchmark::internal::Benchmark* each) {
    each->ArgNames({"senders", "chain", "scattered"})
        ->ArgsProduct({{1, 3}, {1, 8, 32, 128}, {0, 1}})
        ->UseManualTime();
    each->Unit(benchmark::kMillisecond)->Iterations(20)->Repetitions(5)->ReportAggregatesOnly();
}

void once(benchmark::internal::Benchmark* each) {
    each->UseManualTime()->Unit(benchmark::kMillisecond)->Iterations(1);
}

BENCHMARK(hand_over<take_all_list>)->Apply(shapes);
BENCHMARK(hand_over<looking_cycle>)->Apply(shapes);
BENCHMARK(hand_over<ring_per_pair>)->Apply(shapes);

BENCHMARK(longest_take<plain_cycle>)->Apply(once);
BENCHMARK(longest_take<looking_cycle>)->Apply(once);
BENCHMARK(longest_take<ring_per_pair>)->Apply(once);
BENCHMARK(longest_take<take_all_list>)->Apply(once);

BENCHMARK(held_cell<plain_cycle>)->UseManualTime()->Unit(benchmark::kMicrosecond)->Iterations(20);
BENCHMARK(held_cell<looking_cycle>)->UseManualTime()->Unit(benchmark::kMicrosecond)->Iterations(20);

BENCHMARK(when_full<take_all_list>)->UseManualTime();
BENCHMARK(when_full<looking_cycle>)->UseManualTime();
BENCHMARK(when_full<ring_per_pair>)->UseManualTime();

}  // namespace

BENCHMARK_MAIN();
