// SPDX-License-Identifier: MIT
#pragma once

#include "token/context.hpp"

#include <tokengate/detail/token_record.hpp>
#include <tokengate/gate.hpp>
#include <tokengate/token_info.hpp>

#include <atomic>
#include <cstdint>
#include <memory>
#include <shared_mutex>
#include <string>
#include <unordered_map>
#include <vector>

/// The kill rules of operators. Consulted only while one is in force (shared_state::at_start).
///
/// Threads: all members from any, under one mutex. Capacity: a rule for each selection, until no
/// token is left that it applies to.

namespace tokengate::detail {

class gate_kills {
public:
    using reason = std::shared_ptr<const std::string>;

    /// Adds a rule for the tokens made before the marks. It replaces an older rule with the same
    /// selection.
    void add(const selection& what, const sequence_marks& before, reason why);
    /// Why this token is to end; null if no rule applies to it. For the thread that has the token
    /// in hand: the token's own thread, or the holder of the mutex of the token's queue.
    [[nodiscard]] reason reason_for(const token_record& token, bool on_its_thread) const;

    /// Whether a rule applies to the token by its id or its operation: on any thread, while its
    /// frame lives.
    [[nodiscard]] bool names(const token_record& token) const;

    /// The number of the newest rule. A scan of all tokens that began after reading it has applied
    /// every rule up to it.
    [[nodiscard]] std::uint64_t newest() const noexcept {
        return newest_.load(std::memory_order_acquire);
    }
    [[nodiscard]] bool any() const;
    /// Removes the rules up to that number, except for rules that apply to one of `waiting`: tokens
    /// that have not started, by sequence and operation. True if some rules are left.
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
    /// Stored by `add` (release) when the rule is in. A poll loads it (acquire), and reads the
    /// rules only if it has changed: readers that never stop would keep writers from the mutex.
    std::atomic<std::uint64_t> newest_{0};
};

}  // namespace tokengate::detail
