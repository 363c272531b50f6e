// SPDX-License-Identifier: MIT
#include "executor/executor.hpp"

#include "base/topology.hpp"
#include "executor/domain.hpp"
#include "executor/shared.hpp"
#include "executor/steps.hpp"
#include "executor/stop.hpp"
#include "token/context.hpp"

#include <tokengate/detail/admission.hpp>
#include <tokengate/detail/group.hpp>
#include <tokengate/detail/promise.hpp>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

namespace tokengate::detail {

executor::executor(shared_state& of, unsigned position, unsigned ring_entries,
                   std::uint64_t spin_ns)
    : runtime(of),
      loop({.index = position,
            .ring_entries = ring_entries,
            .spin_ns = spin_ns,
            .changes_thread = position >= of.positions(),
            .measure_wakes = of.options.metrics,
            .starts = &start_token},
           *this),
      trace(of.options.trace_events != 0 ? std::make_unique<trace_ring>(of.options.trace_events)
                                         : nullptr),
      stats(of.options.metrics ? std::make_unique<stats_table>() : nullptr),
      position_(position),
      is_control_(position >= of.positions()),
      routes_(of.loads, position, of.options.spill) {
    quit_.of = report_.of = this;
    quit_.run = [](hook* self) noexcept {
        static_cast<member_hook*>(self)->of->quit_when_settled();
    };
    ask_all_.of = this;
    ask_all_.run = [](hook* self) noexcept {
        static_cast<member_hook*>(self)->of->ask_all_to_stop();
    };
    kill_.of = this;
    kill_.run = [](hook* self) noexcept {
        auto& kill = *static_cast<kill_hook*>(self);
        kill.under_way.exchange(false, std::memory_order_acq_rel);  // pairs with post_kill
        kill.of->kill_those_here();
    };
    sweep_.of = this;
    sweep_.run = [](hook* self) noexcept { static_cast<sweep_timer*>(self)->of->sweep_gate(); };
    report_.run = [](hook* self) noexcept {
        executor& reporter = *static_cast<member_hook*>(self)->of;
        executor& control = reporter.runtime.control();
        // Pairs with report_idle.
        reporter.report_under_way_.exchange(false, std::memory_order_acq_rel);
        control.end_if_drained();
    };
}

// ---- thread and context -------------------------------------------------------------------------

void executor::launch(std::optional<unsigned> cpu) {
    thread_ = std::thread([this, cpu] {
        if (cpu && !pin_this_thread(*cpu))
            runtime.warn("executor " + std::to_string(position_) + " could not be pinned to CPU " +
                         std::to_string(*cpu) + " and runs unpinned: " + std::strerror(errno));
        try {
            open();
            host();
        } catch (...) {
            failed_to_open_ = std::current_exception();
            up_.store(2, std::memory_order_release);  // pairs with wait_until_up
            up_.notify_all();
        }
    });
}

void executor::wait_until_up() {
    up_.wait(0, std::memory_order_acquire);
    if (up_.load(std::memory_order_acquire) == 2) std::rethrow_exception(failed_to_open_);
}

void executor::join() noexcept {
    if (thread_.joinable()) thread_.join();
}

void executor::open() {
    context();
    loop.open();
}

void executor::host() noexcept {
    core_context& core = *this_core;
    attach(core);
    up_.store(1, std::memory_order_release);  // pairs with wait_until_up
    up_.notify_all();
    if (is_control_) runtime.control_opened();
    loop.run();
    if (!is_control_) retire_buffers();  // the ring of the buffers is bound to this thread
    detach(core);
}

void executor::attach(core_context& core) noexcept {
    core_ = &core;
    core.current = nullptr;
    core.host = this;
    core.runtime = &runtime;
    core.position = static_cast<std::uint16_t>(position_);
    core.runtime_slot = runtime.slot;
    core.in_place =
        token_word{core.position, runtime.slot, ran_in_place, token_state::executing, 0}.bits();
    core.keeping.attention = &runtime.attention;
    core.keeping.at_start = &runtime.at_start;
    for (const weight w : weight_classes)
        core.keeping.hungry[static_cast<std::size_t>(w)] =
            !is_control_ && routes_.may_serve(position_, w) ? &runtime.loads.hungry_in(w)
                                                            : &keeping_words::never;
    core.counts.take_over(counts_);
    hosted_by_.store(&core, std::memory_order_release);
    if (runtime.stalls) runtime.stalls->enter(position_);
}

void executor::detach(core_context& core) noexcept {
    if (runtime.stalls) runtime.stalls->leave(position_);
    core.pool->flush_returns();
    counts_.take_over(core.counts);
    if (counts_.live_domains.load() != 0) {
        core.outlived_by_domains = true;
        outlived_ = &core;
    }
    hosted_by_.store(nullptr, std::memory_order_release);
    core.host = nullptr;
    core.runtime = nullptr;
    core.runtime_slot = 0;
    core.keeping = {};
    core_ = nullptr;
}

std::uint64_t executor::hand_over_domains() noexcept {
    const std::uint64_t living = counts_.live_domains.load();
    counts_.live_domains.store(0);
    return living;
}

void executor::release_context() noexcept {
    if (core_context* core = std::exchange(outlived_, nullptr)) give_back_context(*core);
}

// ---- event_loop::guest --------------------------------------------------------------------------

void executor::turn_began(std::uint64_t wall_ns) noexcept {
    core_->turn_ns = wall_ns;
    starts_in_turn_ = 0;
    const bool watched_now = runtime.attention.load(std::memory_order_relaxed) & watching;
    budget_ = watched_now ? 0 : budget_in_place;
    core_->watched_budget = watched_now ? budget_in_place : 0;
}

void executor::before_flush() noexcept {
    end_gathering();
    flush_ended_group(*core_);
    if (is_control_) return;
    if (routes_.pending(position_) != 0) routes_.publish(position_);
    publish_started();
}

void executor::delivered() noexcept {
    // After the outboxes: a core that spins sees the FIFO as soon as it is not empty.
    for (const weight w : weight_classes)
        if (staged_[static_cast<std::size_t>(w)].count.load() != 0) splice(w);
}

bool executor::flushed(unsigned destination, bool empty) noexcept {
    if (!runtime.is_control(destination)) routes_.publish(destination);
    // If the destination fetched the outbox, it must stay marked: else it would sleep unnoticed,
    // though hungry.
    return !empty && runtime.loads.fed(destination);
}

void executor::lent_to(unsigned destination) noexcept {
    if (!asymmetric_lock::can_be_taken()) return;
    const auto tell = [this](unsigned sleeper) { return loop.nudge_with_flush(sleeper); };
    // An executor at home in the smallest range may run every class.
    if (!routes_.tell_sleepers(weight::light, destination, tell))
        routes_.tell_sleepers_anywhere(destination, tell);
}

void executor::publish_started() noexcept {
    if (started_ != 0) runtime.loads.started(position_, std::exchange(started_, 0));
}

void executor::turn_ended(std::uint64_t busy_ns, unsigned) noexcept {
    busy_ns_.add_release(busy_ns);
    if (is_control_) return;
    if (starts_in_turn_ != 0) {
        const std::uint64_t run_ns = std::max<std::uint64_t>(busy_ns / starts_in_turn_, 1);
        average_run_ns_ = average_run_ns_ == 0 ? run_ns : (3 * average_run_ns_ + run_ns) / 4;
        if (const unsigned window = window_for(average_run_ns_); window != window_) {
            window_ = window;
            runtime.loads.set_window(position_, window);
        }
        loop.limit_turn(static_cast<unsigned>(
            std::clamp<std::uint64_t>(turn_ns / average_run_ns_, 1, event_loop::turn_budget)));
    }
    runtime.loads.publish_room(position_);
}

std::uint64_t executor::busy_ns() const noexcept {
    // A shorter turn may still turn out to have run nothing.
    constexpr std::uint64_t long_turn_ns = 10'000'000;
    // Pairs with turn_ended: a turn whose time is in the sum is no longer open.
    std::uint64_t sum = busy_ns_.load_acquire();
    const std::uint64_t began = loop.turn_began_ns();
    const std::uint64_t now = event_loop::steady_ns();
    if (began != 0 && now > began + long_turn_ns) sum += now - began;
    std::uint64_t told = busy_told_.load(std::memory_order_relaxed);
    while (told < sum && !busy_told_.compare_exchange_weak(told, sum, std::memory_order_relaxed)) {}
    return std::max(told, sum);
}

void executor::going_idle() noexcept {
    core_->pool->flush_returns();
    core_->pool->collect();
    if (is_control_) {
        end_if_drained();
        return;
    }
    if (runtime.draining.load(std::memory_order_relaxed) != 0) report_idle();
}

void executor::parked(bool now) noexcept {
    if (is_control_) return;
    runtime.at_gate.set_parked(position_, now);
    if (!now) return;
    runtime.loads.publish_room(position_);
    // This read-modify-write is ordered against the control loop's exchange; see
    // shared_state::draining.
    if (runtime.draining.fetch_or(0, std::memory_order_acq_rel) != 0) {
        report_idle();
        loop.flush();
    }
}

void executor::hungry(bool asleep) noexcept { runtime.loads.starves(position_, asleep); }

void executor::looks_again() noexcept { runtime.loads.looks_again(position_); }

void executor::hungry_no_more() noexcept { runtime.loads.fed(position_); }

void executor::awake_with_work() noexcept {
    if (is_control_) return;
    const auto keeps = [this](const auto& each) {
        return each.get() != this && each->keeps_work();
    };
    if (std::ranges::any_of(runtime.executors, keeps))
        routes_.tell_sleepers_anywhere(position_,
                                       [this](unsigned sleeper) { return loop.nudge(sleeper); });
}

// ---- the end ------------------------------------------------------------------------------------

void executor::report_idle() noexcept {
    if (report_under_way_.exchange(true, std::memory_order_acq_rel)) return;
    send_hook(runtime.control().position(), &report_);
}

void executor::begin_to_end() noexcept {
    ending_ = true;
    drained_ = false;
    runtime.draining.exchange(1, std::memory_order_acq_rel);  // pairs with parked()
    end_if_drained();
}

void executor::end_if_drained() noexcept {
    if (!ending_) return;
    // Read before the admitted ones; see life_cycle.cpp, step 3.
    const std::uint64_t ended = runtime.count_ended();
    if (ended != runtime.count_admitted()) return;
    if (!runtime.may_end()) return;  // when the services have ended, the loop goes idle once more
    ending_ = false;
    drained_ = true;
    runtime.draining.store(0, std::memory_order_release);
    quit_when_settled();
}

// ---- being asked to stop ------------------------------------------------------------------------

void executor::ask_all_to_stop() noexcept {
    if (!core_) return;  // the thread has left the loop
    frame_pool::for_each_slot([this](void* frame, std::size_t) {
        // Acquire, so that the other fields read are this token's. After that, only this thread
        // changes them, since the token executes here.
        auto& token = const_cast<token_record&>(promise_base::record_in(frame));
        if (token.state.load_acquire() != token_state::executing ||
            token.runtime.load() != runtime.slot || token.position.load() != core_->position ||
            (token.flags & exempt))
            return;
        token.stop.set_bits(stop_asked);
        deliver_stop(*core_, token);
    });
    ask_to_sweep();
}

void executor::ask_to_sweep() noexcept {
    if (sweep_asked_) return;
    sweep_asked_ = true;
    sweep_.deadline_ns = next_sweep_ns_;
    loop.arm(sweep_);
}

void executor::sweep_gate() noexcept {
    // At most one part in `share` of this thread's time goes into sweeping.
    constexpr std::uint64_t share = 8;
    sweep_asked_ = false;
    const std::uint64_t began = event_loop::steady_ns();
    const std::uint32_t asked = runtime.at_start.load(std::memory_order_relaxed);
    const auto is_to_stop = [this, asked](const hook* item) noexcept {
        const auto& token = *static_cast<const token_record*>(item);
        return token.stop_requested() || ((asked & stopping_all) && !(token.flags & exempt)) ||
               ((asked & killing) && runtime.kills.reason_for(token, false));
    };
    const auto end_all = [this](hook_queue& found, unsigned lost) noexcept {
        while (!found.empty()) {
            auto& token = *static_cast<token_record*>(found.pop());
            token.flags = static_cast<std::uint16_t>(token.flags & ~lost);
            may_start(token);  // the token may not start; the call records why
            send_to_end(token);
        }
    };
    hook_queue found;
    for (const weight w : weight_classes) runtime.at_gate.withdraw(w, is_to_stop, found);
    // A token with a tier holds its permit by now, and releases it when it ends.
    end_all(found, windowed);
    for (const storage tier : storage_tiers) runtime.at_gate.withdraw(tier, is_to_stop, found);
    end_all(found, holds_permit);
    runtime.holds.withdraw(is_to_stop, found);
    end_all(found, 0);
    for (const storage tier : storage_tiers)
        while (hook* admitted = runtime.at_gate.grant(tier))
            route_permitted(*core_, *static_cast<token_record*>(admitted));
    const bool again = is_control_ && runtime.tidy_kills();
    const std::uint64_t now = event_loop::steady_ns();
    next_sweep_ns_ = now + share * (now - began);
    if (again) {
        next_sweep_ns_ = std::max(next_sweep_ns_, now + tidy_every_ns);
        ask_to_sweep();
    }
}

// ---- running tokens -----------------------------------------------------------------------------

void start_token(hook* item) noexcept {
    core_context& core = *this_core;
    auto& token = *static_cast<token_record*>(item);
    core.host->start(core, token);
}

void deliver_end(hook* item) noexcept {
    core_context& core = *this_core;
    auto& token = *static_cast<token_record*>(item);
    auto& heard_by = *reinterpret_cast<waiter*>(token.owner);
    if (heard_by.done) {
        const bool counts_now = !heard_by.home;
        heard_by.done(token, heard_by);
        if (counts_now) core.counts.ended.add_release(1);
        return;
    }
    auto& awaiter = static_cast<coroutine_waiter&>(heard_by);
    core.host->resume_token(core, awaiter.token, awaiter.handle);
}

void executor::start(core_context& core, token_record& token) noexcept {
    if (token.flags & windowed) ++started_;
    ++starts_in_turn_;
    token.position.store(core.position);
    if (token.stop_requested() || runtime.at_start.load(std::memory_order_relaxed) != 0)
        [[unlikely]] {
        if (token.stop_requested() || !may_start(token)) {
            end_unrun(core, token);
            if (departing_.token) settle_departed();
            return;
        }
    }
    token.wait_is_over();  // the link has served its last queue
    // Pairs with the acquire loads in stop.cpp: a thread that reads `executing` also sees the
    // position.
    token.state.store_release(token_state::executing);
    if (token.flags & (leads | watched)) {
        if (token.flags & watched) watch_start(core, token);
        if (token.flags & leads) open_domain(core, token);
    }
    resume_token(core, &token, promise_base::of(token).handle());
}

void executor::resume_token(core_context& core, token_record* token,
                            std::coroutine_handle<> coroutine) noexcept {
    begin_segment(core, token);
    run_measured(core, token, [&]() noexcept { resume(core, coroutine); });
}

void executor::continue_group(core_context& core, token_group& group) noexcept {
    ++starts_in_turn_;
    begin_segment(core, group.token);
    run_measured(core, group.token, [&]() noexcept {
        if (begin_rest(core, group)) resume(core, group.handle);
    });
}

inline void executor::begin_segment(core_context& core, token_record* token) noexcept {
    core.inline_budget = budget_;
    if (budget_ != 0) [[likely]]
        return;
    core.watched_budget = budget_in_place;
    if (token && (token->flags & watched)) watch_segment_begin(core, *token);
}

template <class Run>
inline void executor::run_measured(core_context& core, token_record* token, Run run) noexcept {
    // A foreign coroutine that awaits a token, but is not part of a token: its run time is unknown.
    operation_counters* operation =
        token ? &core.operations[token->operation.load()->index] : nullptr;
    if (operation && operation->is_short && operation->until_measured != 0) {
        --operation->until_measured;
        core.current = token;
        run();
    } else {
        if (!operation || !operation->is_short) {
            loop.flush();
            loop.submit_requests();
        }
        const std::uint64_t began = event_loop::steady_ns();
        core.current = token;
        run();
        const std::uint64_t now = event_loop::steady_ns();
        if (operation) note_run(*operation, now - began);
        if (now - loop.turn_began_ns() > turn_ns) loop.end_turn();
    }
    core.current = nullptr;
    if (budget_ == 0) [[unlikely]]
        watch_segment_end(core);
    if (departing_.token) settle_departed();
}

void executor::note_run(operation_counters& operation, std::uint64_t elapsed_ns) noexcept {
    constexpr std::uint16_t runs_between = 31;
    const std::uint64_t decayed = operation.longest_ns - operation.longest_ns / 8;
    operation.longest_ns = static_cast<std::uint32_t>(
        std::min<std::uint64_t>(std::max(decayed, elapsed_ns), ~std::uint32_t{0}));
    operation.is_short = operation.longest_ns < short_ns;
    operation.until_measured = operation.is_short ? runs_between : 0;
}

}  // namespace tokengate::detail
