// SPDX-License-Identifier: MIT

#include <tokengate/detail/hook.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <deque>
#include <random>
#include <string>
#include <utility>
#include <vector>

using tokengate::detail::hook;
using tokengate::detail::hook_queue;

namespace {

std::vector<const hook*> drain(hook_queue& queue) {
    std::vector<const hook*> out;
    while (!queue.empty()) out.push_back(queue.pop());
    return out;
}

}  // namespace

TEST_SUITE("hook_queue") {
    TEST_CASE("gives back what was pushed, oldest first") {
        hook a{}, b{}, c{};
        hook_queue queue;
        queue.push(&a);
        queue.push(&b);
        queue.push(&c);
        CHECK(drain(queue) == std::vector<const hook*>{&a, &b, &c});
    }

    TEST_CASE("is empty at first, and again after the last pop") {
        hook a{};
        hook_queue queue;
        CHECK(queue.empty());
        queue.push(&a);
        CHECK_FALSE(queue.empty());
        CHECK(queue.pop() == &a);
        CHECK(queue.empty());
    }

    TEST_CASE("works on after it has run empty") {
        hook a{}, b{}, c{};
        hook_queue queue;
        queue.push(&a);
        queue.pop();
        queue.push(&b);
        queue.push(&c);
        CHECK(drain(queue) == std::vector<const hook*>{&b, &c});
    }

    TEST_CASE("takes a hook again that it gave back, whatever its link still says") {
        hook a{}, b{};
        hook_queue queue;
        queue.push(&a);
        queue.push(&b);
        CHECK(queue.pop() == &a);
        queue.push(&a);
        CHECK(drain(queue) == std::vector<const hook*>{&b, &a});
    }

    TEST_CASE("append keeps the order and leaves the other queue empty and usable") {
        hook a{}, b{}, c{}, d{}, e{};
        hook_queue queue, other;
        queue.push(&a);
        queue.push(&b);
        other.push(&c);
        other.push(&d);
        queue.append(other);
        CHECK(other.empty());
        other.push(&e);
        CHECK(drain(queue) == std::vector<const hook*>{&a, &b, &c, &d});
        CHECK(drain(other) == std::vector<const hook*>{&e});
    }

    TEST_CASE("append to and of an empty queue") {
        hook a{}, b{};
        hook_queue queue, other;
        queue.append(other);
        CHECK(queue.empty());
        other.push(&a);
        queue.append(other);
        CHECK(other.empty());
        queue.append(other);
        queue.push(&b);
        CHECK(drain(queue) == std::vector<const hook*>{&a, &b});
    }

    TEST_CASE("a hook may be destroyed or requeued by its run") {
        struct counted : hook {
            hook_queue* again;
            int runs;
        };
        hook_queue queue;
        auto* item = new counted{{nullptr,
                                  [](hook* self) noexcept {
                                      auto* me = static_cast<counted*>(self);
                                      if (++me->runs < 3) return me->again->push(me);
                                      delete me;
                                  }},
                                 &queue,
                                 0};
        queue.push(item);
        int turns = 0;
        while (!queue.empty()) {
            hook* next = queue.pop();
            next->run(next);
            ++turns;
        }
        CHECK(turns == 3);
    }

    TEST_CASE("prepend puts the other queue before this one, and leaves it empty and usable") {
        hook a{}, b{}, c{}, d{}, e{};
        hook_queue queue, other;
        queue.prepend(other);
        CHECK(queue.empty());
        other.push(&c);
        other.push(&d);
        queue.prepend(other);  // into an empty one: its end is known
        queue.push(&e);
        CHECK(other.empty());
        other.push(&a);
        other.push(&b);
        queue.prepend(other);
        CHECK(other.empty());
        CHECK(drain(queue) == std::vector<const hook*>{&a, &b, &c, &d, &e});
    }

    TEST_CASE("stress: agrees with a deque over random pushes, pops and appends") {
        constexpr unsigned seed = 20250611;
        INFO("seed " << seed);
        std::mt19937 random(seed);
        std::vector<hook> pool(256);
        std::vector<hook*> idle;
        for (hook& each : pool) idle.push_back(&each);
        hook_queue queues[2];
        std::deque<hook*> expected[2];
        std::size_t wrong = 0;
        for (int step = 0; step < 100'000; ++step) {
            const unsigned which = random() & 1;
            switch (random() % 5) {
                case 0:
                case 1:
                    if (idle.empty()) break;
                    queues[which].push(idle.back());
                    expected[which].push_back(idle.back());
                    idle.pop_back();
                    break;
                case 2:
                case 3:
                    wrong += queues[which].empty() != expected[which].empty();
                    if (queues[which].empty()) break;
                    idle.push_back(queues[which].pop());
                    wrong += idle.back() != expected[which].front();
                    expected[which].pop_front();
                    break;
                default:
                    queues[which].append(queues[1 - which]);
                    for (hook* each : expected[1 - which]) expected[which].push_back(each);
                    expected[1 - which].clear();
            }
        }
        CHECK(wrong == 0);
    }

    TEST_CASE("remove: the first, the last, one between, the only one; front is who pops next") {
        hook all[4]{};
        const auto order = [&all](hook_queue& queue) {
            std::string names;
            while (!queue.empty()) {
                hook* const front = queue.front();
                hook* const popped = queue.pop();
                names += front == popped ? static_cast<char>('a' + (popped - all)) : '!';
            }
            return names;
        };
        for (const auto& [gone, left] : {std::pair(0, "bcda"), std::pair(1, "acdb"),
                                         std::pair(2, "abdc"), std::pair(3, "abcd")}) {
            hook_queue queue;
            for (hook& each : all) queue.push(&each);
            queue.remove(&all[gone]);
            queue.push(&all[gone]);  // the end is where it should be
            CHECK(order(queue) == left);
            CHECK(queue.front() == nullptr);
        }
        hook_queue queue, other;
        queue.push(&all[0]);
        queue.remove(&all[0]);
        CHECK(queue.empty());
        queue.append(other);
        CHECK(queue.empty());
        queue.push(&all[1]);
        other.push(&all[2]);
        other.push(&all[3]);
        other.remove(&all[3]);
        queue.append(other);
        queue.push(&all[0]);
        CHECK(order(queue) == "bca");
    }
}
