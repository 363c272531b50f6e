// SPDX-License-Identifier: MIT
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <string>
#include <string_view>
#include <vector>

/// What is visible of tokens from outside: identity, life cycle, and the reports that name them.
///
///     for (const tg::token_info& t : runtime.tokens())
///         std::cout << t.id.text() << ' ' << tg::name_of(t.state) << '\n';
///
/// Thread safety: These are values, safe on every thread.
///
/// Lifetime: Operation names are string literals of the program and never dangle.

namespace tokengate {

/// The id of a token; it prints as `<operation>_<created ns since the epoch>_<sequence>`. The upper
/// bits of the sequence are the number of the thread context that made the token. So no two tokens
/// of a process share a sequence.
struct token_id {
    std::string_view operation;
    std::uint64_t created_ns = 0;
    std::uint64_t sequence = 0;

    [[nodiscard]] std::string text() const;
    friend bool operator==(const token_id&, const token_id&) = default;
};

/// The life cycle is created → waiting → admitted → executing → completed | failed | killed |
/// timeout. A suspended token is still executing. A token that never starts goes from waiting or
/// admitted to failed (it was rejected), killed or timeout.
enum class token_state : std::uint8_t {
    none,     ///< no token (memory that holds none, or a plain task)
    created,  ///< made, not yet at the gate
    /// At the gate: held there, or waiting for a permit of its storage tier or a core of its class
    /// with room.
    waiting,
    admitted,   ///< routed to a core, not yet started
    executing,  ///< its body has begun
    completed,  ///< the body returned
    failed,     ///< the body threw, or the gate rejected the token
    killed,     ///< ended from outside: killed at the gate, or asked to stop
    timeout     ///< ended because its timeout was over
};
inline constexpr std::size_t token_states = 9;

[[nodiscard]] std::string_view name_of(token_state state) noexcept;

/// The core of the main coroutine: the control loop, which is no core.
inline constexpr unsigned control_core = ~0U;

struct token_info {
    token_id id;
    token_state state = token_state::none;
    unsigned core = control_core;     ///< where it was routed; control_core before that
    std::chrono::nanoseconds age{0};  ///< since it was made
    /// The sequence of the token that awaits it; 0: none does.
    std::uint64_t awaited_by_sequence = 0;
    /// The lead of its conducted chain; its operation is empty if there is none.
    token_id domain{};
};

/// A step of a token, as the observer gets it. See runtime_options::observer.
struct token_step {
    token_id id;
    token_state state = token_state::none;  ///< the state after the step
    unsigned core = control_core;           ///< where the step was taken
    std::chrono::nanoseconds at{0};         ///< steady clock
};

/// A token's failure that no awaiter can receive; see runtime_options::on_failure.
struct failure {
    token_id id;
    std::exception_ptr error;
};

/// The tokens that a stop or a drain has left. `complete()` means that every token had ended;
/// otherwise the survivors run on.
struct stop_report {
    std::vector<token_info> survivors;
    [[nodiscard]] bool complete() const noexcept { return survivors.empty(); }
};

/// The grade of an operation by the share of its runs that succeed: excellent from 95 % on, healthy
/// from 80 %, at_risk from 50 %, problematic below. It is unknown under 5 runs. A token that was
/// killed or rejected is no run.
enum class health : std::uint8_t { unknown, problematic, at_risk, healthy, excellent };

[[nodiscard]] std::string_view name_of(health grade) noexcept;

/// The counts of one operation, over all cores. The runtime counts if metrics are on, or if the
/// operation has a breaker or a quarantine; it has times if it records them (timing). Each value is
/// exact when nothing moves.
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
    std::uint64_t expired = 0;  ///< their timeout was over before they had started: no runs
    std::uint64_t refused = 0;  ///< rejected by a backlog's limit, a breaker, a quarantine
    std::uint64_t retries = 0;  ///< attempts after the first
    std::chrono::nanoseconds queue_p50{0};  ///< from admission to start
    std::chrono::nanoseconds queue_p99{0};
    std::chrono::nanoseconds run_p50{0};  ///< from start to end, with everything awaited
    std::chrono::nanoseconds run_p99{0};
    bool paused = false;    ///< held by its name; snapshot::paused: all are held
    std::string blocked{};  ///< why the gate rejects it (breaker, quarantine); empty if it does not
};

/// The counts of one executor.
struct core_snapshot {
    unsigned executor = 0;
    unsigned core = 0;          ///< control_core for the control loop, the last one
    std::uint64_t queued = 0;   ///< routed there, not yet started
    std::uint64_t busy_ns = 0;  ///< spent in turns that ran something
    bool parked = false;
};

/// Counts of a runtime, which may be polled while it runs. Each is exact when nothing moves.
struct snapshot {
    std::uint64_t admitted = 0;  ///< tokens passed to the gate so far
    std::uint64_t ended = 0;     ///< those of them that have ended
    std::uint64_t waiting = 0;   ///< at the gate for a core with room
    std::uint64_t waiting_for_permit = 0;
    std::uint64_t held = 0;              ///< at the gate because of a pause or a drain
    std::uint64_t domains = 0;           ///< seed domains alive
    std::uint64_t pins = 0;              ///< sticky keys in flight
    std::uint64_t redirections = 0;      ///< sticky tokens that an existing pin sent to its core
    std::uint64_t sticky_bypassed = 0;   ///< sticky operations called inside a conducted chain
    std::uint64_t retries = 0;           ///< attempts made because another had failed
    bool paused = false;                 ///< the gate holds all tokens
    std::vector<std::uint64_t> busy_ns;  ///< per executor: time spent in turns that ran something
    std::vector<core_snapshot> cores;    ///< per executor, and last the control loop
    /// The operations that have been counted, or are held; by name.
    std::vector<operation_health> operations;
};

}  // namespace tokengate
