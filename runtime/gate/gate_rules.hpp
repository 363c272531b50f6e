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
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <unordered_map>
#include <vector>

/// What operators have said of tokens: who is held at the gate, and who is to be killed. Looked at only while something has
/// been said: two words of the runtime tell (shared_state::attention, at_start).
///
/// Threads: any, under one mutex each; tokens are matched by whoever has them in hand. Capacity: a rule for each selection,
/// queues of held tokens linked through the tokens themselves.

namespace tokengate::detail {

/// Whether a token is one of those. `chain` is not decided here, except for the lead before it starts: see in_chain.
[[nodiscard]] bool selects(const selection& what, const token_record& token) noexcept;

/// Whether a conducted token belongs to the chain of that lead, or of a call with a time limit or retries that made it. For
/// whoever has it in hand. On the thread of its domain also whether it belongs to a chain inside of that one; elsewhere the
/// domain that it keeps alive is all that can be looked at.
[[nodiscard]] bool in_chain(const token_record& token, std::uint64_t lead_sequence, bool on_its_thread) noexcept;

/// The same by what can be seen from outside, of a token that is not the runtime's own.
[[nodiscard]] bool means(const selection& what, const token_info& info) noexcept;

/// Whether the two mean the same tokens.
[[nodiscard]] bool same_selection(const selection& a, const selection& b) noexcept;

/// A selection that lives on: the name in it is an operation's own. Throws configuration_error if nobody defined it.
[[nodiscard]] selection settled(const selection& what);

class gate_holds {
public:
    explicit gate_holds(const std::atomic<std::uint32_t>& at_start) noexcept : at_start_(at_start) {}

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
    [[nodiscard]] bool would_hold(const token_record& token, const token_record* spawner, coming from) noexcept;
    /// The oldest of those held, for whoever makes room; null if there is none.
    [[nodiscard]] hook* take_oldest() noexcept;

    [[nodiscard]] bool any() const;
    [[nodiscard]] bool paused(const selection& what) const;
    [[nodiscard]] std::size_t held() const;

    template <class Predicate>
    void withdraw(Predicate is_to_go, hook_queue& into) noexcept {
        const std::scoped_lock lock(mutex_);
        for (rule& each : rules_)
            for (hook_queue* queue : {&each.older, &each.newer}) each.held -= queue->split(is_to_go, into);
    }

private:
    struct rule {
        selection what;
        bool draining = false;
        bool over = false;        // the drain: then only those pass that one it meant spawns, who has waited for it
        sequence_marks before{};  // when draining: those pass
        hook_queue older{};
        hook_queue newer{};
        std::size_t held = 0;  // in both
    };

    /// Whether a drain waits for it: it was made before and is meant, or one that is waits for it.
    static bool is_to_end(const rule& drained, const token_record& token, const token_record* spawner) noexcept;
    rule* holder_of(const token_record& token, const token_record* spawner, coming from) noexcept;
    std::list<rule>::iterator find(const selection& what);
    static void free(rule& from, hook_queue& freed) noexcept;
    bool free_all(hook_queue& freed) noexcept;

    const std::atomic<std::uint32_t>& at_start_;  // shared_state::at_start
    mutable std::mutex mutex_;
    std::list<rule> rules_;
    bool sealed_ = false;
};

class gate_kills {
public:
    using reason = std::shared_ptr<const std::string>;

    /// Of what had been made by then. One that means the same as an older one takes its place.
    void add(const selection& what, const sequence_marks& before, reason why);
    /// Why this token is to end; null if it is not. For whoever has it in hand: on its thread, or in a queue, under its mutex.
    [[nodiscard]] reason reason_for(const token_record& token, bool on_its_thread) const;

    /// Whether there is one that means it, for itself or its operation's sake: on any thread, while its frame lives.
    [[nodiscard]] bool names(const token_record& token) const;

    /// The number of the newest rule: what has looked at all tokens since then has met those it meant.
    [[nodiscard]] std::uint64_t newest() const noexcept { return newest_.load(std::memory_order_acquire); }
    [[nodiscard]] bool any() const;
    /// Forgets the rules up to that number, except for those that mean one of `waiting`: sequence and operation of tokens
    /// that have not started. True if some are left.
    bool forget(std::uint64_t up_to, const std::vector<token_info>& waiting);

private:
    struct rule {
        selection what;
        sequence_marks before;
        reason why;
        std::uint64_t number;
    };
    struct single {
        reason why;
        std::uint64_t number;
    };

    mutable std::shared_mutex mutex_;
    std::vector<rule> rules_;                            // of operations, of chains, of all
    std::unordered_map<std::uint64_t, single> singles_;  // of single tokens, by sequence
    /// Stored by `add` (release) when the rule is in; whoever polls loads it (acquire), and looks at rules only when it has
    /// changed: readers that never stop would keep writers from the mutex.
    std::atomic<std::uint64_t> newest_{0};
};

}  // namespace tokengate::detail
