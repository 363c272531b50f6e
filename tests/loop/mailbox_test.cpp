// SPDX-License-Identifier: MIT

#include "loop/mailbox.hpp"

#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

using tokengate::detail::hook;
using tokengate::detail::hook_queue;
using tokengate::detail::mailbox;
using pushed = tokengate::detail::mailbox::pushed;

namespace {

struct letter : hook {
    unsigned sender = 0;
    std::size_t number = 0;
};

/// Linked newest first, as an outbox links it.
struct chain {
    hook* newest = nullptr;
    hook* oldest = nullptr;

    chain& add(hook& item) {
        item.next = newest;
        newest = &item;
        if (!oldest) oldest = &item;
        return *this;
    }
};

pushed push(mailbox& box, chain what) { return box.push(what.newest, what.oldest); }

std::vector<const hook*> taken(mailbox& box) {
    std::vector<const hook*> out;
    for (hook* each = box.take(); each; each = each->next) out.push_back(each);
    return out;
}

/// What the owner sleeps on: wake-ups add up, and a sleep takes one. Nobody waits here for time to pass: the bound is
/// only what turns a lost wake-up into a failed test.
class bed {
public:
    void wake() {
        const std::lock_guard lock(mutex_);
        ++wakes_;
        woken_.notify_one();
    }

    [[nodiscard]] bool sleep() {
        std::unique_lock lock(mutex_);
        if (!woken_.wait_for(lock, std::chrono::minutes(2), [this] { return wakes_ != 0; }))
            return false;
        --wakes_;
        return true;
    }

    [[nodiscard]] std::size_t wakes_left() {
        const std::lock_guard lock(mutex_);
        return wakes_;
    }

private:
    std::mutex mutex_;
    std::condition_variable woken_;
    std::size_t wakes_ = 0;
};

constexpr unsigned sender_count = 3;

/// Checks that each sender's letters come in order and none twice.
struct reception {
    std::array<std::size_t, sender_count> next{};
    std::size_t count = 0, wrong = 0;

    void receive(const letter& item) {
        wrong += item.number != next[item.sender]++;
        ++count;
    }

    std::size_t receive_all(hook* oldest) {
        const std::size_t before = count;
        for (hook* following; oldest; oldest = following) {
            following = oldest->next;
            receive(*static_cast<letter*>(oldest));
        }
        return count - before;
    }
};

std::vector<std::vector<letter>> letters_for_all(std::size_t each) {
    std::vector<std::vector<letter>> out(sender_count, std::vector<letter>(each));
    for (unsigned sender = 0; sender < sender_count; ++sender)
        for (std::size_t number = 0; number < each; ++number) {
            out[sender][number].sender = sender;
            out[sender][number].number = number;
        }
    return out;
}

}  // namespace

TEST_SUITE("mailbox") {
    TEST_CASE("an empty mailbox gives nothing") {
        mailbox box;
        CHECK(box.empty());
        CHECK(box.take() == nullptr);
    }

    TEST_CASE("gives everything at once, oldest first, over chains and single hooks") {
        hook a{}, b{}, c{}, d{}, e{}, f{};
        mailbox box;
        CHECK(push(box, chain{}.add(a).add(b).add(c)) == pushed::delivered);
        CHECK(box.submit(&d) == pushed::delivered);
        CHECK(push(box, chain{}.add(e).add(f)) == pushed::delivered);
        CHECK_FALSE(box.empty());
        CHECK(taken(box) == std::vector<const hook*>{&a, &b, &c, &d, &e, &f});
        CHECK(box.empty());
        CHECK(box.take() == nullptr);
    }

    TEST_CASE("takes hooks again that it gave back") {
        hook a{}, b{};
        mailbox box;
        for (int round = 0; round < 3; ++round) {
            push(box, chain{}.add(b).add(a));
            CHECK(taken(box) == std::vector<const hook*>{&b, &a});
        }
    }

    TEST_CASE("closed: submit is refused, push goes on, what was accepted before stays") {
        hook before{}, refused{}, inner{};
        mailbox box;
        CHECK_FALSE(box.closed());
        CHECK(box.submit(&before) == pushed::delivered);
        box.close();
        CHECK(box.closed());
        CHECK(box.submit(&refused) == pushed::refused);
        CHECK(push(box, chain{}.add(inner)) == pushed::delivered);
        CHECK(box.submit(&refused) == pushed::refused);
        CHECK(taken(box) == std::vector<const hook*>{&before, &inner});
        CHECK(box.closed());
        CHECK(box.empty());
        box.close();
        CHECK(box.submit(&refused) == pushed::refused);
        CHECK(box.take() == nullptr);
    }

    TEST_CASE("the first push after park owes the wake-up, and only that one") {
        hook a{}, b{}, c{};
        mailbox box;
        REQUIRE(box.park());
        CHECK(push(box, chain{}.add(a)) == pushed::wake_owed);
        CHECK(push(box, chain{}.add(b)) == pushed::delivered);
        CHECK(box.submit(&c) == pushed::delivered);
        CHECK_FALSE(box.nudge());
        CHECK(taken(box) == std::vector<const hook*>{&a, &b, &c});
        REQUIRE(box.park());
        CHECK(box.submit(&a) == pushed::wake_owed);
        CHECK(push(box, chain{}.add(b)) == pushed::delivered);
        CHECK(taken(box) == std::vector<const hook*>{&a, &b});
    }

    TEST_CASE("park is refused while something is there") {
        hook a{}, b{};
        mailbox box;
        push(box, chain{}.add(a));
        CHECK_FALSE(box.park());
        CHECK(push(box, chain{}.add(b)) ==
              pushed::delivered);  // a refused park owes nobody a wake-up
        CHECK(taken(box) == std::vector<const hook*>{&a, &b});
        CHECK(box.park());
        CHECK(box.park());  // parked already: no harm
    }

    TEST_CASE("take and unpark make the owner awake") {
        hook a{};
        mailbox box;
        SUBCASE("take") {
            REQUIRE(box.park());
            CHECK(box.take() == nullptr);
        }
        SUBCASE("unpark") {
            REQUIRE(box.park());
            box.unpark();
        }
        SUBCASE("unpark keeps what a sender brought meanwhile") {
            hook early{};
            REQUIRE(box.park());
            CHECK(push(box, chain{}.add(early)) == pushed::wake_owed);
            box.unpark();
            CHECK(taken(box) == std::vector<const hook*>{&early});
        }
        CHECK_FALSE(box.nudge());
        CHECK(push(box, chain{}.add(a)) == pushed::delivered);
        CHECK(taken(box) == std::vector<const hook*>{&a});
    }

    TEST_CASE("nudge unparks once, without a message") {
        hook a{};
        mailbox box;
        CHECK_FALSE(box.nudge());
        REQUIRE(box.park());
        CHECK(box.nudge());
        CHECK_FALSE(box.nudge());
        CHECK(box.empty());
        CHECK(push(box, chain{}.add(a)) == pushed::delivered);
        CHECK_FALSE(box.nudge());
        CHECK(taken(box) == std::vector<const hook*>{&a});
    }

    TEST_CASE("closing and parking do not disturb each other") {
        hook a{}, refused{};
        mailbox box;
        const auto close_and_park = [&](bool park_first) {
            if (!park_first) box.close();
            REQUIRE(box.park());
            if (park_first) box.close();
        };
        SUBCASE("parked, then closed: push") {
            close_and_park(true);
            CHECK(box.submit(&refused) == pushed::refused);  // and has not used the wake-up up
            CHECK(push(box, chain{}.add(a)) == pushed::wake_owed);
            CHECK_FALSE(box.park());
            CHECK(taken(box) == std::vector<const hook*>{&a});
        }
        SUBCASE("closed, then parked: push") {
            close_and_park(false);
            CHECK(box.submit(&refused) == pushed::refused);
            CHECK(push(box, chain{}.add(a)) == pushed::wake_owed);
            CHECK(taken(box) == std::vector<const hook*>{&a});
        }
        SUBCASE("nudge") {
            close_and_park(true);
            CHECK(box.nudge());
        }
        SUBCASE("unpark") {
            close_and_park(false);
            box.unpark();
        }
        SUBCASE("take") {
            close_and_park(true);
            CHECK(box.take() == nullptr);
        }
        CHECK_FALSE(box.nudge());
        CHECK(box.closed());
        CHECK(box.empty());
        CHECK(box.submit(&refused) == pushed::refused);
    }

    TEST_CASE("stress: no hook and no wake-up is lost, and each park is woken exactly once") {
        constexpr unsigned seed = 20250612;
        INFO("seed " << seed);
        constexpr std::size_t each = 30'000;
        auto letters = letters_for_all(each);
        mailbox box;
        bed owner_bed;
        std::vector<std::thread> senders;
        for (unsigned sender = 0; sender < sender_count; ++sender)
            senders.emplace_back([&, sender] {
                std::mt19937 random(seed + sender);
                for (std::size_t next = 0; next < each;) {
                    pushed result;
                    if (random() % 4 == 0) {
                        result = box.submit(&letters[sender][next++]);
                    } else {
                        chain out;
                        for (std::size_t length = 1 + random() % 40; length && next < each;
                             --length)
                            out.add(letters[sender][next++]);
                        result = push(box, out);
                    }
                    if (result == pushed::wake_owed) owner_bed.wake();
                    if (random() % 16 == 0) std::this_thread::yield();
                }
            });
        reception got;
        bool lost = false;
        while (got.count < sender_count * each && !lost)
            if (!got.receive_all(box.take()) && box.park()) lost = !owner_bed.sleep();
        for (std::thread& sender : senders) sender.join();
        CHECK_FALSE(lost);
        CHECK(got.count == sender_count * each);
        CHECK(got.wrong == 0);
        CHECK(owner_bed.wakes_left() ==
              0);  // the owner never unparked itself, so each wake-up was slept for
        CHECK(box.empty());
    }

    TEST_CASE("stress: a queue beside the mailbox, filled before nudge and looked at after park") {
        constexpr unsigned seed = 20250613;
        INFO("seed " << seed);
        constexpr std::size_t each = 20'000;
        auto letters = letters_for_all(each);
        mailbox box;
        bed owner_bed;
        std::mutex beside_mutex;
        hook_queue beside;
        std::vector<std::thread> senders;
        for (unsigned sender = 0; sender < sender_count; ++sender)
            senders.emplace_back([&, sender] {
                std::mt19937 random(seed + sender);
                for (letter& item : letters[sender]) {
                    bool owed = false;
                    if (sender == 0) {
                        owed = push(box, chain{}.add(item)) == pushed::wake_owed;
                    } else {
                        {
                            const std::lock_guard lock(beside_mutex);
                            beside.push(&item);
                        }
                        owed = box.nudge();
                    }
                    if (owed) owner_bed.wake();
                    if (random() % 8 == 0) std::this_thread::yield();
                }
            });
        reception got;
        const auto look_beside = [&] {
            hook_queue mine;
            {
                const std::lock_guard lock(beside_mutex);
                mine.append(beside);
            }
            const bool any = !mine.empty();
            while (!mine.empty()) got.receive(*static_cast<letter*>(mine.pop()));
            return any;
        };
        bool lost = false;
        while (got.count < sender_count * each && !lost) {
            if (got.receive_all(box.take()) || look_beside()) continue;
            if (!box.park()) continue;
            if (look_beside())
                box.unpark();
            else if (got.count < sender_count * each)
                lost = !owner_bed.sleep();
        }
        for (std::thread& sender : senders) sender.join();
        CHECK_FALSE(lost);
        CHECK(got.count == sender_count * each);
        CHECK(got.wrong == 0);
    }

    TEST_CASE(
        "stress: a submit racing close is delivered or refused, never both and never neither") {
        constexpr unsigned seed = 20250614;
        INFO("seed " << seed);
        constexpr std::size_t each = 500, rounds = 150;
        std::mt19937 random(seed);
        auto letters = letters_for_all(each);
        for (std::size_t round = 0; round < rounds; ++round) {
            const std::size_t close_after = random() % (sender_count * each);
            mailbox box;
            bed owner_bed;
            std::array<std::size_t, sender_count> accepted{}, refused{}, accepted_after_refusal{};
            std::atomic<std::size_t> received{0};
            std::atomic<unsigned> running{sender_count};
            std::vector<std::thread> threads;
            for (unsigned sender = 0; sender < sender_count; ++sender)
                threads.emplace_back([&, sender] {
                    for (letter& item : letters[sender]) {
                        const pushed result = box.submit(&item);
                        if (result == pushed::refused) {
                            ++refused[sender];
                            continue;
                        }
                        ++accepted[sender];
                        accepted_after_refusal[sender] += refused[sender] != 0;
                        if (result == pushed::wake_owed) owner_bed.wake();
                    }
                    // The last one wakes the owner, as refused submits do not. seq_cst, because `running` is a thing
                    // beside the mailbox that no mutex guards.
                    if (running.fetch_sub(1, std::memory_order_seq_cst) == 1 && box.nudge())
                        owner_bed.wake();
                });
            threads.emplace_back([&] {
                while (received.load(std::memory_order_relaxed) < close_after &&
                       running.load(std::memory_order_relaxed))
                    std::this_thread::yield();
                box.close();
            });
            reception got;
            bool lost = false;
            while (running.load(std::memory_order_seq_cst) && !lost) {
                if (got.receive_all(box.take())) {
                    received.store(got.count, std::memory_order_relaxed);
                } else if (box.park()) {
                    if (running.load(std::memory_order_seq_cst))
                        lost = !owner_bed.sleep();
                    else
                        box.unpark();
                }
            }
            for (std::thread& thread : threads) thread.join();
            got.receive_all(box.take());
            REQUIRE_FALSE(lost);
            REQUIRE(box.closed());
            REQUIRE(got.wrong == 0);
            REQUIRE(got.next == accepted);
            for (unsigned sender = 0; sender < sender_count; ++sender) {
                REQUIRE(accepted[sender] + refused[sender] == each);
                REQUIRE(accepted_after_refusal[sender] == 0);
            }
        }
    }
}
