// SPDX-License-Identifier: MIT
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <string>
#include <string_view>
#include <vector>

/// What can be seen of tokens from outside: identity, life cycle, and the reports that name them.
///
///     for (const tg::token_info& t : runtime.tokens()) std::cout << t.id.text() << ' ' << tg::name_of(t.state) << '\n';
///
/// Values only; safe on every thread. Operation names are string literals of the program and never dangle.

namespace tokengate {

/// Prints as `<operation>_<created ns since the epoch>_<sequence>`. The sequence carries, in its upper bits, the number of
/// the thread context that made the token, so no two tokens of a process share one.
struct token_id {
    std::string_view operation;
    std::uint64_t created_ns = 0;
    std::uint64_t sequence = 0;

    [[nodiscard]] std::string text() const;
    friend bool operator==(const token_id&, const token_id&) = default;
};

/// created → waiting → admitted → executing → completed | failed | killed | timeout. A suspended token is still executing.
/// One that never starts goes from waiting or admitted to failed (it was refused), killed or timeout.
enum class token_state : std::uint8_t {
    none,     ///< no token (memory that holds none, or a plain task)
    created,  ///< made, not yet handed to the gate
    waiting,  ///< at the gate: held there, for a permit of its storage tier, or for a core of its class with room
    admitted,   ///< routed to a core, not yet started
    executing,  ///< its body has begun
    completed,  ///< the body returned
    failed,     ///< the body threw, or the gate refused the token
    killed,     ///< ended from outside: killed at the gate, or asked to stop
    timeout     ///< ended because its time was over
};
inline constexpr std::size_t token_states = 9;

[[nodiscard]] std::string_view name_of(token_state state) noexcept;

/// The main coroutine's place: the control loop, which is no core.
inline constexpr unsigned control_core = ~0U;

struct token_info {
    token_id id;
    token_state state = token_state::none;
    unsigned core = control_core;     ///< where it was routed; control_core before that
    std::chrono::nanoseconds age{0};  ///< since it was made
    std::uint64_t awaited_by_sequence =
        0;              ///< sequence of the token that awaits it; 0: nobody does
    token_id domain{};  ///< the lead of the conducted chain it belongs to; no operation: of none
};

/// What an observer hears: a token has taken a step. See runtime_options::observer.
struct token_step {
    token_id id;
    token_state state = token_state::none;  ///< the one it is in now
    unsigned core = control_core;           ///< where the step was taken
    std::chrono::nanoseconds at{0};         ///< steady clock
};

/// A token's failure that nobody can hear any more; see runtime_options::on_failure.
struct failure {
    token_id id;
    std::exception_ptr error;
};

/// What `runtime::stop` found. `complete()` means every token had ended; else the survivors are named and go on running.
struct stop_report {
    std::vector<token_info> survivors;
    [[nodiscard]] bool complete() const noexcept { return survivors.empty(); }
};

/// How an operation does, by its failure rate: excellent while at least 95 % of its runs succeed, healthy 80 %, at_risk
/// 50 %, problematic below; unknown under 5 runs. What was killed or refused is no run.
enum class health : std::uint8_t { unknown, problematic, at_risk, healthy, excellent };

[[nodiscard]] std::string_view name_of(health grade) noexcept;

/// What is known of one operation, over all cores. Counted where metrics are on, or the operation has a breaker or a
/// quarantine; times where they are taken (timing). Each is exact when nothing moves.
struct operation_health {
    std::string_view operation;
    health grade = health::unknown;
    double failure_rate = 0;  ///< (failed + timed out) ÷ (completed + failed + timed out)
    std::uint64_t admitted = 0;
    std::uint64_t started = 0;
    std::uint64_t completed = 0;
    std::uint64_t failed = 0;
    std::uint64_t killed = 0;
    std::uint64_t timed_out = 0;
    std::uint64_t expired = 0;  ///< their time was over before they had started: no runs
    std::uint64_t refused = 0;  ///< by a backlog's limit, a breaker, a quarantine
    std::uint64_t retries = 0;  ///< attempts after the first
    std::chrono::nanoseconds queue_p50{0};  ///< from admission to start
    std::chrono::nanoseconds queue_p99{0};
    std::chrono::nanoseconds run_p50{0};  ///< from start to end, what it awaited included
    std::chrono::nanoseconds run_p99{0};
    bool paused = false;    ///< held by its name; snapshot::paused: all are
    std::string blocked{};  ///< why the gate refuses it, if it does: breaker, quarantine
};

struct core_snapshot {
    unsigned executor = 0;
    unsigned core = 0;          ///< control_core for the control loop, the last one
    std::uint64_t queued = 0;   ///< routed there, not yet started
    std::uint64_t busy_ns = 0;  ///< spent in turns that ran something
    bool parked = false;
};

/// Counts that can be polled while the runtime runs; each is exact when nothing moves.
struct snapshot {
    std::uint64_t admitted = 0;  ///< tokens handed to the gate so far
    std::uint64_t ended = 0;     ///< of these, ended
    std::uint64_t waiting = 0;   ///< at the gate for a core with room
    std::uint64_t waiting_for_permit = 0;
    std::uint64_t held = 0;              ///< at the gate because of a pause or a drain
    std::uint64_t domains = 0;           ///< seed domains alive
    std::uint64_t pins = 0;              ///< sticky keys in flight
    std::uint64_t redirections = 0;      ///< sticky tokens that an existing pin sent to its core
    std::uint64_t sticky_bypassed = 0;   ///< sticky operations called inside a conducted chain
    std::uint64_t retries = 0;           ///< attempts that were made because another had failed
    bool paused = false;                 ///< everything is held at the gate
    std::vector<std::uint64_t> busy_ns;  ///< per executor: time spent in turns that ran something
    std::vector<core_snapshot> cores;    ///< per executor, and last the control loop
    std::vector<operation_health>
        operations;  ///< those that have been counted, or are held; by name
};

}  // namespace tokengate
