// SPDX-License-Identifier: MIT

// How a runtime begins, gets a thread for its control loop, and ends.
//
//  1. `stop` closes the control loop's mailbox to foreign threads. The mailbox and `submit` share
//     one atomic: a later submit is rejected, and a token accepted before is in the mailbox and
//     will be served. A thread that waits for room to submit is woken and rejected. If `stop` has
//     no timeout, it releases what the gate holds, and the gate holds nothing any more.
//     During the grace, live tokens may end without a stop request. After it, the runtime requests
//     a stop of everything. `at_start` stops tokens that start later, a hook to each executor stops
//     the tokens that it executes, and a sweep stops the tokens that wait at the gate.
//  2. The control loop sets `ending_`, either in a hook from `stop` or, under `run`, when the main
//     token has ended. It sets `draining`, and from then on each executor that becomes idle reports
//     to it.
//  3. At each report, the control loop sums over all executors first the ended and then the
//     admitted tokens. Every token is counted as admitted before its maker can end. So equal sums
//     mean that no token was alive between the two readings. Then, since no thread can submit, none
//     will be.
//     Live services are not in these sums. So when the sums are equal for the first time, only
//     services are alive. The control loop requests their stop and starts no further service. What
//     a service leaves behind was counted as admitted before the service ended, and services end on
//     this loop. So once no service is left, equal sums mean the same again.
//  4. The control loop returns. The thread that owns the threads ends the stall detector, which
//     must not signal a joined thread, requests each executor to quit, and joins them. Afterwards
//     no loop sends.
//     Then that thread joins the threads for blocking calls. They have no work, since a token
//     awaited each call. But one may still be inside the post that ended a token's wait, so the
//     loops must still exist. This happens before step 5, because such a thread may leave mail when
//     it ends.
//  5. The destroying thread runs the mail that no loop has taken (frames of unadmitted conducted
//     tokens, dropped by foreign threads). Such tokens may still be held elsewhere and keep domains
//     alive. These domains end under `orphans`; the last of them frees this structure.
//  6. Each ring is closed with its loop, after all of this.

#include "base/deadline.hpp"
#include "lifecycle/runtime_core.hpp"
#include "token/awaiters.hpp"
#include "token/operations.hpp"

#include <tokengate/detail/promise.hpp>
#include <tokengate/error.hpp>
#include <tokengate/operation.hpp>
#include <tokengate/runtime.hpp>
#include <tokengate/stop.hpp>
#include <tokengate/time.hpp>

#include <algorithm>
#include <chrono>
#include <future>
#include <mutex>
#include <thread>
#include <utility>

namespace tokengate::detail {

// ---- hosting the control loop -------------------------------------------------------------------

namespace {

bool on_a_loop() noexcept { return this_core && this_core->host; }

/// On the control loop: admits a token that came through its mailbox.
void admit_posted(hook* item) noexcept {
    core_context& core = *this_core;
    core.host->admit(core, *static_cast<token_record*>(item));
}

/// The same for a token that the backlog counted as mail.
void admit_from_mail(hook* item) noexcept {
    this_core->runtime->places.leave_mail();
    admit_posted(item);
}

}  // namespace

void runtime_core::check_hostable() const {
    if (on_a_loop())
        throw wrong_thread(
            "wrong_thread: runtime::run or start was called on an event loop's thread, which it "
            "would block: "
            "await a task there, or use a thread of your own");
    if (executors.back()->loop.closed())
        throw gate_closed(
            "gate_closed: the runtime is stopping or has stopped and runs nothing any more: make a "
            "new one");
    if (hosted_)
        throw wrong_thread(
            "wrong_thread: the runtime is running already (run or start was called before and has "
            "not ended)");
}

runtime_core::hosting::hosting(runtime_core& of) : of_(of) {
    const std::scoped_lock lock(of.lifecycle_);
    of.check_hostable();
    of.hosted_ = true;
}

runtime_core::hosting::~hosting() { of_.leave_control(); }

void runtime_core::run_main(promise_base& main) {
    const hosting here(*this);
    control().open();
    note_time(context());
    adopt(context(), main, main_operation());
    main.token.awaited_by.store(0);
    struct main_waiter : waiter {
        runtime_core* of;
    } waiting;
    waiting.done = [](token_record&, waiter& self) noexcept {
        static_cast<main_waiter&>(self).of->control().begin_to_end();
    };
    waiting.home = &control();
    waiting.token = nullptr;
    waiting.of = this;
    main.token.owner = reinterpret_cast<std::uintptr_t>(static_cast<waiter*>(&waiting));
    main.token.run = admit_posted;
    // Fails if a stop came in between: the mailbox's atomic orders the two.
    if (!control().loop.submit(&main.token))
        throw gate_closed(
            "gate_closed: the runtime has been stopped, and the task was not started");
    control().host();
}

void runtime_core::start() {
    std::promise<void> up;
    std::future<void> is_up = up.get_future();
    {
        // Held until the thread is assigned: `stop` joins it under the same lock.
        const std::scoped_lock lock(lifecycle_);
        check_hostable();
        if (control_thread_.joinable()) control_thread_.join();  // left by a start that failed
        control_thread_ = std::thread([this, up = std::move(up)]() mutable {
            try {
                control().open();
            } catch (...) {
                leave_control();
                up.set_exception(std::current_exception());
                return;
            }
            up.set_value();
            control().host();
            leave_control();
        });
        hosted_ = true;
    }
    is_up.get();
}

void runtime_core::leave_control() noexcept {
    const std::scoped_lock lock(lifecycle_);
    hosted_ = false;
    left_.notify_all();
}

void runtime_core::serve_until(std::chrono::steady_clock::time_point until) {
    struct deadline_timer : timer {
        event_loop* loop;
    } alarm;
    alarm.loop = &control().loop;
    alarm.run = [](hook* self) noexcept { static_cast<deadline_timer*>(self)->loop->quit(); };
    alarm.deadline_ns = static_cast<std::uint64_t>(until.time_since_epoch().count());
    control().open();
    if (until != std::chrono::steady_clock::time_point::max()) control().loop.arm(alarm);
    control().host();
    control().loop.withdraw(alarm);
}

void runtime_core::ask_everything_to_stop() noexcept {
    if (std::exchange(all_asked_, true)) return;
    raise_at_start(stopping_all);
    for (const auto& each : executors) each->post_ask_all();
}

void runtime_core::begin_to_stop(bool for_ever) {
    control().loop.close();
    places.close();
    if (for_ever) lift_holds_for_good();  // a held token would never end, and stop would not return
    const std::scoped_lock lock(lifecycle_);
    if (!std::exchange(stop_posted_, true))
        control().loop.post(&stop_);  // queued behind every accepted submit
}

stop_report runtime_core::stop(std::chrono::nanoseconds deadline, std::chrono::nanoseconds grace) {
    if (on_a_loop())
        throw wrong_thread(
            "wrong_thread: runtime::stop was called on an event loop's thread, which it would "
            "block for ever: "
            "call it on a thread of your own");
    if (stalls && stalls->on_own_thread())
        throw wrong_thread(
            "wrong_thread: runtime::stop was called by a report of a stall, for whose end it would "
            "wait for ever: call "
            "it on a thread of your own");
    const auto ask_at = from_now(grace);
    const auto deadline_at = from_now(deadline);
    auto until = deadline_at;
    begin_to_stop(deadline == std::chrono::nanoseconds::max());
    std::unique_lock lock(lifecycle_);
    while (!stopped_) {
        if (!all_asked_ && std::chrono::steady_clock::now() >= ask_at) ask_everything_to_stop();
        const auto wake_at = all_asked_ ? until : std::min(ask_at, until);
        if (!hosted_ && stop_seen_.load(std::memory_order_relaxed) && control().drained()) {
            if (control_thread_.joinable()) control_thread_.join();
            join_executors();
            stopped_ = true;
        } else if (std::chrono::steady_clock::now() >= until) {
            // Services end after all other tokens, so the report lists them only 200 ms later.
            const bool only_services_late = until >= deadline_at + std::chrono::milliseconds(200);
            stop_report report{tokens(only_services_late)};
            if (!report.complete()) return report;
            // All have ended just now: allows the control loop 10 ms to see that.
            until = std::chrono::steady_clock::now() + std::chrono::milliseconds(10);
        } else if (!hosted_) {
            // No thread is lent to the control loop, so this one serves what is left.
            hosted_ = true;
            lock.unlock();
            std::exception_ptr failed;
            try {
                serve_until(wake_at);
            } catch (...) {
                failed = std::current_exception();
            }
            lock.lock();
            hosted_ = false;
            left_.notify_all();
            if (failed) std::rethrow_exception(failed);
        } else if (wake_at == std::chrono::steady_clock::time_point::max()) {
            left_.wait(lock);
        } else {
            left_.wait_until(lock, wake_at);
        }
    }
    return {};
}

/// Registers the running token in `inside_` while it is inside stop_others. Neither it nor its
/// awaiters can end before stop_others returns.
class runtime_core::insider {
public:
    explicit insider(runtime_core& of) : of_(of) {
        const std::scoped_lock lock(of.lifecycle_);
        of.inside_.push_back(this_core->current);
    }
    ~insider() {
        const std::scoped_lock lock(of_.lifecycle_);
        of_.inside_.erase(std::ranges::find(of_.inside_, self_));
    }
    insider(const insider&) = delete;
    insider& operator=(const insider&) = delete;

private:
    runtime_core& of_;
    const token_record* const self_ = this_core->current;
};

std::vector<const token_record*> runtime_core::insiders() {
    std::vector<const token_record*> all;
    for (const token_record* each : inside_)
        for (; each && std::ranges::find(all, each) == all.end(); each = awaiter_of(*each))
            all.push_back(each);
    return all;
}

bool runtime_core::only_insiders_are_left() {
    const std::scoped_lock lock(lifecycle_);
    // Once it is set, every token submitted before the stop has been admitted.
    if (!stop_seen_.load(std::memory_order_acquire)) return false;
    const auto counted = std::ranges::count_if(insiders(), [](const token_record* each) {
        return !(each->flags.load_acquire() & ran_in_place) && !is_service(*each->operation.load());
    });
    // Read before count_admitted, as in step 3: then equality means that no other token was alive
    // between the two readings.
    const std::uint64_t ended = count_ended();
    return count_admitted() - ended == static_cast<std::uint64_t>(counted);
}

stop_report runtime_core::outsiders() {
    const std::scoped_lock lock(lifecycle_);
    const std::vector<const token_record*> inside = insiders();
    stop_report left{tokens(false)};
    std::erase_if(left.survivors, [&](const token_info& info) {
        // A token in state `created` is not admitted: it is left out, since only its holder counts.
        return info.state == token_state::created ||
               std::ranges::any_of(inside, [&](const token_record* each) {
                   return each->sequence.load() == info.id.sequence;
               });
    });
    return left;
}

task<stop_report> runtime_core::stop_others(std::chrono::nanoseconds deadline,
                                            std::chrono::nanoseconds grace) {
    if (!on_a_loop() || this_core->runtime != this || !this_core->current)
        throw wrong_runtime(
            "wrong_runtime: runtime::stop_others was awaited outside of this runtime's own tokens: "
            "call stop there");
    const auto ask_at = from_now(grace);
    const auto deadline_at = from_now(deadline);
    const shielding deaf;  // shields this token from the stop that it requests itself
    const insider here(*this);
    begin_to_stop(deadline == std::chrono::nanoseconds::max());
    constexpr std::chrono::nanoseconds longest_pause = std::chrono::milliseconds(10);
    for (std::chrono::nanoseconds pause = std::chrono::microseconds(50);;
         pause = std::min(2 * pause, longest_pause)) {
        if (only_insiders_are_left()) co_return {};
        const auto now = std::chrono::steady_clock::now();
        if (now >= deadline_at) {
            stop_report left = outsiders();
            // If the report is empty, the others have ended just now, or are in the mailbox on
            // their way to the gate.
            if (!left.complete()) co_return left;
        } else if (now >= ask_at) {
            const std::scoped_lock lock(lifecycle_);
            ask_everything_to_stop();
        }
        co_await sleep_for(pause);
    }
}

void runtime_core::submit(token_record& token) {
    if (on_a_loop() && this_core->runtime == this)
        throw wrong_thread(
            "wrong_thread: runtime::submit was called on a thread of this runtime, where waiting "
            "for the future "
            "would block its loop: await the token, or admit() it");
    const token_id id = token.id();
    if ((token.flags & in_domain) && static_cast<domain*>(token.anchor)->runtime != this)
        throw wrong_runtime("wrong_runtime: " + id.text() +
                            " inherited a seed in another runtime: submit it there");
    const bool in_mail = places.enter_from_outside(token);
    token.awaited_by.store(0);
    token.run = in_mail ? admit_from_mail : admit_posted;
    if (!control().loop.submit(&token)) {
        if (in_mail) places.leave_mail();
        if (token.state.load() == token_state::waiting) places.leave();
        token.state.store(token_state::created);
        throw gate_closed("gate_closed: " + id.text() +
                          " was not admitted: the runtime is stopping or has stopped");
    }
}

// ---- the end ------------------------------------------------------------------------------------

void runtime_core::join_executors() noexcept {
    if (stalls) stalls->stop();
    for (unsigned position = 0; position < positions(); ++position)
        executors[position]->ask_to_quit();
    for (unsigned position = 0; position < positions(); ++position) executors[position]->join();
    blocking.reset();
    {
        const std::scoped_lock lock(orphans);
        for (const auto& each : executors) orphaned_domains += each->hand_over_domains();
        joined = true;
    }
    run_left_mail();
}

}  // namespace tokengate::detail
