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

/// An executor: one event loop, one thread, one place in the routing. It starts and resumes tokens, and never takes
/// another's. The control loop is one too, without a place: `run` or `start` lends it a thread.
///
/// What runs long holds back nobody's news: before it resumes a token that is not known to be short, an executor
/// flushes its outboxes. An operation is short on a core while its longest recent run there is under 50 µs; unknown is
/// long. Short operations are measured every 32nd run, others each time, so that the clock stays off the path.
///
/// Its window (router.hpp) follows the run time it measures. When half of it is free, it pulls a chunk from the gate's
/// FIFOs: those of the classes it serves, in turn; if they are empty, those whose tokens may spill to it.
///
/// What was routed to it waits on the loop's shelf until it starts. An executor that has nothing to run has the gate take
/// back what waits like that at another, which runs something long, and what another has on its way to the gate (`recall`);
/// then it pulls from the gate as always. Nothing anchored, and nothing that has started, is ever taken from an executor.
///
/// All members belong to the executor's thread unless they say otherwise.

namespace tokengate {
class stop_callback_base;
}

namespace tokengate::detail {

struct shared_state;
class provided_buffers;
class source_core;

/// Runs on the executor that got the token: its first resumption.
void start_token(hook* item) noexcept;
/// Runs on the awaiter's loop: the token has ended.
void deliver_end(hook* item) noexcept;

class executor final : public event_loop::guest {
public:
    executor(shared_state& runtime, unsigned position, unsigned ring_entries,
             std::uint64_t spin_ns);
    ~executor();

    /// Starts the pinned thread; `wait_until_up` throws what kept it from coming up.
    void launch(std::optional<unsigned> cpu);
    void wait_until_up();
    /// Any thread, once: the loop leaves when it comes to it.
    void ask_to_quit() noexcept { loop.post(&quit_); }
    void join() noexcept;

    /// Lends this thread to the loop until it quits. `open` comes first, on the same thread: it makes what is missing, and
    /// throws ring_unavailable or std::bad_alloc.
    void open();
    void host() noexcept;
    /// After `join`: how many domains live on; from here on they are counted elsewhere.
    [[nodiscard]] std::uint64_t hand_over_domains() noexcept;
    /// Once no domain names the context of this executor's thread any more.
    void release_context() noexcept;

    void start(core_context& core, token_record& token) noexcept;
    void resume_token(core_context& core, token_record* token,
                      std::coroutine_handle<> coroutine) noexcept;
    /// Begins what a group has left to the loop, as its awaiter, and resumes that once all have ended.
    void continue_group(core_context& core, token_group& group) noexcept;
    void admit(core_context& core, token_record& token) noexcept;

    // Unconducted children in place; see admission.hpp and group.hpp.
    [[nodiscard]] bool may_run_here(const operation_record& of) const noexcept;
    [[nodiscard]] bool may_keep(const token_record& token) const noexcept;
    static void note_run(operation_counters& operation, std::uint64_t elapsed_ns) noexcept;
    [[nodiscard]] bool keeps(const token_record& token) noexcept;
    void offer(token_group& group) noexcept;
    void withdraw(token_group& group) noexcept;
    /// Another core that may run tokens of this class has nothing to do, and nothing waits for it.
    [[nodiscard]] bool hungry_in_range(weight w) const noexcept;

    /// Past permits: to a core, or to the FIFO of its class.
    void route(core_context& core, token_record& token) noexcept;
    void send(unsigned position, token_record& token) noexcept;
    /// A group is routing its tokens: they leave together, by `hand_over_gathered` or any flush. A core that is woken for the first
    /// of them may take the CPU of this one.
    void gather() noexcept { gathering_ = true; }
    void hand_over_gathered() noexcept;
    /// What its tokens admit to this core has its turn behind all that waits to start there.
    void to_the_back(bool now) noexcept { at_back_ = now; }
    /// A hook to another loop: at once if that is hungry, else with what else goes there.
    void send_hook(unsigned position, hook* item) noexcept;
    /// An ended token to its awaiter's loop, once its coroutine has left the stack.
    void depart(unsigned position, token_record& ended) noexcept;
    /// Where the key is in flight, counting one more; or where it now comes to be.
    [[nodiscard]] sticky_registry::acquired pin_key(std::uint64_t key, weight w);

    /// The control loop: it quits once nothing is alive; `drained` says that this is why it quit.
    void begin_to_end() noexcept;
    [[nodiscard]] bool drained() const noexcept { return drained_; }

    /// Asks what executes here to stop, and what waits at the gate. Any thread may post it, once.
    void post_ask_all() noexcept { loop.post(&ask_all_); }
    /// Any thread: somebody who runs here may have been killed; see gate_control.cpp.
    void post_kill() noexcept;
    /// Any thread: rules up to this number have met those who executed here; see gate_kills.
    [[nodiscard]] std::uint64_t kills_met() const noexcept { return kills_met_.load(); }
    /// What the gate's operator said of a killed token of this executor; null if nothing is known.
    [[nodiscard]] std::shared_ptr<const std::string> kill_reason(const token_record& token) const;
    void forget_kill_reason(const token_record& token) noexcept;
    /// Whether the running token, or one here that awaits it, is to be killed: for a body that asks before the loop has had
    /// the turn in which it tells them.
    [[nodiscard]] bool kills_current() noexcept;
    void observe(const token_step& step) noexcept;
    void warn_of_observer(const token_step& step, const std::exception_ptr& thrown) noexcept;

    /// The gate does not let it in: it ends unrun, and its awaiter gets the error.
    void refuse(token_record& token, std::exception_ptr why) noexcept;
    /// To where a token ends that will not run: here, however busy the core is where it would have run; but what a domain
    /// counts ends at its home.
    void send_to_end(token_record& token) noexcept;
    /// Held ones that have been let go.
    void let_in(core_context& core, token_record& token, gate_holds::coming from) noexcept;
    /// One that has got its permit while it waited for it.
    void route_permitted(core_context& core, token_record& token) noexcept;

    /// Soon, those at the gate that have been asked to stop will be sent to where they end, and those for whom a tier
    /// has room now to where they run. At a rate that keeps the loop free: the sweep looks at everything that waits.
    void ask_to_sweep() noexcept;

    /// See stop.cpp.
    void enlist_stop_callback(token_record& token, stop_callback_base& callback);
    void forget_stop_callback(token_record& token, const stop_callback_base& callback) noexcept;
    void run_stop_callbacks(token_record& token) noexcept;

    /// What the kernel may receive into on this loop; made when first asked for. Throws std::system_error, std::bad_alloc.
    [[nodiscard]] provided_buffers& buffers() { return buffers_ ? *buffers_ : make_buffers(); }
    [[nodiscard]] const provided_buffers* known_buffers() const noexcept { return buffers_; }
    /// What stays armed here between its awaits, so that the loop can give it up when it ends. See socket_core.hpp.
    void enlist(source_core& armed) noexcept;
    void strike_off(source_core& armed) noexcept;

    [[nodiscard]] unsigned position() const noexcept { return position_; }

    /// Any thread. What this executor has counted, whoever hosted it.
    [[nodiscard]] const executor_counts& counts() const noexcept {
        const core_context* core =
            hosted_by_.load(std::memory_order_acquire);  // pairs with attach and detach
        return core ? core->counts : counts_;
    }
    /// Any thread: the number in the sequences of tokens made here; none while nobody hosts it.
    [[nodiscard]] std::optional<std::uint64_t> context_number() const noexcept {
        const core_context* core =
            hosted_by_.load(std::memory_order_acquire);  // pairs with attach and detach
        if (!core) return {};
        return core->next_sequence.load() >> sequence_bits;
    }
    /// Any thread: time spent in turns that ran something. A turn that goes on and on counts too; never less than before.
    [[nodiscard]] std::uint64_t busy_ns() const noexcept;

    shared_state& runtime;
    event_loop loop;
    const std::unique_ptr<trace_ring>
        trace;  ///< noted in by the executor's thread, read by any; null unless asked for
    /// What its tokens did, by operation; only with runtime_options::metrics.
    const std::unique_ptr<stats_table> stats;
    [[nodiscard]] operation_stats* stats_of(std::uint32_t operation) noexcept {
        return stats ? stats->of(operation) : nullptr;
    }
    /// Any thread; null where nothing has been counted.
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
    static constexpr std::uint64_t turn_ns = 200'000;  // a turn is over when it has lasted so long
    static constexpr std::uint64_t tidy_every_ns =
        10'000'000;  // between looks whether kills have met all
    /// A core outside the home range of a token takes it back only from a turn that has lasted so long.
    static constexpr std::uint64_t foreign_wait_ns = 500'000;
    static constexpr int budget_in_place =
        128;  // children that run in place before the loop has a turn

    struct staged {
        hook_queue chain;
        relaxed<unsigned> count{};  // a glance for others
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
    [[nodiscard]] bool tell_sleepers(
        weight w) noexcept;  ///< false: there were some, and all are about to look
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
    std::array<staged, 3>
        staged_{};  // by weight: found no core with room, on their way to the gate; in the loop's lock
    struct {
        token_record* token = nullptr;
        unsigned position = 0;
    } departing_;
    bool gathering_ = false;
    std::array<bool, 3> gathered_{};  // by weight: put aside since
    bool at_back_ = false;            // see at_back in retry.hpp
    token_group* oldest_offer_ =
        nullptr;  // groups with children that may be given away, doubly linked by age
    token_group* newest_offer_ = nullptr;
    unsigned started_ = 0;  // windowed tokens started and not yet published
    unsigned starts_in_turn_ = 0;
    std::uint64_t average_run_ns_ = 0;
    unsigned window_ = window_for(0);
    unsigned next_class_ = 0;
    int budget_ = budget_in_place;  // 0 while somebody watches
    bool ending_ = false;           // the control loop, and the next
    bool drained_ = false;

    core_context* core_ = nullptr;  // while hosted
    core_context* outlived_ =
        nullptr;              // the former one, kept from use while domains of ours name it
    executor_counts counts_;  // while not hosted; else in the context
    std::atomic<core_context*> hosted_by_{
        nullptr};  // stored by attach and detach (release), loaded by counts() (acquire)
    relaxed<std::uint64_t> busy_ns_{};
    struct {
        std::uint64_t sequence = 0;  ///< of the token that asked
        std::uint64_t newest = 0;    ///< rule of all kills that there was
        bool answer = false;
    } last_poll_;  // of kills_current
    mutable std::atomic<std::uint64_t> busy_told_{
        0};  // the most that anybody has been told; among those who ask (relaxed)

    struct kill_hook : member_hook {
        /// Exchanged (acq_rel) to true by whoever posts the hook, to false by the executor before it looks.
        std::atomic<bool> under_way{false};
    };

    member_hook quit_;
    kill_hook kill_;
    relaxed<std::uint64_t> kills_met_{};
    std::unordered_map<std::uint64_t, std::shared_ptr<const std::string>>
        kill_reasons_;  // by sequence; while they live
    member_hook ask_all_;
    sweep_timer sweep_;
    bool sweep_asked_ = false;
    provided_buffers* buffers_ =
        nullptr;                    // owned until retired, then by whoever still has one of them
    source_core* armed_ = nullptr;  // doubly linked
    std::uint64_t next_sweep_ns_ = 0;
    std::unordered_multimap<const token_record*, stop_callback_base*> stop_callbacks_;
    member_hook report_;
    /// Exchanged by the reporting executor (true) and by the control loop before it sums (false), both acq_rel: a
    /// report that finds it true is covered by the one on its way.
    std::atomic<bool> report_under_way_{false};

    std::thread thread_;
    std::exception_ptr failed_to_open_;
    std::atomic<int> up_{
        0};  // 0 coming, 1 up, 2 failed: stored by the thread, waited for by wait_until_up
};

}  // namespace tokengate::detail
