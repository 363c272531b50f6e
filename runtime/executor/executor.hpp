// SPDX-License-Identifier: MIT
#pragma once

#include "gate/holds.hpp"
#include "loop/event_loop.hpp"
#include "routing/router.hpp"
#include "routing/sticky_registry.hpp"
#include "token/context.hpp"
#include "token/operation_stats.hpp"
#include "token/trace_ring.hpp"

#include <tokengate/detail/core_context.hpp>

#include <array>
#include <atomic>
#include <coroutine>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>

/// An executor: one event loop, one thread, one position in the routing. It starts and resumes
/// tokens, and never takes a token from another executor. The control loop is an executor without a
/// position: `run` or `start` lends it a thread.
///
/// A long run delays no messages. Before an executor resumes a token that is not known to be short,
/// it flushes its outboxes and submits its requests to the kernel. An operation is short on a core
/// while its longest recent run there is under 50 µs; an operation without a known run is long.
/// Short operations are measured every 32nd run and others at each run, so that the clock stays off
/// the path.
///
/// An executor's window (load_table.hpp) follows the run time that the executor measures. If at
/// least half of the window is free, the executor pulls a chunk from the gate's class FIFOs: those
/// of the classes that it serves, in turn; if those are empty, those whose tokens may spill to it.
///
/// Lent tokens wait on the loop's shelf until they start. If an executor has nothing to run, it
/// makes the gate take tokens back from an executor that runs something long (`recall`). These
/// tokens wait on that executor's shelf or in its outboxes, or are staged there. Then the idle
/// executor pulls from the gate as always. An anchored token, or one that has started, is never
/// taken from an executor.
///
/// All members belong to the executor's thread unless noted otherwise.

namespace tokengate {
class stop_callback_base;
}

namespace tokengate::detail {

struct shared_state;
class provided_buffers;
class source_core;

/// The first resumption of a token, on the executor that received it.
void start_token(hook* item) noexcept;
/// The end of a token, on the awaiter's loop.
void deliver_end(hook* item) noexcept;

class executor final : public event_loop::guest {
public:
    executor(shared_state& runtime, unsigned position, unsigned ring_entries,
             std::uint64_t spin_ns);
    ~executor();

    /// Starts the pinned thread. `wait_until_up` throws the error that kept the thread from coming
    /// up.
    void launch(std::optional<unsigned> cpu);
    void wait_until_up();
    /// Any thread, once. The loop leaves when it runs this hook.
    void ask_to_quit() noexcept { loop.post(&quit_); }
    void join() noexcept;

    /// Lends this thread to the loop until the loop quits. `open` comes before, on the same thread:
    /// it makes the context and the ring, and throws ring_unavailable or std::bad_alloc.
    void open();
    void host() noexcept;
    /// After `join`: the number of domains that still live. From here on they are counted
    /// elsewhere.
    [[nodiscard]] std::uint64_t hand_over_domains() noexcept;
    /// Once no domain names the context of this executor's thread any more.
    void release_context() noexcept;

    void start(core_context& core, token_record& token) noexcept;
    void resume_token(core_context& core, token_record* token,
                      std::coroutine_handle<> coroutine) noexcept;
    /// As the group's awaiter: begins the children that the group left to the loop, and resumes the
    /// awaiter once all children have ended.
    void continue_group(core_context& core, token_group& group) noexcept;
    void admit(core_context& core, token_record& token) noexcept;

    // Unconducted children in place; see detail/admission.hpp and detail/group.hpp.
    [[nodiscard]] bool may_run_here(const operation_record& of) const noexcept;
    [[nodiscard]] bool may_keep(const token_record& token) const noexcept;
    static void note_run(operation_counters& operation, std::uint64_t elapsed_ns) noexcept;
    [[nodiscard]] bool keeps(const token_record& token) noexcept;
    void offer(token_group& group) noexcept;
    void withdraw(token_group& group) noexcept;
    /// Whether another core that may run tokens of this class is hungry while no token of the class
    /// waits.
    [[nodiscard]] bool hungry_in_range(weight w) const noexcept;

    /// For a token with its permit, or without need of one: to a core, or to the FIFO of its class.
    void route(core_context& core, token_record& token) noexcept;
    void send(unsigned position, token_record& token) noexcept;
    /// A group is routing its tokens: they leave together, by `hand_over_gathered` or by any flush.
    /// A core that is woken for the first of them may take the CPU of this one.
    void gather() noexcept { gathering_ = true; }
    void hand_over_gathered() noexcept;
    /// While set, tokens that this executor admits to its own core queue behind all that wait to
    /// start there.
    void to_the_back(bool now) noexcept { at_back_ = now; }
    /// Sends a hook to another loop: at once if that loop is hungry, else with the next flush.
    void send_hook(unsigned position, hook* item) noexcept;
    /// Sends an ended token to its awaiter's loop, once the token's coroutine has left the stack.
    void depart(unsigned position, token_record& ended) noexcept;
    /// The pin of the key, with one token more; if the key has none, a new pin at a routed
    /// position.
    [[nodiscard]] sticky_registry::acquired pin_key(std::uint64_t key, weight w);

    /// The control loop: it quits once nothing is alive. `drained` is true if it quit for that
    /// reason.
    void begin_to_end() noexcept;
    [[nodiscard]] bool drained() const noexcept { return drained_; }

    /// Requests a stop of the tokens that execute here and of those that wait at the gate. Any
    /// thread may post it, once.
    void post_ask_all() noexcept { loop.post(&ask_all_); }
    /// Any thread: tokens that execute here may have been killed; see gate_control.cpp.
    void post_kill() noexcept;
    /// Any thread: kill rules up to this number have been applied to the tokens that executed here;
    /// see gate_kills.
    [[nodiscard]] std::uint64_t kills_met() const noexcept { return kills_met_.load(); }
    /// The operator's reason for the kill of a token of this executor; null if none is known.
    [[nodiscard]] std::shared_ptr<const std::string> kill_reason(const token_record& token) const;
    void forget_kill_reason(const token_record& token) noexcept;
    /// Whether the running token, or a token here that awaits it, is to be killed. For a body that
    /// polls before its loop has had the turn that sets the stop bits.
    [[nodiscard]] bool kills_current() noexcept;
    void observe(const token_step& step) noexcept;
    void warn_of_observer(const token_step& step, const std::exception_ptr& thrown) noexcept;

    /// The gate rejects the token: it ends unrun, and its awaiter receives the error.
    void refuse(token_record& token, std::exception_ptr why) noexcept;
    /// Sends a token that will not run to the executor where it ends: this one, however busy the
    /// core is where it would have run. A token of a domain ends at the domain's home, which counts
    /// it.
    void send_to_end(token_record& token) noexcept;
    /// Admits a held token that the gate has released.
    void let_in(core_context& core, token_record& token, gate_holds::coming from) noexcept;
    /// Routes a token that received its permit while it waited for it.
    void route_permitted(core_context& core, token_record& token) noexcept;

    /// Schedules a sweep of the gate. The sweep sends tokens that have been asked to stop to the
    /// executors where they end. It sends tokens that can have a permit now to the executors where
    /// they run. The rate of sweeps is limited so that the loop stays free: a sweep scans
    /// everything that waits.
    void ask_to_sweep() noexcept;

    /// See stop.cpp.
    void enlist_stop_callback(token_record& token, stop_callback_base& callback);
    void forget_stop_callback(token_record& token, const stop_callback_base& callback) noexcept;
    void run_stop_callbacks(token_record& token) noexcept;

    /// The buffers that the kernel may receive into on this loop; made at the first request. Throws
    /// std::system_error, std::bad_alloc.
    [[nodiscard]] provided_buffers& buffers() { return buffers_ ? *buffers_ : make_buffers(); }
    [[nodiscard]] const provided_buffers* known_buffers() const noexcept { return buffers_; }
    /// Sources that stay armed here between awaits; the loop cancels them when it ends. See
    /// socket_core.hpp.
    void enlist(source_core& armed) noexcept;
    void strike_off(source_core& armed) noexcept;

    [[nodiscard]] unsigned position() const noexcept { return position_; }

    /// Any thread. The counts of this executor over all threads that hosted it.
    [[nodiscard]] const executor_counts& counts() const noexcept {
        // Pairs with attach and detach.
        const core_context* core = hosted_by_.load(std::memory_order_acquire);
        return core ? core->counts : counts_;
    }
    /// Any thread: the number in the sequences of tokens made here; none while no thread hosts it.
    [[nodiscard]] std::optional<std::uint64_t> context_number() const noexcept {
        // Pairs with attach and detach.
        const core_context* core = hosted_by_.load(std::memory_order_acquire);
        if (!core) return {};
        return core->next_sequence.load() >> sequence_bits;
    }
    /// Any thread: the time spent in turns that ran something, a long turn under way included. The
    /// result never decreases.
    [[nodiscard]] std::uint64_t busy_ns() const noexcept;

    shared_state& runtime;
    event_loop loop;
    /// Written by the executor's thread, read by any; null unless `trace_events` is set.
    const std::unique_ptr<trace_ring> trace;
    /// What the executor's tokens did, by operation; only with runtime_options::metrics.
    const std::unique_ptr<stats_table> stats;
    [[nodiscard]] operation_stats* stats_of(std::uint32_t operation) noexcept {
        return stats ? stats->of(operation) : nullptr;
    }
    /// Any thread; null if nothing has been counted for the operation.
    [[nodiscard]] const operation_stats* known_stats_of(std::uint32_t operation) const noexcept {
        return stats ? stats->find(operation) : nullptr;
    }

    // event_loop::guest
    void turn_began(std::uint64_t wall_ns) noexcept override;
    bool find_work(bool parking) noexcept override;
    [[nodiscard]] bool work_waits() const noexcept override;
    void before_flush() noexcept override;
    void delivered() noexcept override;
    bool flushed(unsigned destination, bool empty) noexcept override;
    void lent_to(unsigned destination) noexcept override;
    void turn_ended(std::uint64_t busy_ns, unsigned ran) noexcept override;
    void going_idle() noexcept override;
    void parked(bool now) noexcept override;
    void hungry(bool asleep) noexcept override;
    void looks_again() noexcept override;
    void hungry_no_more() noexcept override;
    void awake_with_work() noexcept override;
    bool recall(unsigned from) noexcept override;

private:
    static constexpr std::uint64_t short_ns = 50'000;
    // A turn is over once it has lasted this long.
    static constexpr std::uint64_t turn_ns = 200'000;
    // Between scans for kill rules that no token is left for.
    static constexpr std::uint64_t tidy_every_ns = 10'000'000;
    /// A core outside the home range of a token takes it back only from a turn that has lasted this
    /// long.
    static constexpr std::uint64_t foreign_wait_ns = 500'000;
    // Children that run in place before the loop has a turn.
    static constexpr int budget_in_place = 128;

    struct staged {
        hook_queue chain;
        relaxed<unsigned> count{};  // other threads read it as a hint
    };

    struct member_hook : hook {
        executor* of;
    };

    struct sweep_timer : timer {
        executor* of;
    };

    provided_buffers& make_buffers();
    void retire_buffers() noexcept;
    void quit_when_settled() noexcept;
    void ask_all_to_stop() noexcept;
    void sweep_gate() noexcept;
    void kill_those_here() noexcept;
    bool attend(core_context& core, token_record& token) noexcept;
    bool acquire_watched(token_record& token) noexcept;
    void leave_gate(token_record& token, unsigned position) noexcept;
    bool enter_backlog(token_record& token) noexcept;
    bool shed_oldest(weight w) noexcept;
    [[nodiscard]] unsigned let_pass(core_context& core, hook_queue& taken) noexcept;
    bool may_start(token_record& token) noexcept;
    static void waits(token_record& token) noexcept;
    void pass_permits(core_context& core, token_record& token) noexcept;
    void begin_segment(core_context& core, token_record* token) noexcept;
    template <class Run>
    void run_measured(core_context& core, token_record* token, Run run) noexcept;
    bool give_siblings(weight w) noexcept;
    bool give_children(token_group& group, weight w) noexcept;
    void stage(weight w, token_record& token) noexcept;
    void splice(weight w) noexcept;
    void settle_departed() noexcept;
    [[nodiscard]] bool keeps_work() const noexcept;
    void return_to_gate(hook_queue& started_nowhere, std::array<bool, 3>& put_back) noexcept;
    void put_aside(weight w) noexcept;
    /// False: some executors are marked asleep, and each is about to scan by itself.
    [[nodiscard]] bool tell_sleepers(weight w) noexcept;
    void end_gathering() noexcept;
    void wake_for(weight w) noexcept;
    bool wake_one_of(unsigned first, unsigned end) noexcept;
    void publish_started() noexcept;
    unsigned pull(weight w, bool look_anyway) noexcept;
    void report_idle() noexcept;
    void end_if_drained() noexcept;
    void attach(core_context& core) noexcept;
    void detach(core_context& core) noexcept;

    const unsigned position_;
    const bool is_control_;
    router routes_;
    // By weight: tokens that found no core with room, on their way to the gate; in the loop's lock.
    std::array<staged, 3> staged_{};
    struct {
        token_record* token = nullptr;
        unsigned position = 0;
    } departing_;
    bool gathering_ = false;
    std::array<bool, 3> gathered_{};  // by weight: a token was put aside since `gather`
    bool at_back_ = false;            // see at_back in retry.hpp
    // Groups with children that may be given away, doubly linked by age.
    token_group* oldest_offer_ = nullptr;
    token_group* newest_offer_ = nullptr;
    unsigned started_ = 0;  // windowed tokens started and not yet published
    unsigned starts_in_turn_ = 0;
    std::uint64_t average_run_ns_ = 0;
    unsigned window_ = window_for(0);
    unsigned next_class_ = 0;
    int budget_ = budget_in_place;  // 0 while tokens are instrumented
    bool ending_ = false;           // the control loop only; also the next
    bool drained_ = false;

    core_context* core_ = nullptr;  // while hosted
    // The former context, withheld from reuse while domains of this executor name it.
    core_context* outlived_ = nullptr;
    executor_counts counts_;  // while not hosted; else in the context
    // Stored by attach and detach (release), loaded by counts() and context_number() (acquire).
    std::atomic<core_context*> hosted_by_{nullptr};
    relaxed<std::uint64_t> busy_ns_{};
    struct {
        std::uint64_t sequence = 0;  ///< of the polling token
        std::uint64_t newest = 0;    ///< number of the newest kill rule at that poll
        bool answer = false;
    } last_poll_;  // of kills_current
    // The largest result of `busy_ns` so far; relaxed, among its callers.
    mutable std::atomic<std::uint64_t> busy_told_{0};

    struct kill_hook : member_hook {
        /// Exchanged (acq_rel): to true by the thread that posts the hook, to false by the executor
        /// before it scans.
        std::atomic<bool> under_way{false};
    };

    member_hook quit_;
    kill_hook kill_;
    relaxed<std::uint64_t> kills_met_{};
    // By sequence, while the tokens live.
    std::unordered_map<std::uint64_t, std::shared_ptr<const std::string>> kill_reasons_;
    member_hook ask_all_;
    sweep_timer sweep_;
    bool sweep_asked_ = false;
    // Owned until retired; then owned by the last holder of one of its buffers.
    provided_buffers* buffers_ = nullptr;
    source_core* armed_ = nullptr;  // doubly linked
    std::uint64_t next_sweep_ns_ = 0;
    std::unordered_multimap<const token_record*, stop_callback_base*> stop_callbacks_;
    member_hook report_;
    /// Exchanged (acq_rel): to true by the reporting executor, to false by the control loop before
    /// it sums. A report that finds it true is covered by the one on its way.
    std::atomic<bool> report_under_way_{false};

    std::thread thread_;
    std::exception_ptr failed_to_open_;
    // 0: coming, 1: up, 2: failed. Stored by the thread, awaited by wait_until_up.
    std::atomic<int> up_{0};
};

}  // namespace tokengate::detail
