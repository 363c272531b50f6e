// SPDX-License-Identifier: MIT
#pragma once

#include "blocking_pool.hpp"
#include "executor.hpp"
#include "gate.hpp"
#include "gate_rules.hpp"
#include "guard.hpp"
#include "router.hpp"
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
/// control loop (an executor without a place in the routing).
///
/// # How it ends
///
///  1. `stop` closes the control loop's mailbox to foreign threads. That is one atomic with `submit`: from here on a submit is
///     refused, and what was accepted before is in the mailbox and will be served. Who waits for room to submit is woken, and
///     refused. Without a deadline, what the gate holds is let go, and nothing is held any more.
///     What is alive then may end by itself while the grace lasts. After it, everything is asked to stop: `at_start` is for
///     what starts later, a hook to each executor for what it executes, a sweep for what waits at the gate.
///  2. The control loop learns that it is to end (`ending_`): by a hook from `stop`, or, under `run`, when the main token ended.
///     It raises `draining`, and from then on every executor that goes idle reports to it.
///  3. At each report it compares, over all executors, first what has ended and then what was admitted. Every token is
///     counted as admitted before its maker can end, so equal sums mean that at the moment between the two readings nothing
///     was alive; and where nothing is alive and nobody may submit, nothing will be.
///     Services are not in these sums while they live. So the first time that they are equal, only services are alive: they
///     are asked to stop, and none is started any more. What a service leaves behind was counted as admitted before the
///     service ended, and services end on this loop: sums that are equal when no service is left mean the same again.
///  4. It leaves its loop. Whoever owns the threads ends the stall detector, which must not signal a thread that has been
///     joined, tells each executor to quit, and joins them. No loop sends any more.
///     Then the threads for blocking calls are joined. They have no work, since each call was awaited by a token; one may
///     still be on its way out of the post that ended a token's wait, so the loops must exist yet. Before step 5, because
///     what such a thread leaves behind as it ends may be mail.
///  5. Mail that no loop has taken (frames of unadmitted conducted tokens, dropped by foreign threads) is run by the
///     destroying thread. Domains that such tokens, held elsewhere, still keep alive are ended under `orphans`; the last of
///     them frees this structure.
///  6. Rings are closed with their loops, after all of this.

namespace tokengate::detail {

/// A number for a living runtime, by which tokens name theirs; 0 is none.
class slot_lease {
public:
    slot_lease(runtime_core& of, const std::function<void(const failure&)>& failure_handler);
    ~slot_lease();
    slot_lease(const slot_lease&) = delete;
    slot_lease& operator=(const slot_lease&) = delete;
    [[nodiscard]] std::uint16_t slot() const noexcept { return slot_; }
    /// From here on `with_runtime` finds nothing; waits for a visit under way.
    void retire() const noexcept;

private:
    std::uint16_t slot_;
};

struct suspension;

struct runtime_core {
    runtime_core(runtime_options&& chosen, core_layout layout);
    runtime_core(const runtime_core&) = delete;
    runtime_core& operator=(const runtime_core&) = delete;
    ~runtime_core() { lease.retire(); }  // before what a visitor would look at

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
    void submit(token_record& token);
    /// `services`: also those, and what works for them.
    [[nodiscard]] std::vector<token_info> tokens(bool services = true) const;

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

    // The backlog's places, while it has a limit.
    bool take_place() noexcept;
    void take_place_anyway() noexcept;
    [[nodiscard]] admission_rejected backlog_is_full(const token_record& token) const;
    /// For a submit, before the token is posted: its state says whether it has its place. Blocks until there is one, or
    /// throws admission_rejected, as the policy says.
    void take_place_for(token_record& token);
    /// True: the spawner is suspended, and will be woken when there is room.
    bool wait_for_room(suspension& spawner, core_context& core, std::coroutine_handle<> awaiting,
                       const token_record& spawned);
    [[nodiscard]] bool leave_room_queue(suspension& spawner) noexcept;
    /// A spawner that had waited for room has done with it: what it has not used is for the next.
    void pass_room_on() noexcept;
    /// `count` tokens have left the gate.
    void leave_backlog(std::size_t count) noexcept;
    /// Who waits for room to submit is to look whether the gate has been closed.
    void close_backlog() noexcept;

    /// Sum over executors; see step 3.
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

    void release(hook_queue& freed) noexcept;
    void release_some() noexcept;
    void settle_attention() noexcept;
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
    bool stop_seen_ = false;  // set by the control loop; read here once it has been left
    bool stopped_ = false;    // all threads have been joined
    bool all_asked_ = false;
    stop_hook stop_;
    sweep_hook sweep_;
    release_hook release_;
    std::mutex attention_change_;  // so that `holding` is not lowered while somebody raises it

    std::mutex room_mutex_;
    hook_queue spawners_;           // suspended until there is room; under the mutex; as many as tokens that spawn
    std::condition_variable room_;  // notified when the backlog has shrunk below its limit
    std::atomic<std::size_t> backlog_{0};   // tokens that wait at the gate, while that has a limit
    std::atomic<unsigned> room_wanted_{0};  // seq_cst, as the backlog is: see leave_backlog
    std::thread control_thread_;            // after start()
};

/// Calls `visit` with the living runtime that has this slot, and keeps it alive meanwhile.
void with_runtime(std::uint16_t slot, const std::function<void(runtime_core&)>& visit);

/// The handler of the runtime that has this slot; null when it is gone.
std::shared_ptr<const std::function<void(const failure&)>> failure_handler_of(std::uint16_t slot);

/// Registers a runtime; throws configuration_error if living operations contradict each other.
void check_operations();
void forget_runtime() noexcept;

/// The name as an operation has it, for as long as the process lives; null if no operation has been named so.
const char* operation_name_of(std::string_view name);

}  // namespace tokengate::detail
