// SPDX-License-Identifier: MIT
#pragma once

#include "baseline.hpp"

#include <pthread.h>
#include <sched.h>
#include <atomic>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <thread>
#include <vector>

/// The hand-written limit of running many small tokens on other cores: coroutines made on one thread, handed in chains
/// of 32 to pinned threads in turn, resumed there, handed back in chains, and destroyed where they were made. Nothing
/// else: no gate, no routing, no windows, no awaiting, no sleeping. Lists are taken whole, so nobody ever waits for
/// room.
///
///     probe::machine machine(2);
///     machine.run_all(1'000'000, body);      // makes all, then sends and takes back, as `when_all` over a vector does
///     machine.stream(1'000'000, body);       // takes back while it makes, so that few live at a time, in the caches

namespace probe {

constexpr unsigned chain_length = 32;

class token {
public:
    struct promise_type {
        promise_type* next = nullptr;
        std::exception_ptr error;

        static void* operator new(std::size_t bytes) { return baseline::frames.allocate(bytes); }
        static void operator delete(void* frame, std::size_t bytes) noexcept {
            baseline::frames.deallocate(frame, bytes);
        }

        token get_return_object() noexcept { return token(*this); }
        std::suspend_always initial_suspend() noexcept { return {}; }
        std::suspend_always final_suspend() noexcept { return {}; }
        void return_void() noexcept {}
        void unhandled_exception() noexcept { error = std::current_exception(); }

        [[nodiscard]] std::coroutine_handle<promise_type> handle() noexcept {
            return std::coroutine_handle<promise_type>::from_promise(*this);
        }
    };

    explicit token(promise_type& of) noexcept : promise(&of) {}
    promise_type* promise;
};

struct chain {
    token::promise_type* newest = nullptr;
    token::promise_type* oldest = nullptr;
    unsigned length = 0;

    void add(token::promise_type* item) noexcept {
        item->next = newest;
        newest = item;
        if (length++ == 0) oldest = item;
    }
};

class take_all_list {
public:
    void push(chain& what) noexcept {
        token::promise_type* seen = head_.load(std::memory_order_relaxed);
        do what.oldest->next = seen;
        while (!head_.compare_exchange_weak(seen, what.newest, std::memory_order_release,
                                            std::memory_order_relaxed));
        what = {};
    }
    /// Newest first; acquires what the pushes released.
    token::promise_type* take() noexcept {
        return head_.load(std::memory_order_relaxed)
                   ? head_.exchange(nullptr, std::memory_order_acquire)
                   : nullptr;
    }

private:
    alignas(64) std::atomic<token::promise_type*> head_{nullptr};
};

/// An idle thread looks again at once, and after a while lets others through.
class patience {
public:
    void idle() noexcept {
        if (++polls_ % 16 == 0) sched_yield();
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }
    void busy() noexcept { polls_ = 0; }

private:
    unsigned polls_ = 0;
};

class machine {
public:
    explicit machine(unsigned cores) : inboxes_(cores) {
        cpu_set_t usable;
        CPU_ZERO(&usable);
        sched_getaffinity(0, sizeof usable, &usable);
        std::vector<int> cpus;
        for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
            if (CPU_ISSET(cpu, &usable)) cpus.push_back(cpu);
        for (unsigned i = 0; i < cores; ++i)
            threads_.emplace_back([this, i, cpu = cpus[i % cpus.size()]] {
                cpu_set_t mine;
                CPU_ZERO(&mine);
                CPU_SET(cpu, &mine);
                pthread_setaffinity_np(pthread_self(), sizeof mine, &mine);
                up_.fetch_add(1, std::memory_order_release);
                serve(inboxes_[i]);
            });
        while (up_.load(std::memory_order_acquire) != cores) sched_yield();
    }
    machine(const machine&) = delete;
    machine& operator=(const machine&) = delete;
    ~machine() {
        stopped_.store(true, std::memory_order_relaxed);
        for (std::thread& each : threads_) each.join();
    }

    template <class Body>
    void run_all(std::size_t tokens, Body body) {
        std::vector<token> made;
        made.reserve(tokens);
        for (std::size_t i = 0; i < tokens; ++i) made.push_back(body());
        for (const token& each : made) send(each.promise);
        finish(tokens);
    }

    template <class Body>
    void stream(std::size_t tokens, Body body) {
        for (std::size_t i = 0; i < tokens; ++i) {
            send(body().promise);
            if (i % chain_length != 0) continue;
            for (patience wait; reap(), i - destroyed_ > most_alive;) wait.idle();
        }
        finish(tokens);
    }

private:
    static constexpr std::size_t most_alive = 4096;

    void send(token::promise_type* item) noexcept {
        outgoing_.add(item);
        if (outgoing_.length == chain_length) flush();
    }
    void flush() noexcept {
        if (outgoing_.length == 0) return;
        inboxes_[turn_].push(outgoing_);
        turn_ = (turn_ + 1) % inboxes_.size();
    }

    /// Destroys what has come back; how many those were.
    std::size_t reap() noexcept {
        const std::size_t before = destroyed_;
        for (token::promise_type* item = returned_.take(); item; ++destroyed_) {
            token::promise_type* next = item->next;
            item->handle().destroy();
            item = next;
        }
        return destroyed_ - before;
    }

    void finish(std::size_t tokens) noexcept {
        flush();
        for (patience wait; destroyed_ != tokens;) reap() != 0 ? wait.busy() : wait.idle();
        destroyed_ = 0;
    }

    void serve(take_all_list& inbox) noexcept {
        chain ended;
        for (patience wait; !stopped_.load(std::memory_order_relaxed);) {
            token::promise_type* newest_first = inbox.take();
            if (!newest_first) {
                wait.idle();
                continue;
            }
            wait.busy();
            token::promise_type* oldest_first = nullptr;
            while (newest_first) {
                token::promise_type* next = newest_first->next;
                newest_first->next = oldest_first;
                oldest_first = newest_first;
                newest_first = next;
            }
            while (oldest_first) {
                token::promise_type* next = oldest_first->next;
                oldest_first->handle().resume();
                ended.add(oldest_first);
                if (ended.length == chain_length) returned_.push(ended);
                oldest_first = next;
            }
            if (ended.length != 0) returned_.push(ended);
        }
    }

    std::deque<take_all_list> inboxes_;
    take_all_list returned_;
    std::atomic<bool> stopped_{false};
    std::atomic<unsigned> up_{0};  // release by the threads, acquire by the constructor
    chain outgoing_;
    std::size_t turn_ = 0;
    std::size_t destroyed_ = 0;
    std::vector<std::thread> threads_;
};

}  // namespace probe
