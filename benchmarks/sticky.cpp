// SPDX-License-Identifier: MIT

/// The sticky registry beside what one would write instead, and beside libcds' lock-free sets, doing the same work in turn:
///
///     registry     runtime/routing/sticky_registry.hpp: 256 of libcds' StripedSet
///     stripes      64 stripes, each a std::mutex and a chained table that grows, unused pins in a list: by hand
///     michael      libcds' MichaelHashSet with DHP, pins in libcds' FreeList; 16,384 buckets, or 2^20 for 10^6 keys
///     split_list   libcds' SplitListSet, which grows, with DHP and the same pins
///
/// `in_flight` holds that many keys at any time: each step gives the oldest pin back and takes one of a new key. Pins change
/// threads between two rounds, as those of tokens do that end elsewhere. `key_space` holds 64 pins a thread out of so
/// many keys, `hot` one pin a thread, all of one key. Given are CPU time (of all threads, so that a preempted thread does
/// not count while it waits, and one that spins does) and time by the clock (`…_wall`), ns a pair of acquire and
/// release; threads are pinned to CPUs in turn. `instructions` counts them, and the locked ones, on one thread. Every
/// pin's position is checked, and that nothing is pinned in the end.

#include "routing/sticky_registry.hpp"
#include "support/instruction_counter.hpp"
#include "support/pinned_thread.hpp"
#include "support/side_by_side.hpp"

#include <benchmark/benchmark.h>

#include <cds/gc/dhp.h>
#include <cds/init.h>
#include <cds/intrusive/free_list.h>
#include <cds/intrusive/michael_list_dhp.h>
#include <cds/intrusive/michael_set.h>
#include <cds/intrusive/split_list.h>

#include <algorithm>
#include <atomic>
#include <barrier>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

using cds::gc::DHP;
using cds::intrusive::FreeList;

std::uint64_t scattered(std::uint64_t number) {
    number = (number ^ number >> 30) * 0xBF58'476D'1CE4'E5B9u;
    number = (number ^ number >> 27) * 0x94D0'49BB'1331'11EBu;
    return number ^ number >> 31;
}

std::size_t hash_of(std::uint64_t key) { return (key * 0x9E37'79B9'7F4A'7C15u) >> 32; }

unsigned position_of(std::uint64_t key) { return static_cast<unsigned>(key % 61); }

class registry {
public:
    using held = tokengate::detail::pin*;
    explicit registry(std::size_t /*keys*/) {}

    held acquire(std::uint64_t key) {
        return pins_.acquire(key, [key] { return position_of(key); }).held;
    }
    void release(held pin) { pins_.release(pin); }
    static unsigned position(held pin) { return pin->position(); }
    [[nodiscard]] std::size_t size() const { return pins_.size(); }

private:
    tokengate::detail::sticky_registry pins_;
};

class stripes {
    struct alignas(64) node {
        node* next;
        std::uint64_t key;
        std::uint64_t tokens;
        unsigned position;
    };

public:
    using held = node*;

    explicit stripes(std::size_t /*keys*/) {}

    held acquire(std::uint64_t key) {
        const std::size_t hash = hash_of(key);
        stripe& in = stripes_[hash % count];
        const std::scoped_lock lock(in.mutex);
        node*& chain = in.chain_of(hash);
        for (node* each = chain; each; each = each->next)
            if (each->key == key) {
                ++each->tokens;
                return each;
            }
        node* fresh = in.unused ? std::exchange(in.unused, in.unused->next) : new node;
        *fresh = {chain, key, 1, position_of(key)};
        chain = fresh;
        if (++in.pins > in.chains.size()) in.grow();
        return fresh;
    }

    void release(held pin) {
        const std::size_t hash = hash_of(pin->key);
        stripe& in = stripes_[hash % count];
        const std::scoped_lock lock(in.mutex);
        if (--pin->tokens != 0) return;
        node** link = &in.chain_of(hash);
        while (*link != pin) link = &(*link)->next;
        *link = pin->next;
        --in.pins;
        pin->next = std::exchange(in.unused, pin);
    }

    static unsigned position(held pin) { return pin->position; }
    [[nodiscard]] std::size_t size() const {
        std::size_t pins = 0;
        for (const stripe& each : stripes_) pins += each.pins;
        return pins;
    }

private:
    static constexpr std::size_t count = 64;

    struct alignas(64) stripe {
        std::mutex mutex;
        std::vector<node*> chains = std::vector<node*>(64);
        std::size_t pins = 0;
        node* unused = nullptr;

        stripe() = default;
        stripe(const stripe&) = delete;
        stripe& operator=(const stripe&) = delete;
        ~stripe() {
            while (unused) delete std::exchange(unused, unused->next);
        }

        node*& chain_of(std::size_t hash) { return chains[hash / count & (chains.size() - 1)]; }

        void grow() {
            std::vector<node*> old(chains.size() * 2);
            old.swap(chains);
            for (node* each : old)
                while (each) {
                    node* moved = std::exchange(each, each->next);
                    moved->next = std::exchange(chain_of(hash_of(moved->key)), moved);
                }
        }
    };

    stripe stripes_[count];
};

/// What the lock-free sets have in common: a count of tokens that only rises from above zero; whoever lowers it to zero, or
/// finds it there, unlinks that very pin; DHP gives it to a free list when nobody looks at it any more.
template <class Link>
struct alignas(64) shared_pin : Link, FreeList::node {
    std::atomic<std::uint64_t> key{0};
    std::atomic<std::uint64_t> tokens{0};
    std::atomic<unsigned> position{0};

    bool raise() {
        std::uint64_t seen = tokens.load(std::memory_order_relaxed);
        while (seen != 0)
            if (tokens.compare_exchange_weak(seen, seen + 1, std::memory_order_acquire,
                                             std::memory_order_relaxed))
                return true;
        return false;
    }

    static FreeList& unused() {
        static FreeList& list = *new FreeList;
        return list;
    }
    static shared_pin* take() {
        FreeList::node* recycled = unused().get();
        return recycled ? static_cast<shared_pin*>(recycled) : new shared_pin;
    }
};

struct pin_key {
    static std::uint64_t of(std::uint64_t key) { return key; }
    template <class Link>
    static std::uint64_t of(const shared_pin<Link>& pin) {
        return pin.key.load(std::memory_order_relaxed);
    }
};

template <class Link>
struct list_traits : cds::intrusive::michael_list::traits {
    using hook = cds::intrusive::michael_list::base_hook<cds::opt::gc<DHP>>;
    struct compare {
        template <class Left, class Right>
        int operator()(const Left& left, const Right& right) const {
            return pin_key::of(left) < pin_key::of(right) ? -1
                                                          : pin_key::of(left) > pin_key::of(right);
        }
    };
    struct disposer {
        void operator()(shared_pin<Link>* unlinked) const {
            shared_pin<Link>::unused().put(unlinked);
        }
    };
    using back_off = cds::backoff::empty;
    using memory_model = cds::opt::v::
        sequential_consistent;  // the weaker one has a race between insertion and search
};

template <class Base>
struct set_traits : Base {
    struct hash {
        template <class Item>
        std::size_t operator()(const Item& item) const {
            return hash_of(pin_key::of(item));
        }
    };
};

using plain_link = cds::intrusive::michael_list::node<DHP>;
using michael_set = cds::intrusive::MichaelHashSet<
    DHP, cds::intrusive::MichaelList<DHP, shared_pin<plain_link>, list_traits<plain_link>>,
    set_traits<cds::intrusive::michael_set::traits>>;
using split_link = cds::intrusive::split_list::node<plain_link>;
using split_set = cds::intrusive::SplitListSet<
    DHP, cds::intrusive::MichaelList<DHP, shared_pin<split_link>, list_traits<split_link>>,
    set_traits<cds::intrusive::split_list::traits>>;

template <class Set, class Link>
class lock_free {
public:
    using held = shared_pin<Link>*;

    explicit lock_free(std::size_t keys) : pins_(std::max<std::size_t>(keys, 16384), 1) {}

    held acquire(std::uint64_t key) {
        held fresh = nullptr;
        for (;;) {
            if (auto guarded = pins_.get(key)) {
                if (guarded->raise()) {
                    if (fresh) shared_pin<Link>::unused().put(fresh);
                    return &*guarded;
                }
                pins_.unlink(*guarded);
            }
            if (!fresh) {
                fresh = shared_pin<Link>::take();
                fresh->key.store(key, std::memory_order_relaxed);
                fresh->position.store(position_of(key), std::memory_order_relaxed);
                fresh->tokens.store(1, std::memory_order_release);
            }
            if (pins_.insert(*fresh)) return fresh;
        }
    }

    void release(held pin) {
        DHP::Guard guard;
        guard.assign(pin);
        if (pin->tokens.fetch_sub(1, std::memory_order_acq_rel) == 1) pins_.unlink(*pin);
    }

    static unsigned position(held pin) { return pin->position.load(std::memory_order_relaxed); }
    [[nodiscard]] std::size_t size() const { return pins_.size(); }

private:
    Set pins_;
};

using michael = lock_free<michael_set, plain_link>;
using split_list = lock_free<split_set, split_link>;

/// libcds' hazard pointers, for a thread.
class attached {
public:
    attached() {
        static const bool ready = (cds::Initialize(), cds::gc::dhp::smr::construct(), true);
        static_cast<void>(ready);
        cds::threading::Manager::attachThread();
    }
    attached(const attached&) = delete;
    attached& operator=(const attached&) = delete;
    ~attached() { cds::threading::Manager::detachThread(); }
};

enum class keys_are { fresh, of_a_space, hot };

struct workload {
    keys_are which;
    std::size_t keys;

    [[nodiscard]] std::size_t held_by_each(unsigned threads) const {
        switch (which) {
            case keys_are::fresh: return std::max<std::size_t>(1, keys / threads);
            case keys_are::of_a_space: return 64;
            case keys_are::hot: break;
        }
        return 1;
    }
    [[nodiscard]] std::uint64_t key(std::uint64_t number) const {
        switch (which) {
            case keys_are::fresh: return scattered(number);
            case keys_are::of_a_space: return scattered(scattered(number) % keys);
            case keys_are::hot: break;
        }
        return 42;
    }
};

struct seconds {
    double cpu = 0, wall = 0;
};

double cpu_seconds_of_this_thread() {
    timespec spent{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &spent);
    return static_cast<double>(spent.tv_sec) + static_cast<double>(spent.tv_nsec) * 1e-9;
}

/// One contender with its threads, which wait between rounds.
template <class Registry>
class contest {
public:
    contest(const workload& work, unsigned threads)
        : work_(work),
          pins_(work.which == keys_are::fresh ? work.keys : 0),
          gate_(threads + 1),
          spent_(threads) {
        for (unsigned i = 0; i < threads; ++i) rings_.emplace_back(work.held_by_each(threads));
        const unsigned cpus = std::max(1u, std::thread::hardware_concurrency());
        for (unsigned i = 0; i < threads; ++i)
            team_.push_back(std::make_unique<pinned_thread>(static_cast<int>(i % cpus),
                                                            [this, i] { run(i); }));
        gate_.arrive_and_wait();  // all rings are full
    }
    contest(const contest&) = delete;
    contest& operator=(const contest&) = delete;
    ~contest() { end(); }

    seconds round(std::size_t pairs_each) {
        pairs_ = pairs_each;
        ++rounds_;
        gate_.arrive_and_wait();
        stopwatch watch;
        gate_.arrive_and_wait();
        seconds sum{0, watch.lap()};
        for (double each : spent_) sum.cpu += each;
        return sum;
    }

    /// Ends it; false if a position was wrong or a pin is left.
    bool is_right() {
        end();
        return wrong_.load() == 0 && pins_.size() == 0;
    }

private:
    using held = typename Registry::held;
    struct pinned {
        std::uint64_t key;
        held pin;
    };

    void end() {
        if (team_.empty()) return;
        pairs_ = 0;
        gate_.arrive_and_wait();
        team_.clear();
    }

    void take(pinned& into, std::uint64_t number) {
        into.key = work_.key(number);
        into.pin = pins_.acquire(into.key);
        if (Registry::position(into.pin) != position_of(into.key))
            wrong_.fetch_add(1, std::memory_order_relaxed);
    }

    void run(unsigned mine) {
        const attached libcds;
        std::uint64_t number = std::uint64_t{mine} << 40;
        std::vector<std::size_t> at(rings_.size());
        for (pinned& each : rings_[mine]) take(each, ++number);
        gate_.arrive_and_wait();
        for (;;) {
            gate_.arrive_and_wait();
            if (pairs_ == 0) break;
            const std::size_t whose =
                (mine + rounds_) % rings_.size();  // another's pins than last time
            std::vector<pinned>& ring = rings_[whose];
            std::size_t next = at[whose] % ring.size();
            const double before = cpu_seconds_of_this_thread();
            for (std::size_t i = 0; i < pairs_; ++i) {
                pins_.release(ring[next].pin);
                take(ring[next], ++number);
                if (++next == ring.size()) next = 0;
            }
            spent_[mine] = cpu_seconds_of_this_thread() - before;
            at[whose] = next;
            gate_.arrive_and_wait();
        }
        for (pinned& each : rings_[mine]) pins_.release(each.pin);
    }

    const workload work_;
    Registry pins_;
    std::vector<std::vector<pinned>> rings_;
    std::barrier<> gate_;
    std::vector<double> spent_;
    std::atomic<std::uint64_t> wrong_{0};
    std::size_t pairs_ = 0, rounds_ = 0;  // written before the barrier, read after it
    std::vector<std::unique_ptr<pinned_thread>> team_;
};

void measure(benchmark::State& state, const workload& work) {
    const attached libcds;
    const auto threads = static_cast<unsigned>(state.range(0));
    const std::size_t pairs = 100'000 / threads;
    contest<registry> ours(work, threads);
    contest<stripes> by_hand(work, threads);
    contest<michael> michaels(work, threads);
    contest<split_list> split(work, threads);

    side_by_side cpu(state, static_cast<double>(pairs * threads)),
        wall(state, static_cast<double>(pairs * threads));
    bool forwards = true;
    for (auto _ : state) {
        const auto turn = [&](const char* name, auto& of) {
            const seconds spent = of.round(pairs);
            cpu.note(name, spent.cpu);
            wall.note(name + std::string("_wall"), spent.wall);
        };
        turn("registry", ours);
        if (forwards) turn("stripes", by_hand);
        turn("michael", michaels);
        turn("split_list", split);
        if (!forwards) turn("stripes", by_hand);
        forwards = !forwards;
    }
    wall.report();
    cpu.report();
    if (!ours.is_right() || !by_hand.is_right() || !michaels.is_right() || !split.is_right())
        state.SkipWithError("a pin was at a wrong position, or is left");
}

void in_flight(benchmark::State& state) {
    measure(state, {keys_are::fresh, static_cast<std::size_t>(state.range(1))});
}
void key_space(benchmark::State& state) {
    measure(state, {keys_are::of_a_space, static_cast<std::size_t>(state.range(1))});
}
void hot(benchmark::State& state) { measure(state, {keys_are::hot, 1}); }

template <class Registry>
executed count(std::size_t pairs, bool fresh) {
    const attached libcds;
    // A mutex is cheaper in a process of one thread.
    std::barrier<> over(2);
    std::jthread company([&] { over.arrive_and_wait(); });
    Registry pins(1);
    instruction_counter counter;
    std::vector<typename Registry::held> ring;
    std::uint64_t number = 0;
    const auto key = [&] { return fresh ? scattered(++number) : 42; };
    for (int i = 0; i < 1000; ++i) ring.push_back(pins.acquire(key()));
    const auto step = [&](std::size_t i) {
        auto& held = ring[i % ring.size()];
        pins.release(held);
        held = pins.acquire(key());
    };
    for (std::size_t i = 0; i < 10 * ring.size(); ++i) step(i);  // warm
    executed all;
    if (counter.start()) {
        for (std::size_t i = 0; i < pairs; ++i) step(i);
        all = counter.stop();
    }
    for (auto held : ring) pins.release(held);
    over.arrive_and_wait();
    return all;
}

/// A thousand keys in flight, or one key.
void instructions(benchmark::State& state) {
    constexpr std::size_t pairs = 100;
    for (auto _ : state) {
        const auto note = [&](const std::string& name, const executed& all) {
            state.counters[name] = static_cast<double>(all.instructions) / pairs;
            state.counters[name + ".locked"] = static_cast<double>(all.locked) / pairs;
        };
        const bool fresh = state.range(0) != 0;
        note("registry", count<registry>(pairs, fresh));
        note("stripes", count<stripes>(pairs, fresh));
        note("michael", count<michael>(pairs, fresh));
        note("split_list", count<split_list>(pairs, fresh));
    }
}

BENCHMARK(instructions)->ArgName("fresh")->Arg(1)->Arg(0)->Iterations(1);
BENCHMARK(in_flight)
    ->ArgNames({"threads", "keys"})
    ->ArgsProduct({{1, 2, 4}, {1, 1000, 100'000}})
    ->Iterations(31)
    ->UseManualTime();
BENCHMARK(in_flight)
    ->ArgNames({"threads", "keys"})
    ->ArgsProduct({{1, 2, 4}, {1'000'000}})
    ->Iterations(11)
    ->UseManualTime();
BENCHMARK(key_space)
    ->ArgNames({"threads", "keys"})
    ->ArgsProduct({{1, 2, 4}, {1000}})
    ->Iterations(31)
    ->UseManualTime();
BENCHMARK(hot)->ArgName("threads")->Arg(1)->Arg(2)->Arg(4)->Iterations(31)->UseManualTime();

}  // namespace

BENCHMARK_MAIN();
