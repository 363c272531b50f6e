// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/options.hpp>
#include <tokengate/task.hpp>
#include <tokengate/time_span.hpp>
#include <tokengate/token_info.hpp>

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

/// A gate_control operates the gate of a runtime while it runs. A pause or a drain never cuts a
/// conducted chain that has started: to stop chains, pause their lead.
///
///     runtime.gate().pause("store");  // what comes waits at the gate, in order
///     runtime.gate().resume("store");
///     tg::stop_report left = co_await runtime.gate().drain("store", 5s);
///     runtime.gate().kill(id, "operator");  // its awaiter gets token_killed: … operator
///     runtime.gate().kill(tg::chain_of{lead}, "stuck");  // a whole conducted chain
///     runtime.gate().release("store");                   // from its quarantine, its breaker
///     runtime.gate().storage_limit(tg::storage::fast, 80);
///
/// Thread safety: Every call works on any thread, except `wait_drained`, which blocks. A token
/// awaits `drain`.
///
/// Lifetime: A gate_control refers to its runtime and must not outlive it.
///
/// Errors: Each is thrown before anything has changed.
/// * configuration_error for an operation that is not defined, an id that names no token, a tier
///   without a limit, and a limit below 1.
/// * wrong_thread from `wait_drained` on the thread of an event loop.
/// * gate_closed from `drain` and `wait_drained` once the runtime has been stopped.
///
/// Stop: A stop ends the wait of `drain` with token_stopped. The gate still holds later tokens
/// until `resume`.

namespace tokengate {

namespace detail {
struct runtime_core;
}

/// A conducted chain, named by its lead.
struct chain_of {
    token_id lead;
};

/// The tokens to which a control applies: all, those of an operation, one, or those of a conducted
/// chain. No selection includes the runtime's own tokens (the main coroutine, services).
class selection {
public:
    enum class kind : std::uint8_t { all, operation, one, chain };

    selection() noexcept = default;
    selection(std::string_view operation) noexcept
        : of_(kind::operation), id_{operation} {}                                          // NOLINT
    selection(const char* operation) noexcept : selection(std::string_view(operation)) {}  // NOLINT
    selection(const token_id& id) noexcept : of_(kind::one), id_(id) {}                    // NOLINT
    selection(const chain_of& chain) noexcept : of_(kind::chain), id_(chain.lead) {}       // NOLINT

    [[nodiscard]] kind of() const noexcept { return of_; }
    [[nodiscard]] const token_id& id() const noexcept { return id_; }
    [[nodiscard]] std::string_view operation() const noexcept { return id_.operation; }
    [[nodiscard]] std::string text() const;

private:
    kind of_ = kind::all;
    token_id id_{};
};

class gate_control {
public:
    explicit gate_control(detail::runtime_core& of) noexcept : of_(&of) {}

    /// The gate holds the selected tokens that arrive there, and those that wait there. Tokens that
    /// have been routed to a core run, and so do the children of a conducted chain that has
    /// started.
    void pause(const selection& what = {});
    /// Releases held tokens, in the order of arrival; if all are selected, it lifts every hold.
    /// Returns false if there was no hold with this selection.
    bool resume(const selection& what = {});
    /// Whether a pause or a drain with this selection is in force.
    [[nodiscard]] bool paused(const selection& what = {}) const;

    /// Admits the selected tokens that have come to the gate so far, held ones too. Returns when
    /// they have ended, or names those that are left when the timeout `deadline` is over. The gate
    /// holds tokens that come later until `resume`, except the children of those that are to end.
    [[nodiscard]] task<stop_report> drain(selection what = {},
                                          time_span deadline = time_span::max());
    /// The same on a thread without an event loop, which it blocks.
    stop_report wait_drained(const selection& what = {}, time_span deadline = time_span::max());

    /// Selected tokens that have not started never start; those that have are asked to stop, as by
    /// request_stop. Awaiters get token_killed, unless the body returns a value all the same.
    /// Returns how many tokens it found alive; a token that is just being admitted may be killed
    /// without being counted.
    std::size_t kill(const selection& what, std::string_view reason);

    /// Ends the quarantine of an operation, begins a new history of its run times, and closes its
    /// breaker. Returns false if the operation was not blocked.
    bool release(std::string_view operation);
    /// The health of an operation; empty if its tokens have not come here, or are not counted.
    [[nodiscard]] std::optional<operation_health> health(std::string_view operation) const;

    /// Sets how many operations of a tier may run at a time, at least 1. If more are running, the
    /// gate admits none until the number fits; if the limit is raised, it admits waiting tokens at
    /// once.
    void storage_limit(storage tier, int limit);
    [[nodiscard]] int storage_limit(storage tier) const;

    /// How many tokens hold a permit of the tier now. A token that waits for other tokens has
    /// released its permit meanwhile.
    [[nodiscard]] int storage_in_use(storage tier) const;

private:
    detail::runtime_core* of_;
};

}  // namespace tokengate
