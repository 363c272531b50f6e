// SPDX-License-Identifier: MIT
#pragma once

#include "token/operation_stats.hpp"

#include <tokengate/detail/core_context.hpp>
#include <tokengate/detail/hook.hpp>
#include <tokengate/detail/token_record.hpp>
#include <tokengate/error.hpp>
#include <tokengate/runtime_options.hpp>

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <memory>
#include <mutex>

/// How many tokens may wait at the gate, and who waits until one more may. While there is a limit, every token is watched,
/// and one that has taken a place has the state `waiting`.
///
///     if (!places.take()) …                              // on a loop: what then, the policy says; admission.cpp
///     places.leave();                                    // it goes to a core, or ends
///     const bool in_mail = places.enter_from_outside(token);        // a submit; blocks, or throws admission_rejected
///     if (places.wait_for_room(spawner, token)) …        // the spawner will be woken
///
/// Threads: all members from any. Spawners wait in a queue, linked through their frames, submits on a condition variable;
/// both are woken by whoever leaves a place. The count is never above the limit but for tokens that nothing could hold back
/// (policy wait: `admit()`, `when_all`, retries). What is submitted without a place, since the gate will find out what is to
/// become of it, has one in the control loop's mail: as many as may wait at the gate may be on their way there.

namespace tokengate::detail {

struct suspension;

class backlog {
public:
    /// With metrics it counts the submits that it refuses.
    backlog(const backlog_options& options, bool metrics)
        : options_(options), refused_(metrics ? std::make_unique<stats_table>() : nullptr) {}

    /// Whether a token needs a place: of a user's operation, and outside of chains that have started.
    [[nodiscard]] bool counts(const token_record& token) const noexcept {
        return options_.limit != 0 && !(token.flags & in_domain) &&
               token.operation.load()->index >= first_operation;
    }

    bool take() noexcept;
    void take_anyway() noexcept { taken_.fetch_add(1, std::memory_order_seq_cst); }
    /// A token has left the gate.
    void leave() noexcept;
    [[nodiscard]] admission_rejected is_full(const token_record& token) const;

    /// For a submit, before the token is posted: its state says whether it has its place. Blocks until there is one, or
    /// throws admission_rejected, as the policy says. True: it has a place in the mail instead.
    [[nodiscard]] bool enter_from_outside(token_record& token);
    /// Such a one has been taken out of the mail.
    void leave_mail() noexcept;
    /// Submits that were refused, by operation; null without metrics.
    [[nodiscard]] const stats_table* refused() const noexcept { return refused_.get(); }

    /// True: a spawner, which has been suspended on this loop, will be woken when there is room; or, where a full gate
    /// refuses, when what has been refused so far has ended: then no stop finds it in the queue.
    bool wait_for_room(suspension& spawner, const token_record& spawned) noexcept;
    /// For a stop: false if it is not in the queue (any more), and has been or will be woken.
    [[nodiscard]] bool leave_queue(suspension& spawner) noexcept;
    /// A spawner that had waited for room has done with it: what it has not used is for the next.
    void pass_room_on() noexcept;

    /// The gate has been closed: who waits for room to submit waits no longer, and will be refused there.
    void close() noexcept;

private:
    [[nodiscard]] bool has_room() const noexcept {
        return taken_.load(std::memory_order_seq_cst) < options_.limit;
    }
    bool take_one_of(std::atomic<std::size_t>& places) const noexcept;
    void wake_one() noexcept;

    const backlog_options& options_;
    const std::unique_ptr<stats_table> refused_;  // written under the mutex, read by any
    /// Tokens that wait at the gate. Whoever waits for room raises `wanted_` and then looks at these two; whoever
    /// leaves one subtracts and then looks there: all seq_cst, so one of the two sees the other.
    std::atomic<std::size_t> taken_{0};
    std::atomic<std::size_t> in_mail_{0};  // submitted ones without a place
    std::atomic<unsigned> wanted_{0};
    std::mutex mutex_;              // guards what follows
    hook_queue spawners_;           // suspended until there is room; as many as tokens that spawn
    std::condition_variable room_;  // notified when a place has been left, and by close
    bool closed_ = false;
};

}  // namespace tokengate::detail
