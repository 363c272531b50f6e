// SPDX-License-Identifier: MIT
#pragma once

#include "base/asymmetric_lock.hpp"
#include "base/histogram.hpp"
#include "loop/mailbox.hpp"
#include "loop/ring.hpp"
#include "loop/timer_wheel.hpp"

#include <tokengate/detail/hook.hpp>
#include <tokengate/detail/io_request.hpp>
#include <tokengate/detail/relaxed.hpp>

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

/// An event loop on io_uring: a mailbox for other threads, two ready queues, an outbox for each
/// other loop, timers, and a ring in which the loop sleeps. It handles hooks, and knows nothing of
/// tokens.
///
///     event_loop loop({.index = 0, .spin_ns = 50'000, .starts = &start_token}, guest);
///     loop.connect(all_loops);
///     loop.open();            // on the thread that will run it; throws ring_unavailable
///     loop.run();             // until quit() is called on this thread
///
/// A turn: mailbox → the guest's work → due timers → ready hooks, up to a budget → flush → ring.
/// Fairness is bounded: between two polls of the mailbox and the ring a loop runs at most 2 ×
/// `turn_budget` hooks. Once a guest has called `end_turn`, the loop runs only the current hook.
/// Hooks whose `run` is `starts` (new work) come after all others (resumptions). Each kind is in
/// FIFO order and has its own budget in a turn. If a turn ends before any start, the next turn
/// begins with a start. So neither kind starves. The loop's own starts (`ready_first`) go before
/// other starts, the latest first, so that work that makes work is done depth first. The first
/// start of each turn is one that later ones would otherwise pass by for ever: in alternate turns
/// an old one of the loop's own, and one of the other starts.
///
/// *Lent* work is new work that any loop could do as well. It waits on the loop's shelf until it
/// begins there, and other threads may take it back before. Starts come alternately from the shelf
/// and from the other new work.
///
/// Sending is local until a flush. `send` collects hooks for a loop, which leave in one chain. They
/// leave at the end of the turn, or when the guest calls `flush` or `hand_over`: if there are
/// `outbox_limit` hooks, and before something that may run long. If the receiver is parked, the
/// sender wakes it: by IORING_OP_MSG_RING from ring to ring, or else by its eventfd. A wake by
/// MSG_RING remains owed until the kernel has had the chance to report an error (success is
/// silent). If the kernel reports an error, the loop writes the eventfd instead.
///
/// No loop withholds work that another one needs. While this loop runs something long, the
/// receiving loop may fetch its hooks from an outbox. Other threads may take back what lies on the
/// shelf. An idle loop scans the other loops for both. While it spins, it scans for the first
/// `patient_for_ns` only loops that have made no progress since its last scan, and then all. Before
/// it sleeps, it scans all. Outboxes and shelf are therefore guarded by a lock that costs its owner
/// next to nothing (asymmetric_lock.hpp).
///
/// Requests to the kernel (io_request) leave with the turn's one enter. While the kernel takes no
/// more (EBUSY), they wait in a queue, so a ring of any size serves any number. A due timer runs at
/// once, between the mail and the ready hooks. It should only make something ready.
///
/// Parking: the loop spins for a while, then publishes *parked* in the mailbox word, asks the guest
/// once more for work, and sleeps in the ring. The sleep has a timeout only if a timer is armed or
/// the loop is watchful. Code that runs between the publishing and the sleep may send, nudge and
/// reap. A loop therefore sleeps only if the parked bit is still set, the eventfd is watched, and
/// nothing is left to send or to run. Apart from timers and watchfulness, nothing wakes an idle
/// loop periodically.
///
/// Threads: the functions of the section "any thread" from any thread, everything else from the
/// loop's own. A loop that `changes_thread` (the control loop) may be run by another thread after
/// `run` has returned; its ring stays the same.

namespace tokengate::detail {

class event_loop {
public:
    static constexpr unsigned outbox_limit = 32;
    static constexpr unsigned turn_budget = 64;
    static constexpr std::uint64_t hungry_after_ns = 10'000;
    // Plus 40 ns for each loop.
    static constexpr std::uint64_t look_around_every_ns = 5'000;
    // For so long an idle loop does not scan loops that make progress.
    static constexpr std::uint64_t patient_for_ns = 20'000;
    /// A loop that was woken and found nothing stays watchful: for `watchful_for` sleeps it sleeps
    /// no longer than this.
    static constexpr std::uint64_t look_every_ns = 500'000;
    static constexpr std::uint64_t look_soon_ns = 50'000;
    static constexpr unsigned watchful_for = 4;

    /// What an executor adds to its loop. All calls are on the loop's thread.
    class guest {
    public:
        virtual void turn_began(std::uint64_t wall_ns) noexcept = 0;
        /// Finds more work (at the gate) and makes it ready. True if there was some. `parking`: the
        /// loop is published as parked.
        virtual bool find_work(bool parking) noexcept = 0;
        /// While the loop spins: whether a call of `find_work` is worthwhile.
        [[nodiscard]] virtual bool work_waits() const noexcept = 0;
        /// Before chains leave: the guest sends the hooks that it has collected itself.
        virtual void before_flush() noexcept = 0;
        /// After chains have left: the guest sends the hooks that it collected later.
        virtual void delivered() noexcept = 0;
        /// This loop's outbox for `destination` is about to leave. `empty`: the destination has
        /// fetched it meanwhile. Returns true if the destination had nothing to do.
        virtual bool flushed(unsigned destination, bool empty) noexcept = 0;
        /// Something that was lent to that loop will wait there. A delivery is under way: the guest
        /// must not send.
        virtual void lent_to(unsigned destination) noexcept = 0;
        virtual void turn_ended(std::uint64_t busy_ns, unsigned ran) noexcept = 0;
        /// Nothing is ready; the loop is about to spin or park.
        virtual void going_idle() noexcept = 0;
        virtual void parked(bool now) noexcept = 0;
        /// Nothing has been ready for `hungry_after_ns`, or the loop is about to park (`asleep`).
        /// Other loops should hand over at once.
        virtual void hungry(bool asleep) noexcept = 0;
        /// The loop is about to park, for `look_every_ns` at most. It then scans the other loops by
        /// itself.
        virtual void looks_again() noexcept = 0;
        virtual void hungry_no_more() noexcept = 0;
        /// The loop had published that it sleeps, and now has something to run. The guest passes
        /// wake-ups that came meanwhile on to another loop.
        virtual void awake_with_work() noexcept = 0;
        /// The loop is idle: takes back what is lent to that loop, or what its guest keeps, and
        /// makes some of it ready. True if it did.
        virtual bool recall(unsigned from) noexcept = 0;

    protected:
        ~guest() = default;
    };

    struct options {
        unsigned index = 0;  ///< among the loops given to `connect`
        unsigned ring_entries = 256;
        std::uint64_t spin_ns = 0;
        /// Several threads run the loop, one after the other.
        bool changes_thread = false;
        bool measure_wakes = false;  ///< keep `wake_latency`
        void (*starts)(hook*) noexcept = nullptr;
    };

    event_loop(const options& chosen, guest& of);
    ~event_loop();
    event_loop(const event_loop&) = delete;
    event_loop& operator=(const event_loop&) = delete;

    /// Called before any loop runs. Each loop must live until the threads of all others have ended.
    void connect(std::span<event_loop* const> loops);

    // ---- any thread ----

    /// For a thread without a loop, inside the runtime, and for a signal handler. Always delivered.
    void post(hook* item) noexcept;
    /// The same for a chain, linked from the newest to the oldest.
    void post(hook* newest, hook* oldest) noexcept;
    /// For a foreign thread. False once closed; then the item still belongs to the caller.
    [[nodiscard]] bool submit(hook* item) noexcept;
    void close() noexcept { mailbox_.close(); }
    [[nodiscard]] bool closed() const noexcept { return mailbox_.closed(); }
    [[nodiscard]] bool parked() const noexcept { return mailbox_.parked(); }
    /// A hint: something has been pushed and not been taken.
    [[nodiscard]] bool has_mail() const noexcept {
        return !mailbox_.empty() || mailbox_.has_lent();
    }
    /// On the steady clock. 0 while the loop has nothing to run: idle, spinning, parked, or not run
    /// at all.
    [[nodiscard]] std::uint64_t turn_began_ns() const noexcept { return turn_ns_.load(); }
    /// A hint: something is lent to this loop and has not begun. The order of the two loads
    /// matters: a thread that moves hooks from the list to the shelf notes that in `shelved_`
    /// before it empties the list.
    [[nodiscard]] bool has_lent() const noexcept {
        return mailbox_.has_lent() || shelved_.load() != 0;
    }
    /// A hint: something that this loop lends waits in an outbox.
    [[nodiscard]] bool lends() const noexcept { return lent_away_.load() != 0; }
    /// For another loop's thread. The holder may use what the lock guards, here and in the guest.
    [[nodiscard]] asymmetric_lock& lock() noexcept { return lock_; }
    /// Inside the lock: takes the lent hooks that have not begun here and for which `goes` is true,
    /// oldest first. Returns their number.
    template <class Predicate>
    unsigned take_back(hook_queue& into, Predicate goes) noexcept {
        shelve_lent();
        const auto taken = static_cast<unsigned>(shelf_.split(goes, into));
        shelved_.store(shelved_.load() - taken);
        return taken;
    }
    /// Inside the lock: takes the hooks that this loop was about to lend to others and for which
    /// `goes` is true. Calls taken(destination, count).
    template <class Predicate, class Taken>
    void take_out(hook_queue& into, Predicate goes, Taken taken) noexcept {
        if (!lends()) return;
        for (unsigned destination = 0; destination < outboxes_.size(); ++destination) {
            outbox& from = outboxes_[destination];
            hook_queue oldest_first;
            for (hook* item = std::exchange(from.lent, {}).newest; item;) {
                hook* next = item->next;
                hook_queue before;
                before.push(item);
                oldest_first.prepend(before);
                item = next;
            }
            const auto count = static_cast<std::uint32_t>(oldest_first.split(goes, into));
            while (!oldest_first.empty()) from.lent.push(oldest_first.pop());
            if (count == 0) continue;
            from.count.store(from.count.load() - count);
            lent_away_.store(lent_away_.load() - count);
            taken(destination, count);
        }
    }
    /// The times from the moment a thread wakes this loop, parked, until the loop runs. Null unless
    /// the loop measures them.
    [[nodiscard]] const histogram* wake_latency() const noexcept { return wake_latency_.get(); }

    // ---- the loop's thread ----

    void open();
    void run();
    void quit() noexcept { quitting_ = true; }
    /// Leaves once the kernel owes no completion. It is called when no token is left: then what is
    /// in flight ends by itself (a close) or has been cancelled.
    void quit_when_settled() noexcept { quitting_ = settling_ = true; }
    /// After every loop has left: a chain of the hooks that no loop took.
    hook* take_left_mail() noexcept { return mailbox_.take(); }

    /// Appends to this loop's own queues.
    void ready(hook* item) noexcept { ready_.push(item); }
    void ready_start(hook* item) noexcept { starts_.push(item); }
    /// Appends to the shelf.
    void ready_lent(hook* item) noexcept;
    void ready_lent(hook_queue& items, unsigned count) noexcept;
    /// A start of this loop's own. After the current hook has returned, the starts that it made
    /// ready in this way run in this order, before all earlier ones. One of the others still runs
    /// in every turn.
    void ready_first(hook* item) noexcept { fresh_.push(item); }
    /// Whether anything waits here, apart from the current hook.
    [[nodiscard]] bool something_ready() const noexcept { return !nothing_ready(); }

    /// `send` adds the hook to the outbox for another loop, until the next flush; `lend` does so
    /// for that loop's shelf. Both return the number of hooks in that outbox.
    unsigned send(unsigned destination, hook* item) noexcept;
    unsigned lend(unsigned destination, hook* item) noexcept;
    /// Delivers that outbox at once.
    void hand_over(unsigned destination) noexcept;
    /// Delivers the outboxes of all loops that have nothing to run.
    void hand_over_to_idle() noexcept;
    void flush() noexcept;
    /// The loop is idle and scans other loops: it left something where it is, and has to scan it
    /// again.
    void stay_watchful() noexcept {
        if (asymmetric_lock::can_be_taken()) looks_left_ = watchful_for;
    }
    /// The same, but soon: another thread was inside the other loop's lock.
    void look_again_soon() noexcept {
        stay_watchful();
        looks_soon_ = true;
    }
    /// Inside the other loop's lock: makes what that loop was about to send or lend to this one
    /// this loop's mail. True if there was some.
    bool fetch_inside(event_loop& other) noexcept;
    /// Wakes the loop if it is parked, without a message. True if it was parked.
    bool nudge(unsigned destination) noexcept;
    /// The same, but the wake leaves with the flush or the delivery that is under way or follows.
    bool nudge_with_flush(unsigned destination) noexcept;

    void arm(timer& armed) { timers_.arm(armed); }
    void withdraw(timer& armed) noexcept { timers_.withdraw(armed); }

    /// Submits a request to the kernel; see io_request. Throws std::bad_alloc if there is no memory
    /// for a ticket; then nothing has happened.
    void start(io_request& request);
    /// Requests the kernel to cancel the request. Its last completion then comes sooner, with what
    /// had been achieved or with -ECANCELED.
    void cancel(io_request& request) noexcept;
    /// Submits all requests made so far, before something that may run long.
    void submit_requests() noexcept;
    [[nodiscard]] std::size_t requests_in_flight() const noexcept { return in_flight_; }
    [[nodiscard]] ring& own_ring() noexcept { return *ring_; }

    /// The turn ends after the current hook, because it has lasted long enough.
    void end_turn() noexcept { turn_over_ = true; }
    void limit_turn(unsigned starts) noexcept { start_budget_ = starts; }

    static std::uint64_t steady_ns() noexcept;
    static std::uint64_t wall_ns() noexcept;

private:
    struct chain {  // linked from the newest to the oldest
        hook* newest = nullptr;
        hook* oldest = nullptr;

        void push(hook* item) noexcept {
            item->next = newest;
            if (!newest) oldest = item;
            newest = item;
        }
    };

    struct outbox {
        chain bound;  // in the lock
        chain lent;   // in the lock
        /// Stored inside the lock. A hint for the receiving loop.
        relaxed<std::uint32_t> count{};
        bool dirty = false;  // owner only: listed in dirty_
    };

    /// A request that is in flight. The kernel knows its ticket: index and generation.
    struct ticket_slot {
        io_request* request = nullptr;
        std::uint32_t generation = 0;
        std::uint32_t next_free = 0;
    };

    void turn() noexcept;
    bool submit_one(io_request& request) noexcept;
    void push_requests() noexcept;
    void complete(const io_uring_cqe& done) noexcept;
    void finish(io_request& request, std::int32_t result, std::uint32_t flags) noexcept;
    unsigned run_ready() noexcept;
    void take_mail() noexcept;
    void shelve_lent() noexcept;  // inside the lock
    [[nodiscard]] bool may_keep() const noexcept { return turn_ns_.load() != 0 || has_lent(); }
    hook* next_start(bool first_of_turn) noexcept;
    hook* next_other_start() noexcept;
    static hook* pop_from(hook_queue& starts) noexcept;
    hook* pop_shelf() noexcept;
    unsigned put(outbox& to, unsigned destination) noexcept;
    outbox take_from(outbox& left) noexcept;  // inside the lock
    bool put_in_mailbox(const outbox& arrived) noexcept;
    bool fetch_from(event_loop& other) noexcept;
    void fetch_from_all() noexcept;
    bool look_around(bool only_where_nothing_moves) noexcept;
    [[nodiscard]] bool others_run() const noexcept;
    void sort_in(hook* oldest_first) noexcept;
    void deliver(unsigned destination) noexcept;
    void wake(event_loop& parked_loop) noexcept;
    void submit_wakes() noexcept;
    void wake_by_eventfd() noexcept;
    void note_wake_asked() noexcept;
    void note_awake() noexcept;
    void serve_ring() noexcept;
    void watch_eventfd() noexcept;
    void stop_watching_eventfd() noexcept;
    void idle() noexcept;
    [[nodiscard]] bool spin() noexcept;
    void park() noexcept;
    [[nodiscard]] bool may_sleep() noexcept;
    void settle() noexcept;
    [[nodiscard]] bool something_came() const noexcept;
    [[nodiscard]] bool nothing_ready() const noexcept { return ready_.empty() && no_start(); }
    [[nodiscard]] bool no_start() const noexcept {
        return fresh_.empty() && own_.empty() && older_own_.empty() && no_other_start();
    }
    [[nodiscard]] bool no_other_start() const noexcept { return starts_.empty() && !has_lent(); }

    const options options_;
    guest& guest_;
    std::vector<event_loop*> loops_;

    // Only the loop's thread touches these.
    hook_queue ready_;
    hook_queue starts_;
    // By ready_first, since the current hook was taken.
    hook_queue fresh_;
    hook_queue own_;        // by ready_first before that, the latest in front
    hook_queue older_own_;  // own_ of earlier turns; nothing is put before them any more
    // The latest turn took its first start from older_own_, not from the other starts.
    bool own_turn_ = false;
    // Destinations whose outbox has received a hook since it last left.
    std::vector<unsigned> dirty_;
    // The moves_ of each loop at this loop's last scan.
    std::vector<std::uint32_t> seen_moves_;
    // How many sleeps end early, so that the loop scans the others by itself.
    unsigned looks_left_ = 0;
    // The next such sleep is shorter.
    bool looks_soon_ = false;
    // The loop does not spin before it sleeps again.
    bool woke_for_nothing_ = false;
    // Flipped for each start: true if the shelf has its turn, false for the other starts.
    bool shelf_next_ = false;
    timer_wheel timers_;
    // See turn_began_ns. Stored by the loop, loaded by other threads.
    relaxed<std::uint64_t> turn_ns_{};
    // Wall clock minus steady clock, as of the start of `run`.
    std::uint64_t wall_offset_ns_ = 0;
    unsigned start_budget_ = turn_budget;
    bool turn_over_ = false;
    // The latest turn was over before a start had its turn.
    bool start_owed_ = false;
    bool quitting_ = false;
    bool settling_ = false;
    bool watching_eventfd_ = false;
    bool wakes_to_submit_ = false;
    std::vector<ticket_slot> tickets_;
    std::uint32_t free_ticket_ = 0;  // index + 1 of the first free slot
    std::size_t in_flight_ = 0;      // requests with a ticket
    hook_queue starts_waiting_;      // requests that the kernel has not taken yet
    // Requests to be cancelled. They are in flight and linked nowhere else.
    hook_queue cancels_;
    std::unique_ptr<ring> ring_;
    const std::unique_ptr<histogram> wake_latency_;

    // The loop's thread touches these, and other threads that are inside the lock.
    asymmetric_lock lock_;
    std::vector<outbox> outboxes_;
    hook_queue shelf_;
    relaxed<std::uint32_t> shelved_{};  // length of shelf_; a hint for others
    // The number of lent hooks in all outboxes. A hint for others.
    relaxed<std::uint32_t> lent_away_{};

    // Shared.
    /// The number of hooks run and chains sent, stored by the loop. A thread that finds it
    /// unchanged assumes that the loop runs something long.
    relaxed<std::uint32_t> moves_{};
    int eventfd_;
    /// Stored by the first `open` (release), loaded by senders (acquire). -1 while there is no ring
    /// to message.
    std::atomic<int> ring_descriptor_{-1};
    /// The time at which the first waker began to wake this loop; 0 before. Used only if wakes are
    /// measured. Relaxed: note_wake_asked stores it by compare-and-swap, and the loop takes it in
    /// note_awake. The loop clears it before it parks, and the mailbox word orders that before any
    /// wake of this sleep. So the time that a late waker of an earlier sleep left is not taken for
    /// this sleep's.
    std::atomic<std::uint64_t> wake_asked_ns_{0};
    mailbox mailbox_;
};

}  // namespace tokengate::detail
