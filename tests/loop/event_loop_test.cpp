// SPDX-License-Identifier: MIT
#include "loop/event_loop.hpp"

#include "support/child.hpp"
#include "support/waiting.hpp"

#include <doctest/doctest.h>

#include <fcntl.h>
#include <liburing.h>
#include <linux/io_uring.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <deque>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using namespace tokengate::detail;
using tokengate::test::in_child;
using tokengate::test::refuse;
using tokengate::test::wait_until;

namespace {

/// A hook that calls something; as a resumption, or as a start (new work).
struct call : hook {
    explicit call(std::function<void()> what, bool starts = false)
        : hook{nullptr, starts ? start : resume}, body(std::move(what)) {}
    static void resume(hook* self) noexcept { static_cast<call*>(self)->body(); }
    static void start(hook* self) noexcept { static_cast<call*>(self)->body(); }

    std::function<void()> body;
};

/// A loop, and what it tells its guest.
class observed final : public event_loop::guest {
public:
    explicit observed(unsigned index = 0, unsigned ring_entries = 64, std::uint64_t spin_ns = 0,
                      bool measure_wakes = false)
        : loop({.index = index,
                .ring_entries = ring_entries,
                .spin_ns = spin_ns,
                .measure_wakes = measure_wakes,
                .starts = &call::start},
               *this) {
        event_loop* alone[] = {&loop};
        if (index == 0) loop.connect(alone);
    }
    ~observed() { end(); }

    void run_on_a_thread() {
        thread_ = std::thread([this] {
            loop.open();
            thread_id = static_cast<int>(::syscall(SYS_gettid));
            loop.run();
        });
    }
    void end() {
        if (!thread_.joinable()) return;
        loop.post(&quit_);
        thread_.join();
    }
    /// On this thread, until `last` hook has called loop.quit().
    void run_here() {
        loop.open();
        loop.run();
    }

    void turn_began(std::uint64_t) noexcept override { ++turns; }
    bool find_work(bool) noexcept override { return on_find_work && on_find_work(); }
    bool work_waits() const noexcept override { return false; }
    void before_flush() noexcept override {}
    void delivered() noexcept override {}
    bool flushed(unsigned destination, bool) noexcept override {
        flushes.push_back(destination);
        return false;
    }
    void turn_ended(std::uint64_t, unsigned ran) noexcept override {
        most_in_a_turn = std::max(most_in_a_turn, ran);
    }
    void going_idle() noexcept override {
        ++idled;
        if (on_idle) on_idle();
    }
    void parked(bool now) noexcept override {
        is_parked = now;
        if (now) was_parked = true;
    }
    void hungry(bool) noexcept override { is_hungry = true; }
    void hungry_no_more() noexcept override { is_hungry = false; }
    bool recall(unsigned from) noexcept override { return on_recall && on_recall(from); }
    void lent_to(unsigned) noexcept override {}
    void looks_again() noexcept override { ++looks; }
    void awake_with_work() noexcept override { ++passes_on; }

    std::atomic<std::uint64_t> turns{0}, idled{0};
    std::atomic<unsigned> looks{0}, passes_on{0};
    std::atomic<bool> is_parked{false}, was_parked{false}, is_hungry{false};
    std::atomic<int> thread_id{0};
    std::vector<unsigned> flushes;  // the loop's thread
    unsigned most_in_a_turn = 0;    // the loop's thread
    std::function<bool()> on_find_work;
    std::function<void()> on_idle;
    std::function<bool(unsigned)> on_recall;
    event_loop loop;

private:
    call quit_{[this] { loop.quit(); }};
    std::thread thread_;
};

void connect(std::vector<observed*> all) {
    std::vector<event_loop*> loops;
    for (observed* each : all) loops.push_back(&each->loop);
    for (observed* each : all) each->loop.connect(loops);
}

void run_left_mail(observed& of) {
    for (hook* item = of.loop.take_left_mail(); item;) {
        hook* next = item->next;
        item->run(item);
        item = next;
    }
}

/// Two loops throw a hook to and fro, and sleep in between. Returns how often it came back.
int ping_pong(int rounds) {
    observed here(0), there(1);
    connect({&here, &there});
    there.run_on_a_thread();
    wait_until([&] { return there.is_parked.load(); });
    int back = 0;
    std::unique_ptr<call> ping, pong;
    pong = std::make_unique<call>([&] {
        if (++back == rounds)
            here.loop.quit();
        else
            here.loop.send(1, ping.get());
    });
    ping = std::make_unique<call>([&] { there.loop.send(0, pong.get()); });
    call begin([&] { here.loop.send(1, ping.get()); });
    here.loop.ready(&begin);
    here.run_here();
    there.end();
    return back;
}

std::uint64_t voluntary_switches(int thread) {
    std::ifstream status("/proc/self/task/" + std::to_string(thread) + "/status");
    const std::string wanted = "voluntary_ctxt_switches:";
    for (std::string word; status >> word;)
        if (word == wanted) {
            std::uint64_t count = 0;
            status >> count;
            return count;
        }
    return 0;
}

/// A request that calls something with every completion.
struct noted : io_request {
    explicit noted(std::function<void(std::int32_t result, std::uint32_t flags, bool last)> what)
        : body(std::move(what)) {
        completed = [](event_loop&, io_request& self, std::int32_t result, std::uint32_t flags,
                       bool last) noexcept { static_cast<noted&>(self).body(result, flags, last); };
    }
    std::function<void(std::int32_t, std::uint32_t, bool)> body;
};

struct test_pipe {
    test_pipe() { REQUIRE(::pipe2(ends, O_CLOEXEC) == 0); }
    test_pipe(const test_pipe&) = delete;
    test_pipe& operator=(const test_pipe&) = delete;
    ~test_pipe() {
        ::close(ends[0]);
        ::close(ends[1]);
    }
    void put(char what) const { CHECK(::write(ends[1], &what, 1) == 1); }
    int ends[2];
};

}  // namespace

TEST_SUITE("event loop") {
    TEST_CASE("hooks run in the order they were made ready, resumptions before starts") {
        observed here;
        std::string order;
        std::deque<call> calls;
        const auto named = [&](char name, bool starts) {
            return &calls.emplace_back([&order, name] { order += name; }, starts);
        };
        here.loop.ready_start(named('A', true));
        here.loop.ready(named('a', false));
        here.loop.ready_start(named('B', true));
        here.loop.ready(named('b', false));
        here.loop.post(named('C', true));  // the mailbox keeps the order of each kind
        here.loop.post(named('c', false));
        here.loop.post(named('D', true));
        here.loop.post(named('d', false));
        hook_queue more;
        more.push(named('E', true));
        more.push(named('F', true));
        call quit([&] {
            here.loop.ready_lent(more, 2);
            here.loop.quit();
        });
        here.loop.post(&quit);
        here.run_here();
        CHECK(order == "abcdEAFBCD");  // those on the shelf and the other starts in turn
    }

    TEST_CASE(
        "what is lent may be taken back until it begins, in order, also what has not been taken "
        "from the mail") {
        observed here;
        std::string order;
        std::deque<call> calls;
        const auto named = [&](char name) {
            return &calls.emplace_back([&order, name] { order += name; }, true);
        };
        here.loop.ready_lent(named('a'));
        here.loop.lend(0, named('c'));
        here.loop.ready_lent(named('b'));
        here.loop.lend(0, named('d'));
        here.loop.open();
        here.loop.flush();
        CHECK(here.loop.has_lent());
        hook_queue back;
        unsigned count = 0;
        std::thread([&] {
            REQUIRE(here.loop.lock().try_take());
            count = here.loop.take_back(back, [](const hook*) { return true; });
            here.loop.lock().give_back();
        }).join();
        CHECK(count == 4);
        CHECK_FALSE(here.loop.has_lent());
        while (!back.empty()) {
            hook* item = back.pop();
            item->run(item);
        }
        CHECK(order == "abcd");
        call quit([&] { here.loop.quit(); });
        here.loop.post(&quit);
        here.run_here();
        CHECK(order == "abcd");
    }

    TEST_CASE(
        "starts of its own run before the others, the latest first, in the order in which one hook "
        "made them ready") {
        observed here;
        std::string order;
        call d([&] { order += 'd'; }, true);
        call b(
            [&] {
                order += 'b';
                here.loop.ready_first(&d);
            },
            true);
        call c([&] { order += 'c'; }, true);
        call a(
            [&] {
                order += 'a';
                here.loop.ready_first(&b);
                here.loop.ready_first(&c);
            },
            true);
        call last(
            [&] {
                order += 'z';
                here.loop.quit();
            },
            true);
        here.loop.ready_start(&a);
        here.loop.ready_start(&last);
        here.run_here();
        CHECK(order == "abdcz");
    }

    TEST_CASE("starts of its own without end starve neither older ones nor the others") {
        observed here;
        bool older_ran = false, other_ran = false;
        std::unique_ptr<call> endless;
        endless = std::make_unique<call>(
            [&] {
                if (older_ran && other_ran)
                    here.loop.quit();
                else
                    here.loop.ready_first(endless.get());
            },
            true);
        call older([&] { older_ran = true; }, true);
        call other([&] { other_ran = true; }, true);
        here.loop.ready_first(endless.get());
        here.loop.ready_first(&older);
        here.loop.ready_start(&other);
        here.run_here();
        CHECK(older_ran);
        CHECK(other_ran);
        CHECK(here.turns <= 5);
    }

    TEST_CASE("quit leaves nothing ready behind") {
        observed here;
        int ran = 0;
        std::deque<call> calls;
        call quit([&] { here.loop.quit(); });
        here.loop.ready(&quit);
        for (int i = 0; i < 1000; ++i) here.loop.ready(&calls.emplace_back([&] { ++ran; }));
        for (int i = 0; i < 1000; ++i)
            here.loop.ready_start(&calls.emplace_back([&] { ++ran; }, true));
        here.run_here();
        CHECK(ran == 2000);
    }

    TEST_CASE("quit is heard where nothing else is to be done: the loop does not sleep on it") {
        observed here;
        here.on_idle = [&] { here.loop.quit(); };
        here.run_here();
        CHECK(here.turns == 1);
        CHECK_FALSE(here.was_parked);
    }

    TEST_CASE(
        "a turn runs at most a budget of each kind, so endless resumptions do not starve starts, "
        "nor the mailbox") {
        observed here;
        constexpr int starts = 1000;
        int resumed = 0, started = 0, resumed_when_started = 0, resumed_until_mail = -1;
        std::unique_ptr<call> endless;
        call mail([&] { resumed_until_mail = resumed; });
        endless = std::make_unique<call>([&] {
            if (++resumed == 500) here.loop.post(&mail);
            if (started < starts) here.loop.ready(endless.get());
        });
        std::deque<call> calls;
        for (int i = 0; i < starts; ++i)
            here.loop.ready_start(&calls.emplace_back(
                [&] {
                    ++started;
                    resumed_when_started = resumed;
                    if (started == starts) here.loop.quit();
                },
                true));
        here.loop.ready(endless.get());
        here.run_here();
        CHECK(started == starts);
        // Each turn that had starts had resumptions before them, 64 of each kind; `mail` was one.
        CHECK(resumed_when_started == (starts + 63) / 64 * 64 - 1);
        CHECK(here.most_in_a_turn == 2 * event_loop::turn_budget);
        CHECK(resumed_until_mail >= 500);
        CHECK(resumed_until_mail <= 500 + static_cast<int>(event_loop::turn_budget));
    }

    TEST_CASE(
        "after end_turn none runs but the one at hand; limit_turn bounds the starts of a turn") {
        observed here;
        std::deque<call> calls;
        for (int i = 0; i < 10; ++i)
            here.loop.ready(&calls.emplace_back([&] { here.loop.end_turn(); }));
        call middle(
            [&] {
                CHECK(here.most_in_a_turn <=
                      2);  // the one that ends the turn; `middle`, and one more like that
                here.loop.limit_turn(3);
                here.most_in_a_turn = 0;
            },
            true);
        here.loop.ready_start(&middle);
        here.loop.limit_turn(1);
        for (int i = 0; i < 30; ++i) here.loop.ready_start(&calls.emplace_back([] {}, true));
        call quit([&] { here.loop.quit(); }, true);
        here.loop.ready_start(&quit);
        here.run_here();
        CHECK(here.most_in_a_turn == 3);
    }

    TEST_CASE(
        "resumptions that each use up a turn do not starve starts: every other turn begins with "
        "one") {
        observed here;
        std::string order;
        std::deque<call> calls;
        for (int i = 0; i < 6; ++i)
            here.loop.ready(&calls.emplace_back([&] {
                order += 'r';
                here.loop.end_turn();
            }));
        for (int i = 0; i < 3; ++i)
            here.loop.ready_start(&calls.emplace_back(
                [&] {
                    order += 's';
                    here.loop.end_turn();
                },
                true));
        call quit([&] { here.loop.quit(); });
        here.loop.ready(&quit);
        here.run_here();
        CHECK(order == "rsrsrsrrr");
    }

    TEST_CASE("what is sent leaves when it is flushed, in order, with the guest told before") {
        observed here(0), there(1);
        connect({&here, &there});
        std::string order;
        std::deque<call> calls;
        const auto named = [&](char name) {
            return &calls.emplace_back([&order, name] { order += name; });
        };
        call sends([&] {
            CHECK(here.loop.send(1, named('a')) == 1);
            CHECK(here.loop.send(1, named('b')) == 2);
            run_left_mail(there);
            CHECK(order == "");
            CHECK(here.flushes.empty());
            here.loop.flush();
            CHECK(here.flushes == std::vector<unsigned>{1});
            run_left_mail(there);
            CHECK(order == "ab");
            CHECK(here.loop.send(1, named('c')) == 1);
            here.loop.end_turn();  // the end of a turn flushes too
        });
        call looks([&] {
            run_left_mail(there);
            CHECK(order == "abc");
            for (unsigned i = 1; i <= 2 * event_loop::outbox_limit; ++i)
                CHECK(here.loop.send(1, named('.')) == i);
            here.loop.quit();
        });
        here.loop.ready(&sends);
        here.loop.ready(&looks);
        here.run_here();
        run_left_mail(there);  // and so does leaving
        CHECK(order == "abc" + std::string(2 * event_loop::outbox_limit, '.'));
    }

    TEST_CASE(
        "from the moment somebody wakes a parked loop until it runs: measured where that is asked "
        "for") {
        const auto measured = [](const observed& of) {
            histogram_sum all;
            all.add(*of.loop.wake_latency());
            return all;
        };
        observed here(0, 64, 0, true), there(1, 64, 0, true);
        connect({&here, &there});
        here.run_on_a_thread();
        there.run_on_a_thread();
        std::atomic<std::uint64_t> heard{0};
        call by_message([&] { ++heard; });
        call sends([&] { here.loop.send(1, &by_message); });
        call posted([&] { ++heard; });
        // One that has said that it parks may find what came before it sleeps: then nobody has to wake it.
        const auto once = [&](call& wakes) {
            wait_until([&] { return here.is_parked && there.is_parked; });
            const std::uint64_t before = heard;
            (&wakes == &sends ? here : there).loop.post(&wakes);
            wait_until([&] { return heard == before + 1; });
        };
        while (measured(there).count() == 0) once(posted);  // by the eventfd
        const std::uint64_t by_eventfd = measured(there).count();
        while (measured(there).count() == by_eventfd) once(sends);  // by MSG_RING
        CHECK(measured(there).count() <= heard);
        CHECK(measured(here).count() > 0);
        here.end();
        there.end();
        CHECK(measured(there).total() > 0);

        observed plain;
        CHECK(plain.loop.wake_latency() == nullptr);
    }

    TEST_CASE("a timer wakes nobody's debtor: its wakes are not measured") {
        observed here(0, 64, 0, true);
        struct alarm_timer : timer {
            observed* of;
            int left;
        } alarm;
        alarm.of = &here;
        alarm.left = 5;
        alarm.run = [](hook* self) noexcept {
            auto& due = *static_cast<alarm_timer*>(self);
            if (--due.left == 0) return due.of->loop.quit();
            due.deadline_ns = event_loop::steady_ns() + 1'000'000;
            due.of->loop.arm(due);
        };
        alarm.deadline_ns = event_loop::steady_ns() + 1'000'000;
        call begin([&] { here.loop.arm(alarm); });
        here.loop.ready(&begin);
        here.run_here();
        CHECK(here.was_parked);
        histogram_sum all;
        all.add(*here.loop.wake_latency());
        CHECK(all.count() == 0);
    }

    TEST_CASE("a loop can send to itself") {
        observed here;
        bool ran = false;
        call quit([&] {
            ran = true;
            here.loop.quit();
        });
        call sends([&] { here.loop.send(0, &quit); });
        here.loop.ready(&sends);
        here.run_here();
        CHECK(ran);
    }

    TEST_CASE(
        "timers fire in order and never early, wake a parked loop, and do not fire once "
        "withdrawn") {
        for (const std::uint64_t spin_ns : {0ULL, 50'000ULL, 100'000'000ULL}) {
            CAPTURE(spin_ns);
            observed here(0, 64, spin_ns);
            struct expected : timer {
                std::vector<int>* fired;
                int number;
                bool early;
                event_loop* last_quits;
            };
            std::vector<int> fired;
            std::vector<expected> timers(8);
            const std::uint64_t now = event_loop::steady_ns();
            const std::uint64_t delays_ms[] = {5, 1, 9, 3, 7, 0, 12, 2};
            for (int i = 0; i < 8; ++i) {
                timers[i].fired = &fired;
                timers[i].number = i;
                timers[i].last_quits = i == 6 ? &here.loop : nullptr;
                timers[i].deadline_ns = now + delays_ms[i] * 1'000'000;
                timers[i].run = [](hook* self) noexcept {
                    auto& mine = static_cast<expected&>(*static_cast<timer*>(self));
                    mine.early = event_loop::steady_ns() < mine.deadline_ns;
                    mine.fired->push_back(mine.number);
                    if (mine.last_quits) mine.last_quits->quit();
                };
                here.loop.arm(timers[i]);
            }
            here.loop.withdraw(timers[4]);
            here.run_here();
            CHECK(fired == std::vector<int>{5, 1, 7, 3, 0, 2, 6});
            for (const expected& each : timers) CHECK_FALSE((each.number != 4 && each.early));
        }
    }

    TEST_CASE(
        "a timer may arm itself again, and one without hope of firing keeps nobody from being "
        "woken") {
        observed here;
        struct ticking : timer {
            event_loop* loop;
            int left = 20;
        } tick;
        timer never;
        never.deadline_ns = ~std::uint64_t{0} / 2;  // the end of the steady clock
        never.run = [](hook*) noexcept {};
        tick.loop = &here.loop;
        tick.deadline_ns = 1;  // long past
        tick.run = [](hook* self) noexcept {
            auto& mine = static_cast<ticking&>(*static_cast<timer*>(self));
            if (--mine.left == 0) return mine.loop->quit();
            mine.deadline_ns = event_loop::steady_ns() + 100'000;
            mine.loop->arm(mine);
        };
        here.loop.arm(never);
        here.loop.arm(tick);
        here.run_here();
        CHECK(tick.left == 0);
        here.loop.withdraw(never);

        here.loop.arm(never);
        bool woken = false;
        call quit([&] {
            woken = true;
            here.loop.quit();
        });
        std::thread foreign([&] {
            wait_until([&] { return here.is_parked.load(); });
            here.loop.post(&quit);
        });
        here.run_here();
        foreign.join();
        CHECK(woken);
        here.loop.withdraw(never);
    }

    TEST_CASE("a foreign thread's post wakes a parked loop, every time") {
        observed there;
        there.run_on_a_thread();
        std::atomic<int> ran{0};
        call work([&] { ++ran; });
        for (int round = 1; round <= 3000; ++round) {
            if (round % 2 == 0) wait_until([&] { return there.is_parked.load(); });
            there.loop.post(&work);
            wait_until([&] { return ran == round; });
        }
        there.end();
    }

    TEST_CASE("two loops wake each other by MSG_RING") {
        CHECK(ring(8).has_msg_ring());
        CHECK(ping_pong(3000) == 3000);
    }

    TEST_CASE("two loops wake each other by eventfd where the kernel has no MSG_RING") {
        const auto child = in_child([] {
            refuse(SYS_io_uring_register, EINVAL,
                   IORING_REGISTER_PROBE);  // nothing is known of the kernel: do without
            return std::string(ring(8).has_msg_ring() ? "msg_ring " : "eventfd ") +
                   std::to_string(ping_pong(3000));
        });
        CHECK(child.ended);
        CHECK(child.said == "eventfd 3000");
        CHECK(child.complained == "");
    }

    TEST_CASE("a nudge makes a parked loop look for work, every time") {
        observed here(0), there(1);
        connect({&here, &there});
        std::atomic<int> offered{0}, found{0};
        there.on_find_work = [&] {
            if (found == offered) return false;
            found = offered.load();
            return true;
        };
        there.run_on_a_thread();
        int round = 0;
        std::unique_ptr<call> again;
        again = std::make_unique<call>([&] {
            if (round == 2000) return here.loop.quit();
            if (round % 2 == 0) wait_until([&] { return there.is_parked.load(); });
            offered = ++round;
            here.loop.nudge(1);
            // A loop that is awake finds it at the latest when it parks.
            wait_until([&] { return found == round; });
            here.loop.ready(again.get());
        });
        here.loop.ready(again.get());
        here.run_here();
        there.end();
        CHECK(found == 2000);
    }

    TEST_CASE(
        "who is woken for nothing wakes up by itself a few times, then sleeps; who is woken for "
        "something does not") {
        observed here(0), there(1);
        connect({&here, &there});
        std::atomic<bool> ran{false};
        call work([&] { ran = true; });
        there.run_on_a_thread();
        call nudge([&] {
            // A nudge that comes just before the loop sleeps keeps it from that: then it has not been woken.
            wait_until([&] {
                if (there.looks == 0) here.loop.nudge(1);
                return there.looks >= event_loop::watchful_for;
            });
            here.loop.send(1, &work);
            here.loop.hand_over(1);
            wait_until([&] { return ran && there.is_parked; });
            here.loop.quit();
        });
        here.loop.ready(&nudge);
        here.run_here();
        there.end();
        CHECK(there.looks <=
              2 * event_loop::watchful_for);  // a second nudge may have met the first look
        CHECK(there.passes_on > 0);
    }

    TEST_CASE("an idle loop is not woken, whatever the others do") {
        observed here(0), there(1), third(2);
        connect({&here, &there, &third});
        there.run_on_a_thread();
        third.run_on_a_thread();
        wait_until([&] { return there.is_parked.load(); });
        const std::uint64_t turns = there.turns, idled = there.idled;
        const std::uint64_t switches = voluntary_switches(there.thread_id);
        int left = 20'000;
        std::atomic<int> answered{0};
        call answer([&] { ++answered; });
        std::unique_ptr<call> busy;
        busy = std::make_unique<call>([&] {
            if (left-- == 0) return here.loop.quit();
            if (answered == 0 || left % 100 == 0) {
                const int before = answered;
                here.loop.send(2, &answer);
                here.loop.flush();
                wait_until([&] { return answered != before; });
            }
            here.loop.ready(busy.get());
        });
        here.loop.ready(busy.get());
        here.run_here();
        CHECK(there.turns == turns);
        CHECK(there.idled == idled);
        CHECK(voluntary_switches(there.thread_id) <=
              switches + 1);  // it may just have been on its way to sleep
        third.end();
        there.end();
    }

    TEST_CASE("a ring of eight entries wakes any number of others") {
        constexpr unsigned receivers = 12;
        constexpr int rounds = 100;
        observed here(0, 8);
        std::vector<std::unique_ptr<observed>> others;
        std::vector<observed*> all{&here};
        for (unsigned i = 1; i <= receivers; ++i)
            all.push_back(others.emplace_back(std::make_unique<observed>(i, 8)).get());
        connect(all);
        for (const auto& each : others) each->run_on_a_thread();
        int round = 0;
        unsigned missing = 0;
        std::deque<call> asks, answers;
        std::function<void()> ask_all = [&] {
            missing = receivers;
            for (unsigned i = 1; i <= receivers; ++i) here.loop.send(i, &asks[i - 1]);
        };
        for (unsigned i = 1; i <= receivers; ++i) {
            answers.emplace_back([&] {
                if (--missing != 0) return;
                ++round == rounds ? here.loop.quit() : ask_all();
            });
            asks.emplace_back([&, i] { others[i - 1]->loop.send(0, &answers[i - 1]); });
        }
        call begin([&] {
            for (const auto& each : others) wait_until([&] { return each->is_parked.load(); });
            ask_all();
        });
        here.loop.ready(&begin);
        here.run_here();
        for (const auto& each : others) each->end();
        CHECK(round == rounds);
    }

    TEST_CASE("a loop may be opened again on another thread, and is woken there") {
        observed here(0), there(1);
        connect({&here, &there});
        std::atomic<int> ran{0};
        for (int life = 1; life <= 5; ++life) {
            there.run_on_a_thread();
            wait_until([&] { return there.is_parked.load(); });
            call work([&] { ++ran; });
            call sends([&] {
                here.loop.send(1, &work);
                here.loop.quit();
            });
            here.loop.ready(&sends);
            std::thread([&] { here.run_here(); }).join();
            wait_until([&] { return ran == life; });
            there.end();
        }
    }

    TEST_CASE("a thread that leaves a loop leaves no watch behind, which would be served by it") {
        // The kernel lists a ring's polls in /proc, each with the operation that it came from.
        const auto polls = [](int ring) {
            std::ifstream info("/proc/self/fdinfo/" + std::to_string(ring));
            std::string line;
            int found = 0;
            for (bool inside = false; std::getline(info, line);) {
                if (inside && line.find("op=") != std::string::npos) ++found;
                inside = (inside && line.starts_with(" ")) || line.starts_with("PollList");
            }
            return found;
        };
        struct hosted final : event_loop::guest {
            void turn_began(std::uint64_t) noexcept override {}
            bool find_work(bool) noexcept override { return false; }
            bool work_waits() const noexcept override { return false; }
            void before_flush() noexcept override {}
            void delivered() noexcept override {}
            bool flushed(unsigned, bool) noexcept override { return false; }
            void turn_ended(std::uint64_t, unsigned) noexcept override {}
            void going_idle() noexcept override {}
            void parked(bool now) noexcept override {
                if (now) has_parked = true;
            }
            void hungry(bool) noexcept override {}
            void hungry_no_more() noexcept override {}
            bool recall(unsigned) noexcept override { return false; }
            void lent_to(unsigned) noexcept override {}
            void looks_again() noexcept override {}
            void awake_with_work() noexcept override {}
            std::atomic<bool> has_parked{false};
            event_loop loop{{.ring_entries = 8, .changes_thread = true}, *this};
        } control;
        event_loop* alone[] = {&control.loop};
        control.loop.connect(alone);
        std::atomic<bool> left{false}, looked{false};
        std::thread host([&] {
            control.loop.open();
            control.loop.run();
            left = true;
            wait_until([&] { return looked.load(); });
        });
        wait_until([&] { return control.has_parked && control.loop.parked(); });
        const int ring = control.loop.own_ring().descriptor();
        CHECK(polls(ring) == 1);
        call quit([&] { control.loop.quit(); });
        control.loop.post(&quit);
        wait_until([&] { return left.load(); });
        CHECK(polls(ring) == 0);
        looked = true;
        host.join();
    }

    TEST_CASE("mail that arrives between two lives is served in the next") {
        observed here;
        int ran = 0;
        call mail([&] { ++ran; });
        call quit([&] { here.loop.quit(); });
        here.loop.post(&quit);
        here.run_here();
        here.loop.post(&mail);
        CHECK(ran == 0);
        call quit_again([&] { here.loop.quit(); });
        here.loop.post(&quit_again);
        here.run_here();
        CHECK(ran == 1);
    }

    TEST_CASE(
        "once closed, submit is refused and post is not; what was accepted before is served") {
        observed here;
        int ran = 0;
        call before([&] { ++ran; }), after([&] { ran += 100; }), inside([&] {
            ++ran;
            here.loop.quit();
        });
        CHECK_FALSE(here.loop.closed());
        CHECK(here.loop.submit(&before));
        here.loop.close();
        CHECK(here.loop.closed());
        CHECK_FALSE(here.loop.submit(&after));
        here.loop.post(&inside);
        here.run_here();
        CHECK(ran == 2);
        CHECK_FALSE(here.loop.submit(&after));
    }

    TEST_CASE("stress: submits from many threads against close: each is refused or runs") {
        for (int round = 0; round < 100; ++round) {
            observed there;
            there.run_on_a_thread();
            std::atomic<int> ran{0}, accepted{0};
            std::vector<std::deque<call>> calls(4);
            std::vector<std::thread> threads;
            for (auto& mine : calls)
                threads.emplace_back([&] {
                    for (;;) {
                        if (!there.loop.submit(&mine.emplace_back([&] { ++ran; }))) return;
                        ++accepted;
                        std::this_thread::yield();
                    }
                });
            wait_until([&] { return accepted >= round; });
            there.loop.close();
            for (std::thread& each : threads) each.join();
            there.end();  // its quit comes behind all that was accepted
            CHECK(ran == accepted);
        }
    }
}

TEST_SUITE("event loop: requests") {
    TEST_CASE("a completion, and the same object again from within") {
        observed here;
        const test_pipe pipe;
        char read = 0;
        std::string all;
        noted request([](std::int32_t, std::uint32_t, bool) {});
        request.body = [&](std::int32_t result, std::uint32_t, bool last) {
            CHECK(result == 1);
            CHECK(last);
            CHECK_FALSE(request.pending());
            all += read;
            if (all.size() == 3) {
                here.loop.quit();
                return;
            }
            pipe.put(static_cast<char>(read + 1));
            here.loop.start(request);  // the entry is as it was
        };
        io_uring_prep_read(request.sqe(), pipe.ends[0], &read, 1, 0);
        call begin([&] {
            here.loop.start(request);
            CHECK(request.pending());
            CHECK(here.loop.requests_in_flight() == 1);
            pipe.put('a');
        });
        here.loop.post(&begin);
        here.run_here();
        CHECK(all == "abc");
        CHECK(here.loop.requests_in_flight() == 0);
    }

    TEST_CASE("an error is a result") {
        observed here;
        char byte;
        std::int32_t said = 0;
        noted request([&](std::int32_t result, std::uint32_t, bool) {
            said = result;
            here.loop.quit();
        });
        io_uring_prep_read(request.sqe(), -1, &byte, 1, 0);
        call begin([&] { here.loop.start(request); });
        here.loop.post(&begin);
        here.run_here();
        CHECK(said == -EBADF);
    }

    TEST_CASE("cancelled before it was submitted, and in flight; twice; when it is idle") {
        for (const bool in_flight : {false, true}) {
            observed here;
            const test_pipe pipe;
            char byte = 0;
            int completions = 0;
            noted request([&](std::int32_t result, std::uint32_t, bool last) {
                CHECK(result == -ECANCELED);
                CHECK(last);
                ++completions;
                here.loop.cancel(request);  // idle: nothing
                here.loop.quit();
            });
            io_uring_prep_read(request.sqe(), pipe.ends[0], &byte, 1, 0);
            here.loop.cancel(request);  // idle
            int turns = 0;
            call again([] {});
            again.body = [&] {
                if (in_flight && ++turns < 5) {
                    here.loop.ready(&again);
                    here.loop.submit_requests();
                    return;
                }
                here.loop.cancel(request);
                here.loop.cancel(request);
            };
            call begin([&] {
                here.loop.start(request);
                again.body();
            });
            here.loop.post(&begin);
            here.run_here();
            CHECK(completions == 1);
            CHECK(here.loop.requests_in_flight() == 0);
            pipe.put('x');  // nobody has read it
            CHECK(::read(pipe.ends[0], &byte, 1) == 1);
        }
    }

    TEST_CASE(
        "a cancellation against a success: one of them, nothing is lost, the next one of the slot "
        "is not met") {
        observed here;
        const test_pipe pipe;
        constexpr int rounds = 5000;
        int round = 0, read = 0, cancelled = 0;
        char byte = 0;
        noted request([](std::int32_t, std::uint32_t, bool) {});
        const auto begin_round = [&] {
            here.loop.start(request);
            if (round % 3 == 0) here.loop.submit_requests();
            if (round % 2 == 0) pipe.put('x');
            here.loop.cancel(request);
            if (round % 2 != 0) pipe.put('x');
        };
        request.body = [&](std::int32_t result, std::uint32_t, bool last) {
            CHECK(last);
            if (result == 1) {
                ++read;
            } else {
                CHECK(result == -ECANCELED);
                ++cancelled;
                CHECK(::read(pipe.ends[0], &byte, 1) == 1);
            }
            if (++round == rounds)
                here.loop.quit();
            else
                begin_round();
        };
        io_uring_prep_read(request.sqe(), pipe.ends[0], &byte, 1, 0);
        call begin([&] { begin_round(); });
        here.loop.post(&begin);
        here.run_here();
        CHECK(read + cancelled == rounds);
        CHECK(here.loop.requests_in_flight() == 0);
    }

    TEST_CASE("multishot: completions that are not the last, and a cancellation that is") {
        observed here;
        const test_pipe pipe;
        int seen = 0, lasts = 0;
        noted request([&](std::int32_t result, std::uint32_t flags, bool last) {
            CHECK(last == !(flags & IORING_CQE_F_MORE));
            if (last) {
                ++lasts;
                CHECK(result == -ECANCELED);
                CHECK_FALSE(request.pending());
                here.loop.quit();
                return;
            }
            CHECK(request.pending());
            char byte;
            CHECK(::read(pipe.ends[0], &byte, 1) == 1);
            if (++seen < 10)
                pipe.put('x');
            else
                here.loop.cancel(request);
        });
        io_uring_prep_poll_multishot(request.sqe(), pipe.ends[0], POLLIN);
        call begin([&] {
            here.loop.start(request);
            pipe.put('x');
        });
        here.loop.post(&begin);
        here.run_here();
        CHECK(seen == 10);
        CHECK(lasts == 1);
    }

    TEST_CASE("a hundred thousand through a ring of eight entries") {
        observed here(0, 8);
        constexpr int total = 100'000;
        int ended = 0, cancelled = 0;
        const test_pipe pipe;
        std::vector<char> bytes(total);
        std::deque<noted> requests;
        for (int i = 0; i < total; ++i) {
            noted& each = requests.emplace_back([&](std::int32_t result, std::uint32_t, bool last) {
                CHECK(last);
                cancelled += result == -ECANCELED;
                if (++ended == total) here.loop.quit();
            });
            if (i % 100 == 0)
                io_uring_prep_read(each.sqe(), pipe.ends[0], &bytes[static_cast<std::size_t>(i)], 1,
                                   0);
            else
                io_uring_prep_nop(each.sqe());
        }
        call begin([&] {
            for (noted& each : requests) here.loop.start(each);
            for (int i = 0; i < total; i += 100)
                here.loop.cancel(requests[static_cast<std::size_t>(i)]);
        });
        here.loop.post(&begin);
        here.run_here();
        CHECK(ended == total);
        CHECK(cancelled == total / 100);
        CHECK(here.loop.requests_in_flight() == 0);
    }

    TEST_CASE("quit_when_settled awaits what is in flight, and what that starts; quit does not") {
        const test_pipe pipe;
        std::atomic<bool> asked{false};
        bool ended = false, followed = false;
        char byte = 0;
        observed here;
        noted second([&](std::int32_t result, std::uint32_t, bool) { followed = result == 0; });
        io_uring_prep_nop(second.sqe());
        noted request([&](std::int32_t result, std::uint32_t, bool) {
            ended = result == 1;
            here.loop.start(second);
        });
        io_uring_prep_read(request.sqe(), pipe.ends[0], &byte, 1, 0);
        call begin([&] {
            here.loop.start(request);
            here.loop.quit();
        });
        here.loop.post(&begin);
        here.run_here();
        CHECK(here.loop.requests_in_flight() == 1);
        call settle([&] {
            here.loop.quit_when_settled();
            asked = true;
        });
        here.loop.post(&settle);
        std::thread other([&] {
            wait_until([&] { return asked.load(); });
            pipe.put('x');
        });
        here.run_here();
        other.join();
        CHECK(ended);
        CHECK(followed);
        CHECK(here.loop.requests_in_flight() == 0);
    }

    TEST_CASE("a timer that is armed by a completion fires, also when the loop has nothing else") {
        observed here;
        const test_pipe pipe;
        struct alarm : timer {
            event_loop* loop;
        } late;
        late.loop = &here.loop;
        late.run = [](hook* due) noexcept { static_cast<alarm*>(due)->loop->quit(); };
        char byte = 0;
        noted request([&](std::int32_t, std::uint32_t, bool) {
            late.deadline_ns = event_loop::steady_ns() + 3'000'000;
            here.loop.arm(late);
        });
        io_uring_prep_read(request.sqe(), pipe.ends[0], &byte, 1, 0);
        call begin([&] { here.loop.start(request); });
        here.loop.post(&begin);
        std::thread other([&] {
            wait_until([&] { return here.is_parked.load(); });
            pipe.put('x');
        });
        here.run_here();
        other.join();
        CHECK(byte == 'x');
    }
}
