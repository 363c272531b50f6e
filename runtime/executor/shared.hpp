// SPDX-License-Identifier: MIT
#pragma once

#include "base/blocking_pool.hpp"
#include "executor/executor.hpp"
#include "executor/slots.hpp"
#include "executor/stall_detector.hpp"
#include "gate/attention.hpp"
#include "gate/backlog.hpp"
#include "gate/gate.hpp"
#include "gate/guard.hpp"
#include "gate/holds.hpp"
#include "gate/kills.hpp"
#include "routing/router.hpp"
#include "routing/sticky_registry.hpp"

#include <tokengate/runtime_options.hpp>
#include <tokengate/token_info.hpp>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

/// What the executors of a runtime share: the gate, the load table, the sticky registry, one
/// executor for each position. Behind these is the control loop (an executor without a position).
/// The layer above begins, steers and ends a runtime (lifecycle/runtime_core.hpp). An executor
/// knows only the two virtual functions of that layer.

namespace tokengate::detail {

class signal_desk;

/// The number of runtimes whose `at_start` is not 0. Relaxed: a body that polls (stop_token) too
/// early finds the change at its next poll.
inline constinit std::atomic<unsigned> runtimes_that_ask{0};

struct shared_state {
    shared_state(runtime_options&& chosen, core_layout layout);
    shared_state(const shared_state&) = delete;
    shared_state& operator=(const shared_state&) = delete;
    virtual ~shared_state();

    /// On the control loop, once a thread hosts it and it is to serve.
    virtual void control_opened() noexcept = 0;
    /// On the control loop, when only services are alive: requests their stop; true if they have
    /// ended.
    [[nodiscard]] virtual bool may_end() noexcept = 0;

    [[nodiscard]] executor& control() noexcept { return *executors.back(); }
    [[nodiscard]] unsigned positions() const noexcept { return loads.layout().positions(); }
    [[nodiscard]] bool is_control(unsigned position) const noexcept {
        return position >= positions();
    }
    /// The core of a position; `control_core` for the control loop, and for no position.
    [[nodiscard]] unsigned core_of(unsigned position) const noexcept {
        return is_control(position) ? control_core : position / loads.layout().workers_per_core;
    }

    void warn(const std::string& text) const noexcept;

    /// Any thread: a token at the gate has been asked to stop.
    void sweep_gate() noexcept;

    /// On the control loop: removes kill rules that no token is left for; true if some rules
    /// remain.
    bool tidy_kills() noexcept;
    /// Calls visit(token_info, operation) for each live token of this runtime.
    void look(const std::function<void(const token_info&, const operation_record&)>& visit) const;

    /// Sum over all executors; see life_cycle.cpp, step 3.
    [[nodiscard]] std::uint64_t count_ended() const noexcept;
    [[nodiscard]] std::uint64_t count_admitted() const noexcept;

    /// Any thread that hosts no executor of this runtime: an unadmitted token of one of this
    /// runtime's domains was dropped on that thread.
    void end_far_from_home(token_record& token) noexcept;
    /// Once joined; true if the caller must delete this.
    [[nodiscard]] bool leave_orphaned_domain(token_record& token) noexcept;
    /// Once joined: runs the mail that no loop has taken.
    void run_left_mail() noexcept;

    const runtime_options options;
    // See newest_runtime. Declared before the lease, which links it.
    shared_state* older = nullptr;
    const slot_lease lease;
    const std::uint16_t slot;
    /// attention_bits: whether the gate must instrument or hold the tokens that it admits. Stored
    /// (seq_cst) when an instrument or a hold begins or ends; loaded relaxed at each admission, and
    /// once a turn. It guards nothing: the data behind each bit has its own mutex.
    std::atomic<std::uint32_t> attention;

    load_table loads;
    gate at_gate;
    backlog places{options.backlog, options.metrics};
    sticky_registry registry;
    std::vector<std::unique_ptr<executor>> executors;  // by position; the control loop is the last
    // From before the executors run until after they end: a thread that enters or leaves a loop
    // registers here.
    std::optional<stall_detector> stalls;
    // Its threads post to loops, so it is destroyed before the executors.
    std::optional<blocking_pool> blocking;  // emptied once the executors have been joined
    // Owned by the runtime; set from before the executors run until after they end.
    signal_desk* signals = nullptr;

    /// Raised by the control loop with exchange(acq_rel) when it begins to wait for the end,
    /// lowered when it has left. Executors read it by fetch_or(0, acq_rel) when they park. Either
    /// the fetch_or comes before the exchange, and the control loop's sums include the tokens that
    /// the executor ended; or the executor finds it raised and reports.
    std::atomic<unsigned> draining{0};

    /// start_bits: the requests that a token checks before it starts. Set before hooks to every
    /// loop follow. A token that starts after its loop has run the hook finds the bit; the hook
    /// finds a token that started before.
    std::atomic<std::uint32_t> at_start{0};
    void raise_at_start(std::uint32_t bits) noexcept {
        if (at_start.fetch_or(bits, std::memory_order_seq_cst) == 0)
            runtimes_that_ask.fetch_add(1, std::memory_order_relaxed);
    }
    void lower_at_start(std::uint32_t bits) noexcept {
        const std::uint32_t before = at_start.fetch_and(~bits, std::memory_order_seq_cst);
        if (before != 0 && (before & ~bits) == 0)
            runtimes_that_ask.fetch_sub(1, std::memory_order_relaxed);
    }
    [[nodiscard]] bool stops_all() const noexcept {
        return at_start.load(std::memory_order_relaxed) & stopping_all;
    }

    gate_holds holds{at_start};
    gate_kills kills;
    guard_table guards;

    std::mutex orphans;                  // guards the next three, and the domains once `joined`
    bool joined = false;                 // no executor runs any more
    bool abandoned = false;              // the runtime object is gone; the last domain deletes this
    std::uint64_t orphaned_domains = 0;  // once joined: domains that unadmitted tokens still hold
    // Tokens counted as admitted when posted, and as ended by the executor.
    std::atomic<std::uint64_t> dropped_from_afar{0};

private:
    struct sweep_hook : hook {
        shared_state* of;
        /// Exchanged (acq_rel): to true by the thread that posts the hook, to false by the control
        /// loop before it sweeps.
        std::atomic<bool> under_way{false};
    };

    sweep_hook sweep_;
};

}  // namespace tokengate::detail
