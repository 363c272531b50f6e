// SPDX-License-Identifier: MIT
#pragma once

#include "backlog.hpp"
#include "blocking_pool.hpp"
#include "executor.hpp"
#include "gate.hpp"
#include "gate_rules.hpp"
#include "guard.hpp"
#include "router.hpp"
#include "runtime_slots.hpp"
#include "service.hpp"
#include "signal_desk.hpp"
#include "stall_detector.hpp"
#include "sticky_registry.hpp"
#include "watch.hpp"

#include <tokengate/runtime.hpp>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

/// What a runtime is made of: the gate, the load table, the sticky registry, one executor a position, and behind them the
/// control loop (an executor without a place in the routing). How it ends is argued in life_cycle.cpp.

namespace tokengate::detail {

struct suspension;

/// Those whose `at_start` is not 0. Relaxed: who polls (stop_token) and comes too early finds it the next time.
inline constinit std::atomic<unsigned> runtimes_that_ask{0};

struct runtime_core {
    runtime_core(runtime_options&& chosen, core_layout layout);
    runtime_core(const runtime_core&) = delete;
    runtime_core& operator=(const runtime_core&) = delete;
    ~runtime_core() {
        lease.retire();  // before what a visitor would look at
        lower_at_start(~std::uint32_t{0});
    }

    [[nodiscard]] executor& control() noexcept { return *executors.back(); }
    [[nodiscard]] unsigned positions() const noexcept { return loads.layout().positions(); }
    [[nodiscard]] bool is_control(unsigned position) const noexcept { return position >= positions(); }
    /// The core a position belongs to; `control_core` for the control loop, and for none at all.
    [[nodiscard]] unsigned core_of(unsigned position) const noexcept {
        return is_control(position) ? control_core : position / loads.layout().workers_per_core;
    }

    // The owner's calls, and stop from any thread.
    void run_main(promise_base& main);
    void start();
    stop_report stop(std::chrono::nanoseconds deadline, std::chrono::nanoseconds grace);
    [[nodiscard]] task<stop_report> stop_others(std::chrono::nanoseconds deadline, std::chrono::nanoseconds grace);
    void submit(token_record& token);
    /// `services`: also those, and what works for them.
    [[nodiscard]] std::vector<token_info> tokens(bool services = true) const;

    /// What snapshot() says, but for the operations.
    [[nodiscard]] snapshot counts();

    void warn(const std::string& text) const noexcept;

    /// Any thread: somebody at the gate has been asked to stop.
    void sweep_gate() noexcept;

    // What gate_control says; gate_control.cpp.
    void pause(const selection& what);
    bool resume(const selection& what);
    void lift_holds_for_good();
    /// Begins to drain; `marks` says who is to end.
    void begin_drain(const selection& what, const sequence_marks& marks);
    [[nodiscard]] std::size_t kill(const selection& what, std::string_view reason);
    /// Tokens alive that are meant and had been made by then.
    [[nodiscard]] std::vector<token_info> alive(const selection& what, const sequence_marks& made_before) const;
    /// On the control loop: forgets what has met all whom it meant; true if something is left to do.
    bool tidy_kills() noexcept;
    /// Calls visit(token_info, operation) for each token alive.
    void look(const std::function<void(const token_info&, const operation_record&)>& visit) const;

    /// Sum over executors; see life_cycle.cpp, step 3.
    [[nodiscard]] std::uint64_t count_ended() const noexcept;
    [[nodiscard]] std::uint64_t count_admitted() const noexcept;

    /// Any thread but an executor's own: an unadmitted token of one of our domains has been dropped there.
    void end_far_from_home(token_record& token) noexcept;
    /// Once joined; true if the caller must delete this.
    [[nodiscard]] bool leave_orphaned_domain(token_record& token) noexcept;

    const runtime_options options;
    runtime_core* older = nullptr;  // see newest_runtime; before the lease, which links it
    const slot_lease lease;
    const std::uint16_t slot;
    /// attention_bits: whether the gate looks closer at those it admits. Stored (seq_cst) by who begins or ends to look;
    /// loaded relaxed at each admission, and once a turn. It guards nothing: what it points to has its own mutex.
    std::atomic<std::uint32_t> attention;

    load_table loads;
    gate at_gate;
    backlog places{options.backlog, options.metrics};
    sticky_registry registry;
    std::vector<std::unique_ptr<executor>> executors;  // by position; the control loop is the last
    // From before the executors run until after they do: threads that enter and leave a loop tell it.
    std::optional<stall_detector> stalls;
    // These post to loops, and therefore go before the executors.
    signal_desk signals{*this};
    service_desk services{*this};
    std::optional<blocking_pool> blocking;  // emptied when the executors have been joined

    /// Raised by the control loop with exchange(acq_rel) when it begins to wait for the end, lowered when it has left.
    /// Executors read it by fetch_or(0, acq_rel) when they park: either that comes first, and the control loop's sums
    /// include what they ended, or they find it raised and report.
    std::atomic<unsigned> draining{0};

    /// start_bits: what is asked of a token before it starts. Set before hooks to every loop follow: who starts
    /// after its loop has run the hook finds the bit, who has started before is found by the hook.
    std::atomic<std::uint32_t> at_start{0};
    void raise_at_start(std::uint32_t bits) noexcept {
        if (at_start.fetch_or(bits, std::memory_order_seq_cst) == 0)
            runtimes_that_ask.fetch_add(1, std::memory_order_relaxed);
    }
    void lower_at_start(std::uint32_t bits) noexcept {
        const std::uint32_t before = at_start.fetch_and(~bits, std::memory_order_seq_cst);
        if (before != 0 && (before & ~bits) == 0) runtimes_that_ask.fetch_sub(1, std::memory_order_relaxed);
    }
    [[nodiscard]] bool stops_all() const noexcept { return at_start.load(std::memory_order_relaxed) & stopping_all; }

    gate_holds holds{at_start};
    gate_kills kills;
    guard_table guards;

    std::mutex orphans;                               // guards the three below, and the domains once `joined`
    bool joined = false;                              // no executor runs any more
    bool abandoned = false;                           // the runtime object is gone; the last domain deletes this
    std::uint64_t orphaned_domains = 0;               // once joined: domains that unadmitted tokens still hold
    std::atomic<std::uint64_t> dropped_from_afar{0};  // counted as admitted when posted, as ended by the executor

private:
    struct stop_hook : hook {
        runtime_core* of;
    };
    struct sweep_hook : hook {
        runtime_core* of;
        /// Exchanged (acq_rel) to true by whoever posts the hook, to false by the control loop before it sweeps.
        std::atomic<bool> under_way{false};
    };

    struct release_hook : hook {
        runtime_core* of;
        std::mutex mutex;  // guards the queue
        hook_queue freed;  // held ones that have been let go, on their way back to the gate
        /// Exchanged (acq_rel) to true by whoever posts the hook, to false by the control loop before it looks.
        std::atomic<bool> under_way{false};
    };

    void holds_changed(hook_queue& freed) noexcept;
    void release(hook_queue& freed) noexcept;
    void release_some() noexcept;
    void settle_attention() noexcept;
    void begin_to_stop(bool for_ever);
    class insider;
    /// Under lifecycle_: those inside of stop_others and who waits for them.
    [[nodiscard]] std::vector<const token_record*> insiders();
    [[nodiscard]] bool only_insiders_are_left();
    [[nodiscard]] stop_report outsiders();
    void ask_everything_to_stop() noexcept;

    /// While it lives, this thread hosts the control loop.
    class hosting {
    public:
        explicit hosting(runtime_core& of);
        ~hosting();
        hosting(const hosting&) = delete;
        hosting& operator=(const hosting&) = delete;

    private:
        runtime_core& of_;
    };

    void check_hostable() const;  // under `lifecycle_`
    void leave_control() noexcept;
    void serve_until(std::chrono::steady_clock::time_point until);
    void join_executors() noexcept;
    void run_left_mail() noexcept;

    std::mutex lifecycle_;          // guards what follows
    std::condition_variable left_;  // notified when the control loop's host has left it
    bool hosted_ = false;
    bool stop_posted_ = false;
    std::vector<const token_record*> inside_;  // of stop_others; suspended there
    /// Stored by the control loop (release) when it has taken all mail from before the stop; loaded by those who wait for
    /// the end (acquire).
    std::atomic<bool> stop_seen_{false};
    bool stopped_ = false;  // all threads have been joined
    bool all_asked_ = false;
    stop_hook stop_;
    sweep_hook sweep_;
    release_hook release_;
    std::mutex attention_change_;  // so that `holding` is not lowered while somebody raises it

    std::thread control_thread_;  // after start()
};

/// Fills in what the user left open. Throws configuration_error.
[[nodiscard]] core_layout settle(runtime_options& options);

}  // namespace tokengate::detail
