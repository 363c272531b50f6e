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

/// Who is held at the gate: what operators have paused or drain. Looked at only while something has been said, as
/// shared_state::attention tells.
///
/// Threads: any, under one mutex. Capacity: a rule for each selection, queues of held tokens linked through the tokens themselves.

namespace tokengate::detail {

class gate_holds {
public:
    explicit gate_holds(const std::atomic<std::uint32_t>& at_start) noexcept
        : at_start_(at_start) {}

    /// Where a token comes from that is to pass.
    enum class coming : std::uint8_t {
        newly,         ///< it has just been admitted
        from_a_queue,  ///< it has waited at the gate for something else: no drain holds it any more
        let_go         ///< it had been held
    };

    void pause(const selection& what);
    /// True if there was such a rule; what it held goes to `freed`, in order of arrival.
    bool resume(const selection& what, hook_queue& freed);
    /// What the selection means and was made before `now` passes from here on, also what has been held; the rest is held.
    void drain(const selection& what, const sequence_marks& now, hook_queue& freed);
    /// The drain that looked at `then` has met all it waited for: what comes from outside is held now, whenever it was made.
    void end_drain(const selection& what, const sequence_marks& then);
    /// True if there was any rule.
    bool lift_all(hook_queue& freed);
    /// The same for good: from here on nothing is held.
    void seal(hook_queue& freed);

    /// Takes the token, if it is to be held. `spawner` is whose body admits it, on this thread; null: nobody's. Those
    /// that come newly stand behind the others. What has been asked to stop is not held: it is to end.
    bool hold(token_record& token, const token_record* spawner, coming from) noexcept;
    /// Whether `hold` would, as things are now.
    [[nodiscard]] bool would_hold(const token_record& token, const token_record* spawner,
                                  coming from) noexcept;
    /// The oldest of those held, for whoever makes room; null if there is none.
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
        bool over =
            false;  // the drain: then only those pass that one it meant spawns, who has waited for it
        sequence_marks before{};  // when draining: those pass
        hook_queue older{};
        hook_queue newer{};
        std::size_t held = 0;  // in both
    };

    /// Whether a drain waits for it: it was made before and is meant, or one that is waits for it.
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
