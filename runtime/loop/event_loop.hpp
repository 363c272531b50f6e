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

/// An io_uring-backed event loop: a mailbox for others, two ready queues, an outbox for each other loop, timers, and a ring
/// to sleep in. It knows hooks, not tokens.
///
///     event_loop loop({.index = 0, .ring_entries = 256, .spin_ns = 50'000, .starts = &start_token}, guest);
///     loop.connect(all_loops);
///     loop.open();            // on the thread that will run it: makes the ring; throws ring_unavailable
///     loop.run();             // until quit() is called on this thread
///
/// A turn: mailbox → timers → ready hooks, up to a budget → flush → ring. Fairness, as a bound: between two looks at
/// the mailbox and the ring a loop runs at most 2 × `turn_budget` hooks, and once a guest has called `end_turn` it runs
/// none but the one at hand. Hooks whose `run` is `starts` (new work) come after all others (resumptions), each kind in
/// FIFO order; each kind has its own budget in a turn, and a turn that ends before any start is followed by one that
/// begins with a start, so neither starves. Starts of the loop's own (`ready_first`) go before the others, the latest first,
/// so that work that makes work is done depth first; the first start of each turn is one that others would pass by for ever.
///
/// *Lent* work (new work that any loop could do as well) waits on the loop's shelf until it begins there, and may be taken back by
/// others before. A start is taken from the shelf and from the other new work in turn.
///
/// Sending is local until a flush: what `send` collects for a loop leaves in one chain when it has `outbox_limit` hooks, at
/// the end of the turn, or when the guest calls `flush` (before something that may run long). The receiver is woken if it
/// is parked: by IORING_OP_MSG_RING from ring to ring, by its eventfd otherwise. A wake by MSG_RING is owed until the
/// kernel has reported nothing (success is silent): if it reports an error, the eventfd is written instead.
///
/// No loop keeps what another one needs: what waits in an outbox may be fetched from there by the loop that it is for, and what
/// lies on the shelf may be taken back, while this loop runs something long. An idle loop looks around for both: as it spins,
/// at loops that have not moved on since it looked last; before it sleeps, at all. Outboxes and shelf are therefore under a
/// lock whose owner pays next to nothing (asymmetric_lock.hpp).
///
/// Requests to the kernel (io_request) go out with the turn's one enter. When the kernel takes no more for now (EBUSY) they
/// wait in a queue, so a ring of any size serves any number. A timer that is due runs at once, between the mail and the
/// ready hooks: it should do no more than to make something ready.
///
/// Parking: spin for a while, then publish *parked* in the mailbox word, ask the guest once more, and sleep in the ring,
/// without a timeout unless a timer is armed. What runs between publishing and sleeping may send, nudge and reap: a loop
/// sleeps only if it is still published as parked then, the eventfd is watched, and nothing is left to send or to run.
/// An idle loop is never woken.
///
/// Threads: `post`, `submit`, `close`, `closed`, `turn_began_ns` from any; everything else from the loop's own. A loop
/// that `changes_thread` (the control loop) may be run by another thread after `run` has returned; its ring stays the same.

namespace tokengate::detail {

class event_loop {
public:
    static constexpr unsigned outbox_limit = 32;
    static constexpr unsigned turn_budget = 64;
    static constexpr std::uint64_t hungry_after_ns = 10'000;
    static constexpr std::uint64_t look_around_every_ns =
        5'000;  // and 40 ns more for each loop there is
    static constexpr std::uint64_t patient_for_ns =
        20'000;  // as long an idle loop leaves alone those that move on
    /// Who was woken and found nothing stays watchful: it sleeps no longer than this, so many times.
    static constexpr std::uint64_t look_every_ns = 500'000;
    static constexpr std::uint64_t look_soon_ns = 50'000;
    static constexpr unsigned watchful_for = 4;

    /// What an executor adds to its loop. All on the loop's thread.
    class guest {
    public:
        virtual void turn_began(std::uint64_t wall_ns) noexcept = 0;
        /// Looks for more work (at the gate) and makes it ready; true if there was some. `parking`: published as parked.
        virtual bool find_work(bool parking) noexcept = 0;
        /// While spinning: is a `find_work` worth it?
        [[nodiscard]] virtual bool work_waits() const noexcept = 0;
        /// Before chains leave: the guest sends what it has collected itself.
        virtual void before_flush() noexcept = 0;
        /// They have left: now what the guest collected later.
        virtual void delivered() noexcept = 0;
        /// This loop's outbox for `destination` is about to leave; `empty` if that one has fetched it meanwhile. True if that
        /// one had nothing to do.
        virtual bool flushed(unsigned destination, bool empty) noexcept = 0;
        /// Something has been lent to that loop which will wait there. A delivery is under way: nothing may be sent.
        virtual void lent_to(unsigned destination) noexcept = 0;
        virtual void turn_ended(std::uint64_t busy_ns, unsigned ran) noexcept = 0;
        /// Nothing is ready; the loop is about to spin or park.
        virtual void going_idle() noexcept = 0;
        virtual void parked(bool now) noexcept = 0;
        /// Nothing has been ready for `hungry_after_ns`, or the loop is about to park (`asleep`): others had better hand over
        /// at once.
        virtual void hungry(bool asleep) noexcept = 0;
        /// About to park, but for `look_every_ns` at most: then the loop looks around by itself.
        virtual void looks_again() noexcept = 0;
        virtual void hungry_no_more() noexcept = 0;
        /// The loop had said that it sleeps, and has something to run now. What it was told meanwhile is for another one.
        virtual void awake_with_work() noexcept = 0;
        /// Idle: takes back what is lent to that loop, or what its guest keeps, and makes some of it ready; true if it did.
        virtual bool recall(unsigned from) noexcept = 0;

    protected:
        ~guest() = default;
    };

    struct options {
        unsigned index = 0;  ///< among the loops given to `connect`
        unsigned ring_entries = 256;
        std::uint64_t spin_ns = 0;
        bool changes_thread = false;  ///< several threads run it, one after the other
        bool measure_wakes = false;   ///< keep `wake_latency`
        void (*starts)(hook*) noexcept = nullptr;
    };

    event_loop(const options& chosen, guest& of);
    ~event_loop();
    event_loop(const event_loop&) = delete;
    event_loop& operator=(const event_loop&) = delete;

    /// Before any loop runs. The loops must outlive each other's threads.
    void connect(std::span<event_loop* const> loops);

    // ---- any thread ----

    /// From a thread without a loop, inside the runtime, or from the handler of a signal: always delivered.
    void post(hook* item) noexcept;
    /// The same for a chain, linked from the newest to the oldest.
    void post(hook* newest, hook* oldest) noexcept;
    /// From a foreign thread: false once closed; the item is still the caller's.
    [[nodiscard]] bool submit(hook* item) noexcept;
    void close() noexcept { mailbox_.close(); }
    [[nodiscard]] bool closed() const noexcept { return mailbox_.closed(); }
    [[nodiscard]] bool parked() const noexcept { return mailbox_.parked(); }
    /// A glance: something has been pushed and not been taken.
    [[nodiscard]] bool has_mail() const noexcept {
        return !mailbox_.empty() || mailbox_.has_lent();
    }
    /// Steady. 0 while the loop has nothing to run: idle, spinning, parked, or not run at all.
    [[nodiscard]] std::uint64_t turn_began_ns() const noexcept { return turn_ns_.load(); }
    /// A glance: something is lent to this loop and has not begun. In this order: who takes it from the list to the shelf has
    /// noted that before.
    [[nodiscard]] bool has_lent() const noexcept {
        return mailbox_.has_lent() || shelved_.load() != 0;
    }
    /// A glance: something that this loop lends waits in an outbox.
    [[nodiscard]] bool lends() const noexcept { return lent_away_.load() != 0; }
    /// Who is inside may use what is under it, here and in the guest. Another loop's thread.
    [[nodiscard]] asymmetric_lock& lock() noexcept { return lock_; }
    /// Inside the lock: what `goes` of what is lent to this loop and has not begun, oldest first. How many.
    template <class Predicate>
    unsigned take_back(hook_queue& into, Predicate goes) noexcept {
        shelve_lent();
        const auto taken = static_cast<unsigned>(shelf_.split(goes, into));
        shelved_.store(shelved_.load() - taken);
        return taken;
    }
    /// Inside the lock: what `goes` of what this loop was about to lend others. Calls taken(destination, count).
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
    /// From the moment somebody wakes this loop, parked, until it runs. Null unless it measures that.
    [[nodiscard]] const histogram* wake_latency() const noexcept { return wake_latency_.get(); }

    // ---- the loop's thread ----

    void open();
    void run();
    void quit() noexcept { quitting_ = true; }
    /// Leaves once the kernel owes nothing any more: when no token is left, what is in flight ends by itself (a close)
    /// or has been cancelled.
    void quit_when_settled() noexcept { quitting_ = settling_ = true; }
    /// After every loop has left: a chain of what nobody took.
    hook* take_left_mail() noexcept { return mailbox_.take(); }

    /// To the end of this loop's own queues.
    void ready(hook* item) noexcept { ready_.push(item); }
    void ready_start(hook* item) noexcept { starts_.push(item); }
    /// To the end of the shelf.
    void ready_lent(hook* item) noexcept;
    void ready_lent(hook_queue& items, unsigned count) noexcept;
    /// A start of this loop's own: once the hook at hand has returned, what it made ready so is run before all that has
    /// waited to start, in this order. But one of those others runs in every turn.
    void ready_first(hook* item) noexcept { fresh_.push(item); }
    /// Whether anything waits here, but for the hook at hand.
    [[nodiscard]] bool something_ready() const noexcept { return !nothing_ready(); }

    /// To another loop, at the next flush; `lend` to its shelf. Returns how many wait in that outbox now.
    unsigned send(unsigned destination, hook* item) noexcept;
    unsigned lend(unsigned destination, hook* item) noexcept;
    /// That outbox leaves at once.
    void hand_over(unsigned destination) noexcept;
    /// So do those to loops that have nothing to run.
    void hand_over_to_idle() noexcept;
    void flush() noexcept;
    /// Idle and looking around: something was left where it is, to be looked at again.
    void stay_watchful() noexcept {
        if (asymmetric_lock::can_be_taken()) looks_left_ = watchful_for;
    }
    /// The same, soon: somebody else was inside another loop's lock.
    void look_again_soon() noexcept {
        stay_watchful();
        looks_soon_ = true;
    }
    /// In that loop's lock: what it was about to send or lend to this one is this loop's mail. True if there was some.
    bool fetch_inside(event_loop& other) noexcept;
    /// Wakes the loop if it is parked, without a message; true if it was.
    bool nudge(unsigned destination) noexcept;
    /// The same, but the wake leaves with the flush or the delivery that is under way or follows.
    bool nudge_with_flush(unsigned destination) noexcept;

    void arm(timer& armed) { timers_.arm(armed); }
    void withdraw(timer& armed) noexcept { timers_.withdraw(armed); }

    /// Asks the kernel; see io_request. Throws std::bad_alloc where there is no memory for a ticket, before anything
    /// happened.
    void start(io_request& request);
    /// Asks the kernel to give it up; its last completion comes sooner, with what had been achieved or with -ECANCELED.
    void cancel(io_request& request) noexcept;
    /// Hands over what has been asked for so far, before something that may run long.
    void submit_requests() noexcept;
    [[nodiscard]] std::size_t requests_in_flight() const noexcept { return in_flight_; }
    [[nodiscard]] ring& own_ring() noexcept { return *ring_; }

    /// After the hook at hand the turn ends: it has lasted long enough.
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
        chain bound;                     // in the lock
        chain lent;                      // in the lock
        relaxed<std::uint32_t> count{};  // stored in the lock; a glance for the loop that it is for
        bool dirty = false;              // the owner's: listed in dirty_
    };

    /// A request that the kernel knows, by its ticket: index and generation.
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

    // The loop's thread alone.
    hook_queue ready_;
    hook_queue starts_;
    hook_queue fresh_;      // by ready_first, since the hook at hand was taken
    hook_queue own_;        // by ready_first before, the latest in front
    hook_queue older_own_;  // the same from earlier turns: nothing is put before them any more
    bool own_turn_ =
        false;  // older_own_ was passed over when the last turn served the oldest start
    std::vector<unsigned> dirty_;  // destinations whose outbox has had something since it left last
    std::vector<std::uint32_t> seen_moves_;  // of each loop, when this one looked last
    unsigned looks_left_ = 0;                // so often it wakes up by itself to look around
    bool looks_soon_ = false;                // the next time sooner
    bool woke_for_nothing_ = false;          // then it does not spin before it sleeps again
    bool shelf_next_ = false;  // whose turn it is: the shelf's, or that of the other starts
    timer_wheel timers_;
    relaxed<std::uint64_t>
        turn_ns_{};  // see turn_began_ns; stored by the loop, loaded by who watches it
    std::uint64_t wall_offset_ns_ = 0;  // wall clock minus steady clock, as of `run`
    unsigned start_budget_ = turn_budget;
    bool turn_over_ = false;
    bool start_owed_ = false;  // the turn before was over before a start had its turn
    bool quitting_ = false;
    bool settling_ = false;
    bool watching_eventfd_ = false;
    bool wakes_to_submit_ = false;
    std::vector<ticket_slot> tickets_;
    std::uint32_t free_ticket_ = 0;  // index + 1 of the first free slot
    std::size_t in_flight_ = 0;      // requests with a ticket
    hook_queue starts_waiting_;      // requests that the kernel did not take yet
    hook_queue
        cancels_;  // requests to be cancelled: those that are in flight and linked nowhere else
    std::unique_ptr<ring> ring_;
    const std::unique_ptr<histogram> wake_latency_;

    // The loop's thread, and others who are inside the lock.
    asymmetric_lock lock_;
    std::vector<outbox> outboxes_;
    hook_queue shelf_;
    relaxed<std::uint32_t> shelved_{};    // its length; a glance for others
    relaxed<std::uint32_t> lent_away_{};  // how many lie in all outboxes; a glance for others

    // Shared.
    /// Hooks run and chains sent, stored by the loop; who finds it where it was takes the loop to run something long.
    relaxed<std::uint32_t> moves_{};
    int eventfd_;
    /// Stored by the first `open` (release), loaded by senders (acquire): -1 while there is no ring to message.
    std::atomic<int> ring_descriptor_{-1};
    /// When the first who wakes this loop began to, 0 before; only if wakes are measured. Relaxed, by compare-and-swap in
    /// note_wake_asked, taken by the loop in note_awake. The loop empties it before it parks (the mailbox word orders that
    /// before any wake of this sleep): what a waker left who came too late is not taken for the next one's.
    std::atomic<std::uint64_t> wake_asked_ns_{0};
    mailbox mailbox_;
};

}  // namespace tokengate::detail
