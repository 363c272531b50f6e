// SPDX-License-Identifier: MIT
#pragma once

#include "token/context.hpp"

#include <tokengate/detail/hook.hpp>
#include <tokengate/detail/token_record.hpp>
#include <tokengate/gate.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <list>
#include <mutex>

/// The tokens held at the gate, by selections that operators have paused or drain. Consulted only
/// while a hold is in force (shared_state::attention).
///
/// Threads: all members from any, under one mutex. Capacity: a rule for each selection; the queues
/// of held tokens are linked through the tokens.

namespace tokengate::detail {

class gate_holds {
public:
    explicit gate_holds(const std::atomic<std::uint32_t>& at_start) noexcept
        : at_start_(at_start) {}

    /// The origin of a token that is to pass the gate.
    enum class coming : std::uint8_t {
        newly,         ///< just admitted
        from_a_queue,  ///< it waited at the gate for another reason; no drain holds it any more
        let_go         ///< it was held, and has been released
    };

    void pause(const selection& what);
    /// True if there was such a rule; the tokens that it held go to `freed`, in order of arrival.
    bool resume(const selection& what, hook_queue& freed);
    /// From here on, tokens of the selection that were made before `now` pass. Those that are held
    /// go to `freed`. Newer tokens of the selection are held.
    void drain(const selection& what, const sequence_marks& now, hook_queue& freed);
    /// The drain that began at `then` has seen the end of every token that it waited for. From here
    /// on, a token of the selection is held whenever it was made, unless a token that the drain
    /// applied to spawns or awaits it.
    void end_drain(const selection& what, const sequence_marks& then);
    /// True if there was any rule.
    bool lift_all(hook_queue& freed);
    /// Lifts all rules for good: from here on nothing is held.
    void seal(hook_queue& freed);

    /// Takes the token if it is to be held. `spawner` is the token whose body admits it, on this
    /// thread; null if there is none. Newly admitted tokens queue behind the others. A token that
    /// has been asked to stop is not held: it is to end.
    bool hold(token_record& token, const token_record* spawner, coming from) noexcept;
    /// Whether `hold` would take the token, under the present rules.
    [[nodiscard]] bool would_hold(const token_record& token, const token_record* spawner,
                                  coming from) noexcept;
    /// The oldest held token, to be shed for room; null if there is none.
    [[nodiscard]] hook* take_oldest() noexcept;

    [[nodiscard]] bool any() const;
    [[nodiscard]] bool paused(const selection& what) const;
    [[nodiscard]] std::size_t held() const;

    template <class Predicate>
    void withdraw(Predicate is_to_go, hook_queue& into) noexcept {
        const std::scoped_lock lock(mutex_);
        for (rule& each : rules_)
            for (hook_queue* queue : {&each.older, &each.newer})
                each.held -= queue->split(is_to_go, into);
    }

private:
    struct rule {
        selection what;
        bool draining = false;
        // The drain has ended. Then only tokens pass that have, among their spawner and awaiters, a
        // token that the drain applied to. Such a token still runs if it awaited the drain.
        bool over = false;
        sequence_marks before{};  // while draining: tokens before these marks pass
        hook_queue older{};
        hook_queue newer{};
        std::size_t held = 0;  // in both queues
    };

    /// Whether a drain waits for the token: the drain applies to the token itself, or to a token
    /// that spawns or awaits it, directly or through others.
    static bool is_to_end(const rule& drained, const token_record& token,
                          const token_record* spawner) noexcept;
    rule* holder_of(const token_record& token, const token_record* spawner, coming from) noexcept;
    std::list<rule>::iterator find(const selection& what);
    static void free(rule& from, hook_queue& freed) noexcept;
    bool free_all(hook_queue& freed) noexcept;

    const std::atomic<std::uint32_t>& at_start_;  // shared_state::at_start
    mutable std::mutex mutex_;
    std::list<rule> rules_;
    bool sealed_ = false;
};

}  // namespace tokengate::detail
