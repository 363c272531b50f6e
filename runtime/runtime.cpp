// SPDX-License-Identifier: MIT
#include <tokengate/runtime.hpp>

#include "health.hpp"
#include "runtime_core.hpp"
#include "topology.hpp"

#include <tokengate/detail/promise.hpp>
#include <tokengate/operation.hpp>

#include <algorithm>
#include <atomic>
#include <bit>
#include <chrono>
#include <cstdio>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>

// How a runtime ends is argued in runtime_core.hpp.

namespace tokengate {

namespace detail {

/// The runtimes of the process, linked through `older`; guarded by the slots' mutex. For debuggers alone, which find it by
/// its name (runtime/gdb/tokengate.py).
[[gnu::used]] constinit runtime_core* newest_runtime = nullptr;

namespace {

constexpr unsigned most_positions = 1023;  // and the control loop; see load_table::most_positions

template <class... Parts>
configuration_error bad_option(const Parts&... parts) {
    std::string text = "configuration_error: runtime_options.";
    const auto add = [&](const auto& part) {
        if constexpr (std::is_arithmetic_v<std::remove_cvref_t<decltype(part)>>)
            text += std::to_string(part);
        else
            text += part;
    };
    (add(parts), ...);
    return configuration_error(text);
}

/// Checks what the user chose and fills in what he left open.
core_layout settle(runtime_options& options) {
    if (options.cores && *options.cores == 0)
        throw bad_option("cores is 0: at least 1, or leave it out for every usable CPU");
    if (options.workers_per_core == 0) throw bad_option("workers_per_core is 0: at least 1");
    for (unsigned cpu : options.cpus)
        if (!cpu_exists(cpu))
            throw bad_option("cpus names CPU ", cpu, ", which this machine does not have (or has offline)");
    const std::pair<const char*, int> limits[] = {{"slow", options.storage.slow},
                                                  {"moderate", options.storage.moderate},
                                                  {"fast", options.storage.fast},
                                                  {"insane", options.storage.insane}};
    for (const auto& [name, limit] : limits)
        if (limit < 1)
            throw bad_option("storage.", name, " is ", limit, ": a tier admits at least 1 operation at a time");
    if (options.spin.count() < 0) throw bad_option("spin is negative: 0 or more");
    if (options.ring_entries < 8 || options.ring_entries > 32768 || !std::has_single_bit(options.ring_entries))
        throw bad_option("ring_entries is ", options.ring_entries, ": a power of two from 8 to 32768");
    if (options.blocking_threads == 0)
        throw bad_option("blocking_threads is 0: at least 1; none is started before the first blocking call");
    if (options.blocking_idle.count() < 0) throw bad_option("blocking_idle is negative: 0 or more");
    if (options.timing > timing::full) throw bad_option("timing does not exist: off, sampled or full");
    if (options.timing != timing::off) options.metrics = true;
    if (options.metrics && options.timing == timing::off) options.timing = timing::sampled;
    if (options.backlog.policy > backlog_policy::shed_oldest)
        throw bad_option("backlog.policy does not exist: wait, reject or shed_oldest");
    const std::chrono::nanoseconds threshold = options.stall.threshold;
    if (threshold != threshold.zero() && threshold < stall_detector::shortest_threshold)
        throw bad_option(
            "stall.threshold is ", threshold.count(),
            " ns: at least 10 ms, since several short operations may take that long between two looks at the "
            "loop's mail; or 0 for no detector");
    if (options.trace_events > trace_ring::most_events)
        throw bad_option("trace_events is ", options.trace_events, ": at most ", trace_ring::most_events,
                         " a thread, of 32 bytes each; 0 for no trace");
    if (options.spill > spill::never) throw bad_option("spill does not exist: when_saturated or never");
    if (options.digest > digest_policy::minimal) throw bad_option("digest does not exist: full, short_ or minimal");
    if (options.cpus.empty()) options.cpus = affinity_cpus();
    core_layout layout{options.cores.value_or(usable_cores(options.cpus.size(), cgroup_cpu_quota())),
                       options.workers_per_core};
    if (std::uint64_t{layout.cores} * layout.workers_per_core > most_positions)
        throw bad_option("cores × workers_per_core is ", std::uint64_t{layout.cores} * layout.workers_per_core,
                         ": at most ", most_positions);
    return layout;
}

using failure_handler = std::function<void(const failure&)>;

/// The runtimes of the process by slot, for what reaches a token's runtime from threads that know nothing of it.
struct runtime_slots {
    std::mutex mutex;
    struct living {
        runtime_core* core;
        std::shared_ptr<const failure_handler> handler;
    };
    std::unordered_map<std::uint16_t, living> runtimes;
    std::uint16_t last = 0;
};

runtime_slots& slots() {
    static auto* forever = new runtime_slots;
    return *forever;
}

/// Under the slots' mutex. Null: it has been unlinked.
void unlink(const runtime_core* gone) noexcept {
    for (runtime_core** link = &newest_runtime; *link; link = &(*link)->older) {
        if (*link != gone) continue;
        *link = gone->older;
        return;
    }
}

}  // namespace

namespace {

std::uint32_t initial_attention(const runtime_options& options) noexcept {
    std::uint32_t bits = 0;
    if (options.timing == timing::sampled) bits |= timing_some;
    if (options.timing == timing::full) bits |= timing_all;
    if (options.observer) bits |= observing;
    if (options.metrics) bits |= counting;
    if (options.trace_events != 0) bits |= tracing;
    if (options.backlog.limit != 0) bits |= limiting;
    return bits;
}

}  // namespace

runtime_core::runtime_core(runtime_options&& chosen, core_layout layout)
    : options(std::move(chosen)),
      lease(*this, options.on_failure),
      slot(lease.slot()),
      attention(initial_attention(options)),
      loads(layout),
      at_gate(layout.positions(), options.storage),
      blocking(std::in_place, options.blocking_threads, options.blocking_idle) {
    stop_.of = this;
    stop_.run = [](hook* self) noexcept {
        runtime_core& core = *static_cast<stop_hook*>(self)->of;
        core.stop_seen_ = true;
        core.control().begin_to_end();
    };
    sweep_.of = this;
    sweep_.run = [](hook* self) noexcept {
        auto& sweep = *static_cast<sweep_hook*>(self);
        sweep.under_way.exchange(false, std::memory_order_acq_rel);
        sweep.of->control().ask_to_sweep();
    };
    release_.of = this;
    release_.run = [](hook* self) noexcept { static_cast<release_hook*>(self)->of->release_some(); };
    // More threads than CPUs: who spins keeps somebody else from running.
    const bool crowded = layout.positions() > options.cpus.size();
    const auto spin_ns = crowded ? 0 : static_cast<std::uint64_t>(options.spin.count());
    for (unsigned position = 0; position <= layout.positions(); ++position)
        executors.push_back(std::make_unique<executor>(*this, position, options.ring_entries,
                                                       position == layout.positions() ? 0 : spin_ns));
    std::vector<event_loop*> loops;
    for (const auto& each : executors) loops.push_back(&each->loop);
    for (const auto& each : executors) each->loop.connect(loops);

    try {
        if (options.stall.threshold.count() != 0) stalls.emplace(*this);
        control().loop.open();  // here, where it can be reported; whoever hosts it later finds it ready
        for (unsigned position = 0; position < positions(); ++position)
            executors[position]->launch(options.cpus[core_of(position) % options.cpus.size()]);
        for (unsigned position = 0; position < positions(); ++position) executors[position]->wait_until_up();
        if (stalls) stalls->start();
    } catch (...) {
        join_executors();
        throw;
    }
}

slot_lease::slot_lease(runtime_core& of, const failure_handler& handler) {
    runtime_slots& all = slots();
    const std::scoped_lock lock(all.mutex);
    do ++all.last;
    while (all.last == 0 || all.runtimes.contains(all.last));
    slot_ = all.last;
    all.runtimes.emplace(slot_, runtime_slots::living{&of, std::make_shared<const failure_handler>(handler)});
    of.older = std::exchange(newest_runtime, &of);
}

void slot_lease::retire() const noexcept {
    runtime_slots& all = slots();
    const std::scoped_lock lock(all.mutex);
    unlink(std::exchange(all.runtimes.at(slot_).core, nullptr));
}

slot_lease::~slot_lease() {
    runtime_slots& all = slots();
    const std::scoped_lock lock(all.mutex);
    unlink(all.runtimes.at(slot_).core);  // of a constructor that threw
    all.runtimes.erase(slot_);
}

std::shared_ptr<const failure_handler> failure_handler_of(std::uint16_t slot) {
    runtime_slots& all = slots();
    const std::scoped_lock lock(all.mutex);
    const auto found = all.runtimes.find(slot);
    return found == all.runtimes.end() ? nullptr : found->second.handler;
}

void with_runtime(std::uint16_t slot, const std::function<void(runtime_core&)>& visit) {
    runtime_slots& all = slots();
    const std::scoped_lock lock(all.mutex);
    if (const auto found = all.runtimes.find(slot); found != all.runtimes.end() && found->second.core)
        visit(*found->second.core);
}

void runtime_core::join_executors() noexcept {
    if (stalls) stalls->stop();
    for (unsigned position = 0; position < positions(); ++position) executors[position]->ask_to_quit();
    for (unsigned position = 0; position < positions(); ++position) executors[position]->join();
    blocking.reset();
    {
        const std::scoped_lock lock(orphans);
        for (const auto& each : executors) orphaned_domains += each->hand_over_domains();
        joined = true;
    }
    run_left_mail();
}

void runtime_core::warn(const std::string& text) const noexcept {
    try {
        if (options.on_warning) {
            options.on_warning(text);
            return;
        }
    } catch (...) {
        std::fprintf(stderr, "tokengate: the warning handler itself threw\n");
    }
    std::fprintf(stderr, "tokengate: %s\n", text.c_str());
}

std::uint64_t runtime_core::count_ended() const noexcept {
    std::uint64_t sum = 0;
    for (const auto& each : executors) sum += each->counts().ended.load_acquire();
    return sum;
}

std::uint64_t runtime_core::count_admitted() const noexcept {
    std::uint64_t sum = dropped_from_afar.load(std::memory_order_relaxed);
    for (const auto& each : executors) sum += each->counts().admitted.load();
    return sum;
}

// ---- hosting the control loop -------------------------------------------------------------------------------------------

namespace {

bool on_a_loop() noexcept { return this_core && this_core->host; }

/// On the control loop: a token that came through its mailbox.
void admit_posted(hook* item) noexcept {
    core_context& core = *this_core;
    core.host->admit(core, *static_cast<token_record*>(item));
}

std::chrono::steady_clock::time_point after(std::chrono::nanoseconds deadline) {
    const auto now = std::chrono::steady_clock::now();
    const bool for_ever = deadline > std::chrono::steady_clock::time_point::max() - now;
    return for_ever ? std::chrono::steady_clock::time_point::max() : now + deadline;
}

}  // namespace

void runtime_core::check_hostable() const {
    if (on_a_loop())
        throw wrong_thread(
            "wrong_thread: runtime::run or start was called on an event loop's thread, which it would block: "
            "await a task there, or use a thread of your own");
    if (executors.back()->loop.closed())
        throw gate_closed(
            "gate_closed: the runtime is stopping or has stopped and runs nothing any more: make a new one");
    if (hosted_)
        throw wrong_thread(
            "wrong_thread: the runtime is running already (run or start was called before and has not ended)");
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
    adopt(context(), main, main_operation(), 0);
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
    if (!control().loop.submit(&main.token)) {  // stop came in between: one atomic decides
        control().close();
        throw gate_closed("gate_closed: the runtime has been stopped, and the task was not started");
    }
    control().host();
}

void runtime_core::start() {
    std::promise<void> up;
    std::future<void> is_up = up.get_future();
    {
        const std::scoped_lock lock(lifecycle_);  // until the thread is assigned: `stop` joins it under the same lock
        check_hostable();
        if (control_thread_.joinable()) control_thread_.join();  // of a start that failed
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

void runtime_core::sweep_gate() noexcept {
    if (this_core && this_core->runtime == this)
        this_core->host->ask_to_sweep();
    else if (!sweep_.under_way.exchange(true, std::memory_order_acq_rel))
        control().loop.post(&sweep_);
}

void runtime_core::ask_everything_to_stop() noexcept {
    if (std::exchange(all_asked_, true)) return;
    at_start.fetch_or(stopping_all, std::memory_order_relaxed);
    for (const auto& each : executors) each->post_ask_all();
}

stop_report runtime_core::stop(std::chrono::nanoseconds deadline, std::chrono::nanoseconds grace) {
    if (on_a_loop())
        throw wrong_thread(
            "wrong_thread: runtime::stop was called on an event loop's thread, which it would block for ever: "
            "call it on a thread of your own");
    if (stalls && stalls->on_own_thread())
        throw wrong_thread(
            "wrong_thread: runtime::stop was called by a report of a stall, for whose end it would wait for ever: call "
            "it on a thread of your own");
    control().loop.close();
    close_backlog();
    if (deadline == std::chrono::nanoseconds::max()) lift_holds_for_good();  // what is held would never end by itself
    const auto ask_at = after(grace);
    const auto deadline_at = after(deadline);
    auto until = deadline_at;
    std::unique_lock lock(lifecycle_);
    if (!std::exchange(stop_posted_, true)) control().loop.post(&stop_);  // behind every submit that was accepted
    while (!stopped_) {
        if (!all_asked_ && std::chrono::steady_clock::now() >= ask_at) ask_everything_to_stop();
        const auto wake_at = all_asked_ ? until : std::min(ask_at, until);
        if (!hosted_ && stop_seen_ && control().drained()) {
            if (control_thread_.joinable()) control_thread_.join();
            join_executors();
            stopped_ = true;
        } else if (std::chrono::steady_clock::now() >= until) {
            const bool only_services_late = until >= deadline_at + std::chrono::milliseconds(200);
            stop_report report{tokens(only_services_late)};  // services end when all others have
            if (!report.complete()) return report;
            until = std::chrono::steady_clock::now() + std::chrono::milliseconds(10);  // they have ended just now
        } else if (!hosted_) {
            // Nobody lends the control loop a thread, so this one serves what is left.
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

void runtime_core::submit(token_record& token) {
    if (on_a_loop() && this_core->runtime == this)
        throw wrong_thread(
            "wrong_thread: runtime::submit was called on a thread of this runtime, where waiting for the future "
            "would block its loop: await the token, or admit() it");
    const token_id id = token.id();
    if ((token.flags & in_domain) && static_cast<domain*>(token.anchor)->runtime != this)
        throw wrong_runtime("wrong_runtime: " + id.text() + " inherited a seed in another runtime: submit it there");
    take_place_for(token);
    token.awaited_by.store(0);
    token.run = admit_posted;
    if (!control().loop.submit(&token)) {
        if (token.state.load() == token_state::waiting) leave_backlog(1);
        token.state.store(token_state::created);
        throw gate_closed("gate_closed: " + id.text() + " was not admitted: the runtime is stopping or has stopped");
    }
}

// ---- looking ------------------------------------------------------------------------------------------------------------

void runtime_core::look(const std::function<void(const token_info&, const operation_record&)>& visit) const {
    const std::uint64_t now = event_loop::wall_ns();
    std::vector<std::uint64_t> contexts;  // of our threads
    for (const auto& each : executors)
        if (const auto number = each->context_number()) contexts.push_back(*number);
    const auto made_here = [&](std::uint64_t sequence) {
        return std::ranges::find(contexts, sequence >> sequence_bits) != contexts.end();
    };
    frame_pool::for_each_slot([&](void* frame, std::size_t) {
        const token_record& token = promise_base::record_in(frame);
        const token_state state = token.state.load_acquire();
        const operation_record* operation = token.operation.load();
        if (state == token_state::none || state >= token_state::completed || !operation) return;
        token_info info;
        info.id = token.id();
        info.state = state;
        // Before the gate gets it, it is the runtime's that hosts the thread where it was made.
        const bool ours = state == token_state::created ? made_here(info.id.sequence) : token.runtime.load() == slot;
        if (!ours) return;
        if (const unsigned position = token.position.load(); state != token_state::created && position != no_position)
            info.core = core_of(position);
        if (info.id.created_ns < now) info.age = std::chrono::nanoseconds(now - info.id.created_ns);
        if (state != token_state::created) info.awaited_by_sequence = token.awaited_by.load();
        if (token.flags.load_acquire() & in_domain) {
            const auto* chain = static_cast<const domain*>(token.anchor.load_acquire());
            // If the frame has been used again, this may be anything. If not, the domain lives, or its memory is still mapped.
            if (token.sequence.load() != info.id.sequence) return;
            const operation_record* lead = chain->lead.load_acquire();
            const std::uint64_t created_ns = chain->lead_created_ns.load_acquire();
            const std::uint64_t sequence = chain->lead_sequence.load_acquire();
            // If it still is the same token, and alive, then so was its domain when it was looked at.
            if (token.sequence.load() != info.id.sequence || token.state.load() >= token_state::completed) return;
            info.domain = {lead->name, created_ns, sequence};
        }
        // The frame may have ended and been used again meanwhile: then this is nobody.
        if (token.sequence.load() != info.id.sequence || token.state.load() == token_state::none) return;
        visit(info, *operation);
    });
}

std::vector<token_info> runtime_core::tokens(bool services) const {
    std::vector<token_info> found;
    look([&](const token_info& info, const operation_record& operation) {
        if (services || !is_service(operation)) found.push_back(info);
    });
    return found;
}

}  // namespace detail

// ---- the public face ----------------------------------------------------------------------------------------------------

namespace {

detail::runtime_core* make_core(runtime_options&& options) {
    const detail::core_layout layout = detail::settle(options);
    detail::check_operations();
    try {
        return new detail::runtime_core(std::move(options), layout);
    } catch (...) {
        detail::forget_runtime();
        throw;
    }
}

/// Unadmitted tokens may still hold domains: then the last of them frees the core.
void abandon(detail::runtime_core* core) {
    {
        const std::scoped_lock lock(core->orphans);
        core->abandoned = core->orphaned_domains != 0;
        if (core->abandoned) core = nullptr;
    }
    delete core;
    detail::forget_runtime();
}

}  // namespace

runtime::runtime(runtime_options options) : core_(make_core(std::move(options)), abandon) {}

runtime::~runtime() {
    for (;;) {
        const stop_report left = core_->stop(std::chrono::seconds(10), std::chrono::seconds(5));
        if (left.complete()) return;
        std::string text =
            "~runtime waits for " + std::to_string(left.survivors.size()) + " tokens that have not ended:";
        for (std::size_t i = 0; i < std::min<std::size_t>(left.survivors.size(), 10); ++i)
            text += ' ' + left.survivors[i].id.text() + " (" + std::string(name_of(left.survivors[i].state)) + ')';
        core_->warn(text);
    }
}

void runtime::run_main(detail::promise_base& main) { core_->run_main(main); }
void runtime::submit_record(detail::token_record& token) { core_->submit(token); }
void runtime::start() { core_->start(); }
stop_report runtime::stop(time_span deadline, std::optional<time_span> grace) {
    const std::chrono::nanoseconds whole = deadline;
    const auto half = whole == std::chrono::nanoseconds::max() ? whole : whole / 2;
    return core_->stop(whole, grace.value_or(half));
}
std::vector<token_info> runtime::tokens() const { return core_->tokens(); }
unsigned runtime::cores() const noexcept { return core_->loads.layout().cores; }
unsigned runtime::executors() const noexcept { return core_->positions(); }

snapshot runtime::snapshot() const {
    tokengate::snapshot now;
    now.held = core_->holds.held();
    now.paused = core_->holds.paused({});
    now.operations = detail::health_of_all(*core_);
    for (const storage tier : {storage::slow, storage::moderate, storage::fast, storage::insane})
        now.waiting_for_permit += core_->at_gate.waiting_for_permit(tier);
    now.ended = core_->count_ended();
    now.admitted = core_->count_admitted();
    for (const auto& each : core_->executors) {
        const std::uint64_t in_place = each->counts().in_place.load();
        now.ended += in_place;
        now.admitted += in_place;
    }
    for (const weight w : {weight::light, weight::medium, weight::heavy}) now.waiting += core_->at_gate.waiting(w);
    now.pins = core_->registry.size();
    {
        const std::scoped_lock lock(core_->orphans);
        now.domains = core_->orphaned_domains;
    }
    for (const auto& each : core_->executors) {
        const detail::executor_counts& counts = each->counts();
        now.domains += counts.live_domains.load();
        now.redirections += counts.redirections.load();
        now.sticky_bypassed += counts.sticky_bypassed.load();
        now.retries += counts.retries.load();
        const bool is_control = core_->is_control(each->position());
        if (!is_control) now.busy_ns.push_back(each->busy_ns());
        now.cores.push_back(
            {.executor = each->position(),
             .core = core_->core_of(each->position()),
             .queued =
                 is_control ? 0 : static_cast<std::uint64_t>(std::max(core_->loads.occupancy(each->position()), 0)),
             .busy_ns = each->busy_ns(),
             .parked = each->loop.parked()});
    }
    return now;
}

}  // namespace tokengate
