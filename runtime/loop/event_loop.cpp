// SPDX-License-Identifier: MIT
#include "loop/event_loop.hpp"

#include <tokengate/error.hpp>

#include <poll.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <string>
#include <utility>

namespace tokengate::detail {

namespace {

// Tags: to what a completion belongs.
// Another loop's MSG_RING. Its only purpose is to wake this loop.
constexpr std::uint64_t tag_wake = 1;
constexpr std::uint64_t tag_eventfd = 2;
// This loop's MSG_RING failed. The upper half has the destination.
constexpr std::uint64_t tag_wake_lost = 3;
// A cancellation. The completion of the cancelled request shows its result.
constexpr std::uint64_t tag_cancel = 4;
// A request's user_data: this tag in the lowest 8 bits, the index of its slot in 24 more, its
// generation in the upper 32.
constexpr std::uint64_t tag_request = 5;
constexpr std::uint32_t most_tickets = 1U << 24;

// About 10 µs of spinning. After that the loop yields to other threads on this CPU.
constexpr unsigned polls_before_yield = 2000;

inline void relax() noexcept {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

}  // namespace

std::uint64_t event_loop::steady_ns() noexcept {
    return static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
}

std::uint64_t event_loop::wall_ns() noexcept {
    return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                          std::chrono::system_clock::now().time_since_epoch())
                                          .count());
}

event_loop::event_loop(const options& chosen, guest& of)
    : options_(chosen),
      guest_(of),
      wake_latency_(chosen.measure_wakes ? std::make_unique<histogram>() : nullptr),
      eventfd_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
    if (eventfd_ < 0) {
        const int code = errno;
        throw ring_unavailable(
            std::string("ring_unavailable: eventfd failed: ") + std::strerror(code) +
                ". Each executor needs two descriptors: raise `ulimit -n` (systemd: LimitNOFILE=)",
            code);
    }
}

event_loop::~event_loop() { ::close(eventfd_); }

void event_loop::connect(std::span<event_loop* const> loops) {
    loops_.assign(loops.begin(), loops.end());
    outboxes_.resize(loops.size());
    dirty_.reserve(loops.size());
    seen_moves_.resize(loops.size());
}

void event_loop::post(hook* item) noexcept { post(item, item); }

void event_loop::post(hook* newest, hook* oldest) noexcept {
    if (mailbox_.push(newest, oldest) == mailbox::pushed::wake_owed) wake_by_eventfd();
}

bool event_loop::submit(hook* item) noexcept {
    const mailbox::pushed outcome = mailbox_.submit(item);
    if (outcome == mailbox::pushed::wake_owed) wake_by_eventfd();
    return outcome != mailbox::pushed::refused;
}

void event_loop::open() {
    if (ring_) return;
    ring_ = std::make_unique<ring>(options_.ring_entries, options_.changes_thread);
    ring_descriptor_.store(ring_->descriptor(), std::memory_order_release);
}

void event_loop::run() {
    quitting_ = settling_ = false;
    ring_->begin_use();
    const std::uint64_t now = steady_ns();
    turn_ns_.store(now);
    wall_offset_ns_ = wall_ns() - now;
    while (!quitting_ || !nothing_ready() || (settling_ && in_flight_ != 0)) {
        turn();
        if (settling_ && nothing_ready() && in_flight_ != 0) settle();
    }
    flush();
    if (options_.changes_thread) stop_watching_eventfd();
    turn_ns_.store(0);
    ring_->end_use();
}

void event_loop::settle() noexcept {
    turn_ns_.store(0);
    push_requests();
    ring_->wait(std::chrono::milliseconds(1));
    serve_ring();
    turn_ns_.store(steady_ns());
}

void event_loop::turn() noexcept {
    turn_over_ = false;
    const std::uint64_t began = turn_ns_.load();
    guest_.turn_began(began + wall_offset_ns_);
    take_mail();
    guest_.find_work(false);
    while (timer* due = timers_.pop_due(began)) due->run(due);

    const unsigned ran = run_ready();
    flush();
    push_requests();
    if (ring_->wants_enter()) ring_->enter();
    serve_ring();
    if (ran > 0) {
        woke_for_nothing_ = false;
        const std::uint64_t now = steady_ns();
        // The next turn begins where this one ended, so both share one reading of the clock.
        turn_ns_.store(now);
        // After the store: a turn that is counted as a whole must not be open any more; see
        // executor::busy_ns.
        guest_.turn_ended(now - began, ran);
    }
    if (nothing_ready() && !quitting_) {
        turn_ns_.store(0);
        idle();
        turn_ns_.store(steady_ns());
        // Orders the store of turn_ns_ before everything that this turn puts aside. Pairs with
        // park() of another loop. That loop publishes that it sleeps (seq_cst operations in
        // `hungry` and mailbox::park), and then loads this turn_ns_: in others_run, and after its
        // membarrier in look_around.
        std::atomic_thread_fence(std::memory_order_seq_cst);
    }
}

unsigned event_loop::run_ready() noexcept {
    unsigned ran = 0;
    unsigned resumptions = turn_budget;
    unsigned starts = start_budget_;
    bool start_first = std::exchange(start_owed_, false);
    own_.prepend(fresh_);  // the starts made by hooks that ran since the latest turn
    if (older_own_.empty()) older_own_.append(own_);
    while (!turn_over_) {
        hook* item = nullptr;
        if (resumptions > 0 && !ready_.empty() && !(start_first && !no_start())) {
            item = ready_.pop();
            prefetch_around(ready_.front());  // prefetched while this one runs
            --resumptions;
        } else if (starts > 0 && (item = next_start(starts == start_budget_))) {
            --starts;
            start_first = false;
        } else {
            break;
        }
        item->run(item);
        moves_.add(1);
        ++ran;
    }
    // If one long resumption has used up a turn, the next turn must not be used up by another one,
    // and so on.
    start_owed_ = turn_over_ && starts == start_budget_ && !no_start();
    return ran;
}

hook* event_loop::next_start(bool first_of_turn) noexcept {
    own_.prepend(fresh_);
    if (first_of_turn) {
        // If both kinds exist, each has every other turn, so neither grows at the front.
        own_turn_ = !older_own_.empty() && (no_other_start() || !own_turn_);
        if (own_turn_) return pop_from(older_own_);
        if (hook* item = next_other_start()) return item;
    }
    if (!own_.empty()) return pop_from(own_);
    if (!older_own_.empty()) return pop_from(older_own_);
    return next_other_start();
}

hook* event_loop::next_other_start() noexcept {
    if (starts_.empty()) return pop_shelf();
    shelf_next_ = !shelf_next_;
    if (shelf_next_)
        if (hook* item = pop_shelf()) return item;
    return pop_from(starts_);
}

hook* event_loop::pop_from(hook_queue& starts) noexcept {
    hook* item = starts.pop();
    prefetch_around(starts.front());
    return item;
}

hook* event_loop::pop_shelf() noexcept {
    if (shelved_.load() == 0) return nullptr;
    hook* item = nullptr;
    lock_.enter();
    if (!shelf_.empty()) {  // no other thread has taken it back meanwhile
        item = shelf_.pop();
        prefetch_around(shelf_.front());
        shelved_.store(shelved_.load() - 1);
    }
    lock_.leave();
    return item;
}

void event_loop::ready_lent(hook* item) noexcept {
    lock_.enter();
    shelf_.push(item);
    shelved_.store(shelved_.load() + 1);
    lock_.leave();
}

void event_loop::ready_lent(hook_queue& items, unsigned count) noexcept {
    lock_.enter();
    shelf_.append(items);
    shelved_.store(shelved_.load() + count);
    lock_.leave();
}

void event_loop::take_mail() noexcept {
    if (!mailbox_.empty()) sort_in(mailbox_.take());
    if (!mailbox_.has_lent()) return;
    lock_.enter();
    shelve_lent();
    lock_.leave();
}

void event_loop::shelve_lent() noexcept {
    const std::uint32_t before = shelved_.load();
    shelved_.store(before + 1);  // notes that hooks are on their way; see has_lent
    std::uint32_t count = 0;
    for (hook* item = mailbox_.take_lent(); item; ++count) {
        hook* next = item->next;
        shelf_.push(item);
        item = next;
    }
    shelved_.store(before + count);
}

void event_loop::sort_in(hook* oldest_first) noexcept {
    while (oldest_first) {
        hook* next = oldest_first->next;
        (oldest_first->run == options_.starts ? starts_ : ready_).push(oldest_first);
        oldest_first = next;
    }
}

unsigned event_loop::send(unsigned destination, hook* item) noexcept {
    outbox& to = outboxes_[destination];
    lock_.enter();
    to.bound.push(item);
    return put(to, destination);
}

unsigned event_loop::lend(unsigned destination, hook* item) noexcept {
    outbox& to = outboxes_[destination];
    lock_.enter();
    to.lent.push(item);
    lent_away_.store(lent_away_.load() + 1);
    return put(to, destination);
}

unsigned event_loop::put(outbox& to, unsigned destination) noexcept {
    const std::uint32_t count = to.count.load() + 1;
    to.count.store(count);
    lock_.leave();
    if (!std::exchange(to.dirty, true)) dirty_.push_back(destination);
    return count;
}

void event_loop::hand_over(unsigned destination) noexcept {
    std::erase(dirty_, destination);
    deliver(destination);
    submit_wakes();
}

void event_loop::flush() noexcept {
    // Submitting the wakes reaps completions, and these may send again.
    do {
        guest_.before_flush();
        for (unsigned destination : dirty_) deliver(destination);
        dirty_.clear();
        guest_.delivered();
        submit_wakes();
    } while (!dirty_.empty());
}

void event_loop::hand_over_to_idle() noexcept {
    std::erase_if(dirty_, [this](unsigned destination) {
        if (loops_[destination]->turn_ns_.load() != 0) return false;
        deliver(destination);
        return true;
    });
    submit_wakes();
}

event_loop::outbox event_loop::take_from(outbox& left) noexcept {
    outbox taken;
    taken.bound = std::exchange(left.bound, {});
    taken.lent = std::exchange(left.lent, {});
    std::uint32_t lent = left.count.load();
    left.count.store(0);
    if (!taken.lent.newest) return taken;
    if (taken.bound.newest) {
        lent = 0;
        for (const hook* each = taken.lent.newest; each; each = each->next) ++lent;
    }
    lent_away_.store(lent_away_.load() - lent);
    return taken;
}

bool event_loop::put_in_mailbox(const outbox& arrived) noexcept {
    bool wake_owed = arrived.lent.newest && mailbox_.lend(arrived.lent.newest, arrived.lent.oldest);
    if (arrived.bound.newest)
        wake_owed |=
            mailbox_.push(arrived.bound.newest, arrived.bound.oldest) == mailbox::pushed::wake_owed;
    return wake_owed;
}

void event_loop::deliver(unsigned destination) noexcept {
    outbox& from = outboxes_[destination];
    from.dirty = false;
    lock_.enter();
    const outbox left = take_from(from);
    lock_.leave();
    moves_.add(1);
    // Before the push: the receiver may count what it starts as soon as it has the chain.
    const bool was_hungry = guest_.flushed(destination, !left.bound.newest && !left.lent.newest);
    event_loop& to = *loops_[destination];
    const bool was_asleep = to.put_in_mailbox(left);
    if (was_asleep) wake(to);
    // The receiver begins one hook at once if it has nothing else to do. The other lent hooks wait
    // there.
    if (left.lent.newest && (left.lent.newest != left.lent.oldest || !(was_asleep || was_hungry)))
        guest_.lent_to(destination);
}

// ---- scanning other loops ----

bool event_loop::fetch_from(event_loop& other) noexcept {
    if (other.outboxes_[options_.index].count.load() == 0) return false;
    if (!other.lock_.try_take()) {
        look_again_soon();
        return false;
    }
    const bool found = fetch_inside(other);
    other.lock_.give_back();
    return found;
}

bool event_loop::fetch_inside(event_loop& other) noexcept {
    const outbox left = other.take_from(other.outboxes_[options_.index]);
    // The hooks pass through the mailbox like all mail, which brings them into order. This loop is
    // awake and owes itself no wake.
    put_in_mailbox(left);
    return left.bound.newest || left.lent.newest;
}

void event_loop::fetch_from_all() noexcept {
    for (event_loop* each : loops_)
        if (each != this) fetch_from(*each);
}

bool event_loop::look_around(bool only_where_nothing_moves) noexcept {
    bool found = false;
    for (unsigned index = 0; index < loops_.size(); ++index) {
        event_loop& other = *loops_[index];
        if (&other == this) continue;
        const std::uint32_t moves = other.moves_.load();
        const bool moved = std::exchange(seen_moves_[index], moves) != moves;
        if (other.turn_ns_.load() == 0) {  // a loop that runs nothing withholds nothing
            // It wakes up to begin the first lent hook. After that it withholds the rest.
            if (other.has_lent()) stay_watchful();
            continue;
        }
        if (only_where_nothing_moves && moved) continue;
        found |= fetch_from(other) || guest_.recall(index);
    }
    return found;
}

bool event_loop::others_run() const noexcept {
    for (const event_loop* each : loops_)
        if (each != this && each->may_keep()) return true;
    return false;
}

// ---- waking ----

bool event_loop::nudge_with_flush(unsigned destination) noexcept {
    event_loop& to = *loops_[destination];
    if (!to.mailbox_.nudge()) return false;
    wake(to);
    return true;
}

bool event_loop::nudge(unsigned destination) noexcept {
    if (!nudge_with_flush(destination)) return false;
    submit_wakes();
    return true;
}

void event_loop::submit_wakes() noexcept {
    if (!std::exchange(wakes_to_submit_, false)) return;
    ring_->submit();
    serve_ring();  // now it is known whether a wake failed
}

void event_loop::note_wake_asked() noexcept {
    std::uint64_t nobody = 0;
    wake_asked_ns_.compare_exchange_strong(nobody, steady_ns(), std::memory_order_relaxed);
}

void event_loop::note_awake() noexcept {
    const std::uint64_t asked = wake_asked_ns_.exchange(0, std::memory_order_relaxed);
    if (asked == 0) return;  // a timer or the kernel woke the loop
    const std::uint64_t now = steady_ns();
    wake_latency_->record(now > asked ? now - asked : 0);
}

void event_loop::wake(event_loop& parked_loop) noexcept {
    if (parked_loop.wake_latency_) parked_loop.note_wake_asked();
    const int descriptor =
        parked_loop.ring_descriptor_.load(std::memory_order_acquire);  // pairs with open()
    io_uring_sqe* entry = descriptor >= 0 && ring_->has_msg_ring() ? ring_->entry() : nullptr;
    if (!entry) {
        parked_loop.wake_by_eventfd();
        return;
    }
    io_uring_prep_msg_ring(entry, descriptor, 0, tag_wake, 0);
    entry->flags |= IOSQE_CQE_SKIP_SUCCESS;
    entry->user_data = tag_wake_lost | std::uint64_t{parked_loop.options_.index} << 32;
    wakes_to_submit_ = true;
}

void event_loop::wake_by_eventfd() noexcept {
    if (wake_latency_) note_wake_asked();
    const std::uint64_t one = 1;
    // EAGAIN: the counter is full, so the eventfd is readable and the wake is already under way.
    while (::write(eventfd_, &one, sizeof one) < 0 && errno == EINTR) {}
}

void event_loop::serve_ring() noexcept {
    ring_->for_each_completion([this](const io_uring_cqe& done) {
        switch (done.user_data & 0xffffffffU) {
            case tag_eventfd: {
                std::uint64_t count;
                while (::read(eventfd_, &count, sizeof count) < 0 && errno == EINTR) {}
                watching_eventfd_ = false;
                break;
            }
            case tag_wake_lost: loops_[done.user_data >> 32]->wake_by_eventfd(); break;
            default:
                if ((done.user_data & 0xff) == tag_request) complete(done);
                break;
        }
    });
}

// ---- requests to the kernel ----

void event_loop::start(io_request& request) {
    if (free_ticket_ == 0) {
        if (tickets_.size() == most_tickets) throw std::bad_alloc();
        tickets_.emplace_back();
        free_ticket_ = static_cast<std::uint32_t>(tickets_.size());
    }
    const std::uint32_t index = free_ticket_ - 1;
    ticket_slot& slot = tickets_[index];
    free_ticket_ = slot.next_free;
    slot.request = &request;
    request.ticket =
        tag_request | std::uint64_t{index} << 8 | std::uint64_t{++slot.generation} << 32;
    request.cancel_wanted = false;
    ++in_flight_;
    // Requests are submitted in FIFO order.
    if (!starts_waiting_.empty() || !submit_one(request)) {
        request.now = io_request::phase::queued;
        starts_waiting_.push(&request);
    }
}

bool event_loop::submit_one(io_request& request) noexcept {
    io_uring_sqe* entry = ring_->entry();
    if (!entry) return false;
    std::memcpy(entry, request.entry, sizeof *entry);
    entry->user_data = request.ticket;
    request.now = io_request::phase::in_flight;
    return true;
}

void event_loop::cancel(io_request& request) noexcept {
    if (!request.pending() || request.cancel_wanted) return;
    request.cancel_wanted = true;
    if (request.now == io_request::phase::queued) return;  // push_requests checks it in its turn
    request.in_cancels = true;
    cancels_.push(&request);
}

void event_loop::push_requests() noexcept {
    while (!starts_waiting_.empty()) {
        auto& request = *static_cast<io_request*>(starts_waiting_.front());
        if (!request.cancel_wanted && !submit_one(request)) break;
        starts_waiting_.pop();
        if (request.cancel_wanted) finish(request, -ECANCELED, 0);
    }
    while (!cancels_.empty()) {
        auto& request = *static_cast<io_request*>(cancels_.front());
        if (request.in_cancels && request.now == io_request::phase::in_flight) {
            io_uring_sqe* entry = ring_->entry();
            if (!entry) break;
            io_uring_prep_cancel64(entry, request.ticket, 0);
            entry->flags |= IOSQE_CQE_SKIP_SUCCESS;
            entry->user_data = tag_cancel;
        }
        cancels_.pop();
        request.in_cancels = false;
    }
}

void event_loop::submit_requests() noexcept {
    push_requests();
    if (ring_->has_entries()) ring_->submit();
}

void event_loop::complete(const io_uring_cqe& done) noexcept {
    const auto index = static_cast<std::uint32_t>(done.user_data >> 8 & (most_tickets - 1));
    const ticket_slot& slot = tickets_[index];
    // A late completion, of a request that has ended.
    if (!slot.request || slot.generation != done.user_data >> 32) return;
    if (done.flags & IORING_CQE_F_MORE)
        slot.request->completed(*this, *slot.request, done.res, done.flags, false);
    else
        finish(*slot.request, done.res, done.flags);
}

void event_loop::finish(io_request& request, std::int32_t result, std::uint32_t flags) noexcept {
    const auto index = static_cast<std::uint32_t>(request.ticket >> 8 & (most_tickets - 1));
    ticket_slot& slot = tickets_[index];
    slot.request = nullptr;
    slot.next_free = std::exchange(free_ticket_, index + 1);
    --in_flight_;
    // The link must be free, and the cancellation has become pointless.
    if (request.in_cancels) cancels_.remove(&request);
    request.in_cancels = false;
    request.now = io_request::phase::idle;
    if (result == -ECANCELED && !request.cancel_wanted && options_.changes_thread && !settling_) {
        // The kernel cancels the requests of a thread when that thread ends. Another thread hosts
        // this loop now.
        start(request);  // the ticket has just become free, so no memory is needed
        return;
    }
    request.completed(*this, request, result, flags, true);
}

void event_loop::watch_eventfd() noexcept {
    if (watching_eventfd_) return;
    io_uring_sqe* entry = ring_->entry();
    // The queue is full of entries that the next enter submits. Then the loop tries again to park.
    if (!entry) return;
    io_uring_prep_poll_add(entry, eventfd_, POLLIN);
    entry->user_data = tag_eventfd;
    watching_eventfd_ = true;
}

void event_loop::stop_watching_eventfd() noexcept {
    while (watching_eventfd_) {
        if (io_uring_sqe* entry = ring_->entry()) {
            io_uring_prep_cancel64(entry, tag_eventfd, 0);
            entry->flags |= IOSQE_CQE_SKIP_SUCCESS;
            entry->user_data = tag_cancel;
        }
        ring_->wait({});  // the poll ends with a completion in any case
        serve_ring();
    }
    flush();  // sends the hooks that those completions produced
}

bool event_loop::something_came() const noexcept {
    return has_mail() || !nothing_ready() || guest_.work_waits() || ring_->has_completions() ||
           ring_->wants_enter();
}

void event_loop::idle() noexcept {
    guest_.going_idle();
    if (quitting_) return;  // the loop had waited for this only
    flush();                // no loop parks with something left to send
    push_requests();
    if (!nothing_ready()) return;  // the flush has reaped completions
    if (!std::exchange(woke_for_nothing_, false) && spin()) return;
    guest_.hungry(true);
    guest_.parked(true);
    park();
    guest_.parked(false);
    guest_.hungry_no_more();
    if (has_mail() || !nothing_ready()) guest_.awake_with_work();
}

bool event_loop::spin() noexcept {
    if (options_.spin_ns == 0) return false;
    const std::uint64_t began = steady_ns();
    std::uint64_t spin_until = began + options_.spin_ns;
    if (!timers_.empty()) spin_until = std::min(spin_until, timers_.earliest_ns());
    const std::uint64_t between_looks = look_around_every_ns + 40 * loops_.size();
    std::uint64_t next_look = began + between_looks;
    bool hungry = false;
    bool came = false;
    for (unsigned polls = 0; !(came = something_came()); ++polls) {
        relax();
        if (polls % 64 != 63) continue;
        const std::uint64_t now = steady_ns();
        if (now >= spin_until) break;
        if (!hungry && now >= began + hungry_after_ns) {
            hungry = true;
            guest_.hungry(false);
        }
        if (now >= next_look) {
            next_look = now + between_looks;
            if ((came = look_around(now < began + patient_for_ns))) break;
        }
        if (polls > polls_before_yield) sched_yield();
    }
    if (came && hungry) guest_.hungry_no_more();
    return came;
}

void event_loop::park() noexcept {
    // After the guest was notified: what the guest submits may reap the eventfd's completion, and
    // then the eventfd is no longer watched.
    watch_eventfd();
    push_requests();
    if (wake_latency_) wake_asked_ns_.store(0, std::memory_order_relaxed);
    if (!nothing_ready() || !mailbox_.park()) return;
    bool found = guest_.find_work(true);
    flush();  // completions that were reaped may have produced hooks for other loops
    // A thread that puts something aside stores it first and then checks which loops are hungry,
    // both by plain accesses. This loop has published its hunger before. The fence on all threads
    // decides the order: either that thread finds this loop hungry, or this scan finds what that
    // thread put aside. Modelled in tests/models/aside.pml.
    if (!found && others_run() && asymmetric_lock::fence_all_threads()) found = look_around(false);
    // A completion reaped meanwhile may have made a request, or wants one cancelled.
    push_requests();
    if (!found && may_sleep()) {
        std::optional<std::chrono::nanoseconds> timeout;
        if (!timers_.empty()) {
            const std::uint64_t sleep_until = timers_.earliest_ns();
            const std::uint64_t now = steady_ns();
            timeout = std::chrono::nanoseconds(sleep_until > now ? sleep_until - now : 0);
        }
        const bool looks_again = looks_left_ != 0;
        if (looks_again) {
            --looks_left_;
            guest_.looks_again();
            const std::uint64_t until_look =
                std::exchange(looks_soon_, false) ? look_soon_ns : look_every_ns;
            timeout = std::min(timeout.value_or(std::chrono::nanoseconds::max()),
                               std::chrono::nanoseconds(until_look));
        }
        ring_->wait(timeout);
        if (wake_latency_) note_awake();
        fetch_from_all();  // hooks that were collected for this loop while it woke up
        const bool nudged = !mailbox_.parked();
        serve_ring();
        const bool timer_due = !timers_.empty() && timers_.earliest_ns() <= steady_ns();
        woke_for_nothing_ = (nudged || looks_again) && !timer_due && !something_came();
        // Another thread has put something aside.
        if (woke_for_nothing_ && !looks_again) stay_watchful();
    }
    mailbox_.unpark();
    serve_ring();
}

// The loop sleeps only if no wake-up can be lost. Code that ran since `park` may have sent hooks,
// nudged any loop (this one, too), and reaped this loop's own wakes. The argument:
//
//   * The thread that clears the parked bit owes the wake of this sleep, and it clears the bit
//     before it wakes. So while the bit is set, no wake of this sleep can have been reaped.
//   * A late wake, of an earlier sleep, may have been reaped. If it was the eventfd's, the loop
//     does not watch the eventfd any more. So the eventfd must be watched, too.
//   * Something that only this loop can send (`dirty_`) or wake (`wakes_to_submit_`) must not wait
//     during the sleep.
//   * The scan for ready hooks runs inside the lock. A thread that takes some of the lent work back
//     may be moving hooks from the mailbox's list to the shelf, and then the hooks are in neither.
//     A thread that lends something later finds the parked bit.
//
// Modelled in tests/models/park.pml and tests/models/lent.pml.
bool event_loop::may_sleep() noexcept {
    lock_.enter();
    const bool nothing_left = nothing_ready();
    lock_.leave();
    return mailbox_.parked() && watching_eventfd_ && nothing_left && dirty_.empty() &&
           !wakes_to_submit_;
}

}  // namespace tokengate::detail
