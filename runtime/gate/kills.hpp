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

/// Who is to be killed, as operators have said. Looked at only while something has been said, as shared_state::at_start tells.
///
/// Threads: any, under one mutex. Capacity: a rule for each selection, until it has met all whom it meant.

namespace tokengate::detail {

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
    [[nodiscard]] std::uint64_t newest() const noexcept {
        return newest_.load(std::memory_order_acquire);
    }
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
