// SPDX-License-Identifier: MIT
#include "event_loop.hpp"

#include <tokengate/error.hpp>

#include <poll.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <string>
#include <utility>

namespace tokengate::detail {

namespace {

// What a completion belongs to.
constexpr std::uint64_t tag_wake = 1;  // another loop's MSG_RING: being awake is all it asks for
constexpr std::uint64_t tag_eventfd = 2;
constexpr std::uint64_t tag_wake_lost = 3;  // our own MSG_RING failed; the destination is in the upper half
constexpr std::uint64_t tag_cancel = 4;     // what becomes of a cancellation is told by what it cancels
// A request's: this tag in the lowest 8 bits, the index of its slot in 24 more, its generation in the upper 32.
constexpr std::uint64_t tag_request = 5;
constexpr std::uint32_t most_tickets = 1U << 24;

constexpr unsigned polls_before_yield = 2000;  // about 10 µs of spinning before others on this CPU are let through

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
    return static_cast<std::uint64_t>(
        std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now().time_since_epoch())
            .count());
}

event_loop::event_loop(const options& chosen, guest& of)
    : options_(chosen),
      guest_(of),
      wake_latency_(chosen.measure_wakes ? std::make_unique<histogram>() : nullptr),
      eventfd_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
    if (eventfd_ < 0) {
        const int code = errno;
        throw ring_unavailable(std::string("ring_unavailable: eventfd failed: ") + std::strerror(code) +
                                   ". Each executor needs two descriptors: raise `ulimit -n` (systemd: LimitNOFILE=)",
                               code);
    }
}

event_loop::~event_loop() { ::close(eventfd_); }

void event_loop::connect(std::span<event_loop* const> loops) {
    loops_.assign(loops.begin(), loops.end());
    outboxes_.resize(loops.size());
    dirty_.reserve(loops.size());
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
    if (!mailbox_.empty()) take_mail();
    guest_.find_work(false);
    while (timer* due = timers_.pop_due(began)) due->run(due);

    const unsigned ran = run_ready();
    flush();
    push_requests();
    if (ring_->wants_enter()) ring_->enter();
    serve_ring();
    if (ran > 0) {
        const std::uint64_t now = steady_ns();
        turn_ns_.store(0);  // before it is counted as a whole; see executor::busy_ns
        guest_.turn_ended(now - began, ran);
        turn_ns_.store(now);  // the next turn begins where this one ended: one look at the clock for both
    }
    if (nothing_ready() && !quitting_) {
        turn_ns_.store(0);
        idle();
        turn_ns_.store(steady_ns());
    }
}

unsigned event_loop::run_ready() noexcept {
    unsigned ran = 0;
    unsigned resumptions = turn_budget;
    unsigned starts = start_budget_;
    bool start_first = std::exchange(start_owed_, false);
    own_.prepend(fresh_);  // by what has run since the last turn
    if (older_own_.empty()) older_own_.append(own_);
    while (!turn_over_) {
        hook_queue* from = nullptr;
        if (resumptions > 0 && !ready_.empty() && !(start_first && start_waits())) {
            from = &ready_;
            --resumptions;
        } else if (starts > 0 && start_waits()) {
            from = &next_starts(starts == start_budget_);
            --starts;
            start_first = false;
        } else {
            break;
        }
        hook* item = from->pop();
        prefetch_around(from->front());  // while this one runs
        item->run(item);
        ++ran;
    }
    // A turn that one long resumption has used up must not be followed by another such, and so on.
    start_owed_ = turn_over_ && starts == start_budget_ && start_waits();
    return ran;
}

hook_queue& event_loop::next_starts(bool first_of_turn) noexcept {
    own_.prepend(fresh_);
    if (first_of_turn) {
        // Each of the two in every other turn, if there are both: neither grows at the front.
        own_turn_ = !older_own_.empty() && (starts_.empty() || !own_turn_);
        if (own_turn_) return older_own_;
        if (!starts_.empty()) return starts_;
    }
    return !own_.empty() ? own_ : !older_own_.empty() ? older_own_ : starts_;
}

void event_loop::take_mail() noexcept {
    for (hook* item = mailbox_.take(); item;) {
        hook* next = item->next;
        (item->run == options_.starts ? starts_ : ready_).push(item);
        item = next;
    }
}

unsigned event_loop::send(unsigned destination, hook* item) noexcept {
    outbox& to = outboxes_[destination];
    item->next = to.newest;
    to.newest = item;
    if (to.count++ == 0) {
        to.oldest = item;
        dirty_.push_back(destination);
    }
    return to.count;
}

void event_loop::flush() noexcept {
    guest_.before_flush();
    if (!dirty_.empty()) flush_outboxes();
}

void event_loop::flush_outboxes() noexcept {
    for (unsigned destination : dirty_) deliver(destination);
    dirty_.clear();
    submit_wakes();
}

void event_loop::deliver(unsigned destination) noexcept {
    outbox chain = std::exchange(outboxes_[destination], {});
    // Before the push: the receiver may count what it starts as soon as it has the chain.
    guest_.flushed(destination);
    event_loop& to = *loops_[destination];
    if (to.mailbox_.push(chain.newest, chain.oldest) == mailbox::pushed::wake_owed) wake(to);
}

bool event_loop::nudge(unsigned destination) noexcept {
    event_loop& to = *loops_[destination];
    if (!to.mailbox_.nudge()) return false;
    wake(to);
    submit_wakes();
    return true;
}

void event_loop::submit_wakes() noexcept {
    if (!std::exchange(wakes_to_submit_, false)) return;
    ring_->submit();
    serve_ring();  // a wake that failed is known now
}

void event_loop::note_wake_asked() noexcept {
    std::uint64_t nobody = 0;
    wake_asked_ns_.compare_exchange_strong(nobody, steady_ns(), std::memory_order_relaxed);
}

void event_loop::note_awake() noexcept {
    const std::uint64_t asked = wake_asked_ns_.exchange(0, std::memory_order_relaxed);
    if (asked == 0) return;  // a timer's or the kernel's doing
    const std::uint64_t now = steady_ns();
    wake_latency_->record(now > asked ? now - asked : 0);
}

void event_loop::wake(event_loop& parked_loop) noexcept {
    if (parked_loop.wake_latency_) parked_loop.note_wake_asked();
    const int descriptor = parked_loop.ring_descriptor_.load(std::memory_order_acquire);  // pairs with open()
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
    // EAGAIN: the counter is full, so the eventfd is readable and the wake is under way already.
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

// ---- requests to the kernel ---------------------------------------------------------------------------------------------

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
    request.ticket = tag_request | std::uint64_t{index} << 8 | std::uint64_t{++slot.generation} << 32;
    request.cancel_wanted = false;
    ++in_flight_;
    if (!starts_waiting_.empty() || !submit_one(request)) {  // first come, first served
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
    if (request.now == io_request::phase::queued) return;  // noticed when its turn comes
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
    if (!slot.request || slot.generation != done.user_data >> 32) return;  // late, for one that has ended
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
    if (request.in_cancels) cancels_.remove(&request);  // the link must be free, and the cancellation is pointless
    request.in_cancels = false;
    request.now = io_request::phase::idle;
    if (result == -ECANCELED && !request.cancel_wanted && options_.changes_thread && !settling_) {
        // The kernel gives up what a thread has asked for when that thread ends; another one hosts this loop now.
        start(request);  // the ticket has just become free, so there is no need for memory
        return;
    }
    request.completed(*this, request, result, flags, true);
}

void event_loop::watch_eventfd() noexcept {
    if (watching_eventfd_) return;
    io_uring_sqe* entry = ring_->entry();
    if (!entry) return;  // the queue is full of what the next enter submits; parking is tried again after that
    io_uring_prep_poll_add(entry, eventfd_, POLLIN);
    entry->user_data = tag_eventfd;
    watching_eventfd_ = true;
}

bool event_loop::something_came() const noexcept {
    return !mailbox_.empty() || guest_.work_waits() || ring_->has_completions() || ring_->wants_enter();
}

void event_loop::idle() noexcept {
    guest_.going_idle();
    if (quitting_) return;  // it was all that the loop had waited for
    flush();                // no loop parks with something left to send
    push_requests();
    if (!nothing_ready()) return;  // the flush has met completions
    std::uint64_t spin_until = steady_ns() + options_.spin_ns;
    if (!timers_.empty()) spin_until = std::min(spin_until, timers_.earliest_ns());
    for (unsigned polls = 0; options_.spin_ns != 0; ++polls) {
        if (something_came()) return;
        relax();
        if (polls % 64 == 63) {
            if (steady_ns() >= spin_until) break;
            if (polls > polls_before_yield) sched_yield();
        }
    }

    guest_.parked(true);
    // After the guest has had its say: what that submits may bring the eventfd's completion, and take the watch away.
    watch_eventfd();
    push_requests();
    if (wake_latency_) wake_asked_ns_.store(0, std::memory_order_relaxed);
    if (nothing_ready() && watching_eventfd_ && mailbox_.park()) {
        const bool found = guest_.find_work(true);
        flush();  // what it met may have been for others
        if (!found && nothing_ready()) {
            std::optional<std::chrono::nanoseconds> timeout;
            if (!timers_.empty()) {
                const std::uint64_t sleep_until = timers_.earliest_ns();
                const std::uint64_t now = steady_ns();
                timeout = std::chrono::nanoseconds(sleep_until > now ? sleep_until - now : 0);
            }
            ring_->wait(timeout);
            if (wake_latency_) note_awake();
        }
        mailbox_.unpark();
        serve_ring();
    }
    guest_.parked(false);
}

}  // namespace tokengate::detail
