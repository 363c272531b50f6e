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

/// The gate of a runtime: what operators turn while it runs.
///
///     runtime.gate().pause("store");                              // what comes waits at the gate, in order
///     runtime.gate().resume("store");
///     tg::stop_report left = co_await runtime.gate().drain("store", 5s);
///     runtime.gate().kill(id, "operator");                        // its awaiter gets token_killed: … operator
///     runtime.gate().kill(tg::chain_of{lead}, "stuck");           // a whole conducted chain
///     runtime.gate().release("store");                            // from its quarantine, its breaker
///     runtime.gate().storage_limit(tg::storage::fast, 80);
///
/// A conducted chain that has started is never cut in the middle by a pause or a drain: pause its lead to stop the chains.
///
/// A reference to its runtime; must not outlive it. Thread-safe. Errors: configuration_error, before anything has changed,
/// for an operation that nobody has defined and for limits that cannot be; wrong_thread from `wait_drained` on a loop,
/// and gate_closed once the runtime has been stopped.

namespace tokengate {

namespace detail {
struct runtime_core;
}

/// A conducted chain, named by its lead.
struct chain_of {
    token_id lead;
};

/// Which tokens are meant: all, those of an operation, one, or those of a conducted chain. The runtime's own (the main
/// coroutine, services) are meant by none.
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

    /// Those that come to the gate wait there from now on, and those that wait there go on waiting; what has been routed to
    /// a core runs. Children of a conducted chain that has started pass: a chain that has started cannot be paused.
    void pause(const selection& what = {});
    /// Lets go, in the order of arrival; everything, if all are meant. False: nothing was held in that way.
    bool resume(const selection& what = {});
    [[nodiscard]] bool paused(const selection& what = {}) const;

    /// Lets end what has come to the gate so far, also what was held there, and returns when it has, or names what has not
    /// by the deadline. What comes from now on waits at the gate until `resume`, except the children of those that are
    /// to end.
    [[nodiscard]] task<stop_report> drain(selection what = {},
                                          time_span deadline = time_span::max());
    /// The same from a thread of one's own, which it blocks.
    stop_report wait_drained(const selection& what = {}, time_span deadline = time_span::max());

    /// What has not started never does; what has is asked to stop, as by request_stop. Awaiters get token_killed, unless
    /// the body returned a value all the same. Returns how many were found alive; one that is just being admitted may be
    /// met without having been counted.
    std::size_t kill(const selection& what, std::string_view reason);

    /// Ends the quarantine of an operation, which begins a new history of its run times, and closes its breaker. False: it
    /// was not blocked.
    bool release(std::string_view operation);
    /// How it does; none if nothing is known of it: it has not been here, or is not counted.
    [[nodiscard]] std::optional<operation_health> health(std::string_view operation) const;

    /// How many operations of a tier may run at a time, at least 1. Lowered below what is running, it admits nothing more
    /// until that fits; raised, it lets those that wait pass at once.
    void storage_limit(storage tier, int limit);
    [[nodiscard]] int storage_limit(storage tier) const;

    /// How many hold a permit of the tier now. Those that wait for other tokens have given theirs up meanwhile.
    [[nodiscard]] int storage_in_use(storage tier) const;

private:
    detail::runtime_core* of_;
};

}  // namespace tokengate
