// SPDX-License-Identifier: MIT

// The operator's requests to the gate, and how each reaches tokens.
//
// # Pause
//
// `pause` adds a rule and sets the `holding` bit. From then on, every admission, every core that
// takes from a class FIFO, and every thread that passes a permit on checks the rules. So no held
// token starts, wherever it waited when the rule was added. It goes into the rule's queue instead,
// without a permit and without a place in a window. When `resume` removes the rule, its queue
// returns through the control loop, at most `let_in_at_once` tokens a turn.
//
// # Drain
//
// A drain rule admits tokens made before it. It also admits the tokens that such a token spawns
// while it runs: otherwise a parent would wait for a child that is held until the parent ends. The
// drain polls the list of live tokens for those that have not ended. Tokens are not counted for it.
//
// # Kill
//
// As with a stop (executor/stop.cpp), `kill` first sets a bit, `killing` in `at_start`, and then
// posts a hook to each loop. A token that starts later reads the bit. A token that executes is
// found by its loop, or reads the rule itself if its body polls before its loop has a turn. A sweep
// removes the tokens that wait at the gate. A kill rule applies to tokens created before it (its
// sequence marks). It is removed once no token to which it applies can be left.

#include "base/deadline.hpp"
#include "executor/executor.hpp"
#include "gate/selection.hpp"
#include "lifecycle/runtime_core.hpp"
#include "token/awaiters.hpp"

#include <tokengate/detail/promise.hpp>
#include <tokengate/detail/suspension.hpp>
#include <tokengate/error.hpp>
#include <tokengate/gate.hpp>
#include <tokengate/time.hpp>

#include <algorithm>
#include <chrono>
#include <future>
#include <string>
#include <thread>

namespace tokengate {

namespace detail {

namespace {
constexpr unsigned let_in_at_once = 256;  // held tokens that one turn of the control loop releases
}  // namespace

// ---- holding ------------------------------------------------------------------------------------

void runtime_core::settle_attention() noexcept {
    const std::scoped_lock lock(attention_change_);
    if (holds.any())
        attention.fetch_or(holding, std::memory_order_seq_cst);
    else
        attention.fetch_and(~std::uint32_t{holding}, std::memory_order_seq_cst);
}

void runtime_core::pause(const selection& what) {
    holds.pause(what);
    settle_attention();
}

bool runtime_core::resume(const selection& what) {
    hook_queue freed;
    const bool was_held =
        what.of() == selection::kind::all ? holds.lift_all(freed) : holds.resume(what, freed);
    holds_changed(freed);
    return was_held;
}

void runtime_core::lift_holds_for_good() {
    hook_queue freed;
    holds.seal(freed);
    holds_changed(freed);
}

void runtime_core::begin_drain(const selection& what, const sequence_marks& marks) {
    hook_queue freed;
    holds.drain(what, marks, freed);
    holds_changed(freed);
}

void runtime_core::holds_changed(hook_queue& freed) noexcept {
    settle_attention();
    release(freed);
}

void runtime_core::release(hook_queue& freed) noexcept {
    if (freed.empty()) return;
    {
        const std::scoped_lock lock(release_.mutex);
        release_.freed.append(freed);
    }
    if (!release_.under_way.exchange(true, std::memory_order_acq_rel))
        control().loop.post(&release_);
}

void runtime_core::release_some() noexcept {
    release_.under_way.exchange(false, std::memory_order_acq_rel);
    hook_queue some;
    bool more;
    {
        const std::scoped_lock lock(release_.mutex);
        for (unsigned i = 0; i < let_in_at_once && !release_.freed.empty(); ++i)
            some.push(release_.freed.pop());
        more = !release_.freed.empty();
    }
    while (!some.empty())
        control().let_in(*this_core, *static_cast<token_record*>(some.pop()),
                         gate_holds::coming::let_go);
    if (more && !release_.under_way.exchange(true, std::memory_order_acq_rel))
        control().loop.ready(&release_);
}

// ---- killing ------------------------------------------------------------------------------------

std::size_t runtime_core::kill(const selection& what, std::string_view reason) {
    const sequence_marks before = mark_sequences();
    // Counted before the kill: some tokens will have ended before the last is notified.
    const std::size_t found = alive(what, before).size();
    std::string why(reason);
    const auto breaks_a_line = [](unsigned char each) { return each < ' ' || each == 0x7f; };
    std::ranges::replace_if(why, breaks_a_line, ' ');
    kills.add(what, before, std::make_shared<const std::string>(std::move(why)));
    raise_at_start(killing);
    for (const auto& each : executors) each->post_kill();
    sweep_gate();
    return found;
}

std::vector<token_info> runtime_core::alive(const selection& what,
                                            const sequence_marks& made_before) const {
    std::vector<token_info> found;
    look([&](const token_info& info, const operation_record& operation) {
        if (info.state != token_state::created && operation.index != own_operation &&
            made_before.covers(info.id.sequence) && means(what, info))
            found.push_back(info);
    });
    return found;
}

// ---- draining -----------------------------------------------------------------------------------

namespace {

/// Resumes its awaiter when the control loop has taken all mail that was posted before.
class control_turn : public suspension {
public:
    explicit control_turn(runtime_core& of) noexcept : of_(of) {
        turn_.of = this;
        turn_.run = [](hook* self) noexcept { static_cast<turn*>(self)->of->wake_from_anywhere(); };
    }
    bool await_ready() const noexcept { return false; }
    bool await_suspend(std::coroutine_handle<> awaiting) {
        suspend(enter("drain"), awaiting, nullptr);
        of_.control().loop.post(&turn_);
        return true;
    }
    void await_resume() const noexcept {}

private:
    struct turn : hook {
        control_turn* of;
    };
    runtime_core& of_;
    turn turn_;
};

/// The token that awaits the drain, and its own awaiters: they cannot end before the drain has.
std::vector<std::uint64_t> sequences_of_callers() {
    std::vector<std::uint64_t> found;
    for (const token_record* each = this_core->current; each; each = awaiter_of(*each))
        found.push_back(each->sequence.load());
    return found;
}

/// How long to wait before the next scan. A scan takes at most an eighth of the wait that follows
/// it.
std::chrono::nanoseconds pause_after(std::chrono::steady_clock::time_point began) {
    return std::max<std::chrono::nanoseconds>(std::chrono::microseconds(200),
                                              8 * (std::chrono::steady_clock::now() - began));
}

void check_not_stopped(runtime_core& of, const char* what) {
    const std::scoped_lock lock(of.orphans);
    if (of.joined)
        throw gate_closed(std::string("gate_closed: gate::") + what +
                          ": the runtime has been stopped");
}

task<stop_report> drain_of(runtime_core& of, selection what, time_span deadline) {
    check_not_stopped(of, "drain");
    const auto until = from_now(deadline);
    const sequence_marks marks = mark_sequences();
    of.begin_drain(what, marks);
    co_await control_turn(of);  // afterwards, all tokens submitted before are at the gate
    for (bool over = false;;) {
        const auto began = std::chrono::steady_clock::now();
        stop_report left{of.alive(what, marks)};
        const std::vector<std::uint64_t> callers = sequences_of_callers();
        std::erase_if(left.survivors, [&](const token_info& info) {
            return std::ranges::find(callers, info.id.sequence) != callers.end();
        });
        if (left.complete()) {
            if (over) co_return left;
            // The gate may have admitted a matching token during this scan. After end_drain it
            // admits none, and the next scan finds that one.
            of.holds.end_drain(what, marks);
            over = true;
            continue;
        }
        if (began >= until) co_return left;
        const auto rest = std::min<std::chrono::nanoseconds>(pause_after(began), until - began);
        co_await sleep_for(rest);
    }
}

void check_tier(storage tier) {
    if (tier == storage::none || tier > storage::insane)
        throw configuration_error(
            "configuration_error: gate: this storage tier has no limit; those that have: slow, "
            "moderate, fast, insane");
}

}  // namespace

}  // namespace detail

// ---- gate_control -------------------------------------------------------------------------------

void gate_control::pause(const selection& what) { of_->pause(detail::settled(what)); }
bool gate_control::resume(const selection& what) { return of_->resume(detail::settled(what)); }
bool gate_control::paused(const selection& what) const {
    return of_->holds.paused(detail::settled(what));
}

task<stop_report> gate_control::drain(selection what, time_span deadline) {
    return detail::drain_of(*of_, detail::settled(what), deadline);
}

stop_report gate_control::wait_drained(const selection& what, time_span deadline) {
    if (detail::this_core && detail::this_core->host)
        throw wrong_thread(
            "wrong_thread: gate::wait_drained was called on an event loop's thread, which it would "
            "block: "
            "co_await gate().drain() there");
    const selection meant = detail::settled(what);
    detail::check_not_stopped(*of_, "wait_drained");
    const auto until = detail::from_now(deadline);
    const detail::sequence_marks marks = detail::mark_sequences();
    of_->begin_drain(meant, marks);
    struct turn : detail::hook {
        std::promise<void> taken;
    };
    auto seen = std::make_unique<turn>();
    seen->run = [](detail::hook* self) noexcept {
        const std::unique_ptr<turn> mine(static_cast<turn*>(self));
        mine->taken.set_value();
    };
    const std::future<void> taken = seen->taken.get_future();
    of_->control().loop.post(seen.release());  // the thread that runs the hook frees it
    if (until == std::chrono::steady_clock::time_point::max())
        taken.wait();
    else
        taken.wait_until(until);
    for (bool over = false;;) {
        const auto began = std::chrono::steady_clock::now();
        stop_report left{of_->alive(meant, marks)};
        if (left.complete()) {
            if (over) return left;
            of_->holds.end_drain(meant, marks);  // as in drain_of
            over = true;
            continue;
        }
        if (began >= until) return left;
        std::this_thread::sleep_for(std::min<std::chrono::nanoseconds>(detail::pause_after(began),
                                                                       until - began));
    }
}

std::size_t gate_control::kill(const selection& what, std::string_view reason) {
    return of_->kill(detail::settled(what), reason);
}

void gate_control::storage_limit(storage tier, int limit) {
    detail::check_tier(tier);
    if (limit < 1)
        throw configuration_error("configuration_error: gate::storage_limit: " +
                                  std::to_string(limit) +
                                  " is too low: a tier admits at least 1 operation at a time");
    of_->at_gate.set_limit(tier, limit);
    of_->sweep_gate();
}

int gate_control::storage_limit(storage tier) const {
    detail::check_tier(tier);
    return of_->at_gate.limit(tier);
}

int gate_control::storage_in_use(storage tier) const {
    detail::check_tier(tier);
    return of_->at_gate.in_use(tier);
}

}  // namespace tokengate
