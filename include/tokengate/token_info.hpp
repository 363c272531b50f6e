// SPDX-License-Identifier: MIT
#pragma once

#include <chrono>
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

/// created → waiting → admitted → executing → completed | failed. A suspended token is still executing.
enum class token_state : std::uint8_t {
    none,       ///< no token (memory that holds none, or a plain task)
    created,    ///< made, not yet handed to the gate
    waiting,    ///< at the gate: for a permit of its storage tier, or for a core of its class with room
    admitted,   ///< routed to a core, not yet started
    executing,  ///< its body has begun
    completed,  ///< the body returned
    failed      ///< the body threw
};

[[nodiscard]] std::string_view name_of(token_state state) noexcept;

/// The main coroutine's place: the control loop, which is no core.
inline constexpr unsigned control_core = ~0U;

struct token_info {
    token_id id;
    token_state state = token_state::none;
    unsigned core = control_core;           ///< where it was routed; control_core before that
    std::chrono::nanoseconds age{0};        ///< since it was made
    std::uint64_t awaited_by_sequence = 0;  ///< sequence of the token that awaits it; 0: nobody does
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

/// Counts that can be polled while the runtime runs; each is exact when nothing moves.
struct snapshot {
    std::uint64_t admitted = 0;          ///< tokens handed to the gate so far
    std::uint64_t ended = 0;             ///< of these, ended
    std::uint64_t waiting = 0;           ///< at the gate for a core with room
    std::uint64_t domains = 0;           ///< seed domains alive
    std::uint64_t pins = 0;              ///< sticky keys in flight
    std::uint64_t redirections = 0;      ///< sticky tokens that an existing pin sent to its core
    std::uint64_t sticky_bypassed = 0;   ///< sticky operations called inside a conducted chain
    std::uint64_t retries = 0;           ///< attempts that were made because another had failed
    std::vector<std::uint64_t> busy_ns;  ///< per executor: time spent in turns that ran something
};

}  // namespace tokengate
