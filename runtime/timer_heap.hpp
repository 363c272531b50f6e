// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/hook.hpp>

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

/// The timers of one loop: a 4-ary min-heap by deadline, whose entries know their place so that any can be withdrawn.
///
///     timer t; t.deadline_ns = now + 5'000'000; t.run = fire;
///     heap.arm(t);                         // t stays where it is until it fired or was withdrawn
///     while (hook* due = heap.pop_due(now)) due->run(due);
///
/// One thread. Arming and withdrawing are O(log n); memory grows with the largest number armed at once and is kept.

namespace tokengate::detail {

struct timer : hook {
    std::uint64_t deadline_ns = 0;  // on the steady clock
    std::size_t place = idle;
    static constexpr std::size_t idle = ~std::size_t{0};
};

class timer_heap {
public:
    [[nodiscard]] bool empty() const noexcept { return heap_.empty(); }
    [[nodiscard]] std::uint64_t earliest_ns() const noexcept { return heap_.front().deadline_ns; }

    void arm(timer& armed) {
        heap_.push_back({armed.deadline_ns, &armed});
        rise(heap_.size() - 1);
    }

    void withdraw(timer& armed) noexcept {
        if (armed.place == timer::idle) return;
        remove(armed.place);
    }

    timer* pop_due(std::uint64_t now_ns) noexcept {
        if (heap_.empty() || heap_.front().deadline_ns > now_ns) return nullptr;
        timer* due = heap_.front().armed;
        remove(0);
        return due;
    }

private:
    struct entry {
        std::uint64_t deadline_ns;
        timer* armed;
    };

    void put(std::size_t place, entry what) noexcept {
        heap_[place] = what;
        what.armed->place = place;
    }

    void rise(std::size_t place) noexcept {
        const entry moving = heap_[place];
        while (place > 0) {
            const std::size_t parent = (place - 1) / 4;
            if (heap_[parent].deadline_ns <= moving.deadline_ns) break;
            put(place, heap_[parent]);
            place = parent;
        }
        put(place, moving);
    }

    void sink(std::size_t place) noexcept {
        const entry moving = heap_[place];
        for (;;) {
            const std::size_t first = 4 * place + 1;
            if (first >= heap_.size()) break;
            std::size_t least = first;
            for (std::size_t child = first + 1; child < first + 4 && child < heap_.size(); ++child)
                if (heap_[child].deadline_ns < heap_[least].deadline_ns) least = child;
            if (heap_[least].deadline_ns >= moving.deadline_ns) break;
            put(place, heap_[least]);
            place = least;
        }
        put(place, moving);
    }

    void remove(std::size_t place) noexcept {
        heap_[place].armed->place = timer::idle;
        const entry last = heap_.back();
        heap_.pop_back();
        if (place == heap_.size()) return;
        put(place, last);
        rise(place);
        sink(last.armed->place);
    }

    std::vector<entry> heap_;
};

}  // namespace tokengate::detail
