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

/// Limits how many tokens may wait at the gate, and queues the spawners and submits that wait for
/// room. While there is a limit, every token is instrumented (`watched`), and a token that has
/// taken a place has the state `waiting`.
///
///     if (!places.take()) …  // on a loop: the policy decides; see admission.cpp
///     places.leave();        // the token goes to a core, or ends
///     // a submit; blocks, or throws admission_rejected:
///     const bool in_mail = places.enter_from_outside(token);
///     if (places.wait_for_room(spawner, token)) …  // the spawner will be woken
///
/// Threads: all members from any. Spawners wait in a queue that is linked through their frames;
/// submits wait on a condition variable. The thread that leaves a place wakes both. The count
/// exceeds the limit only by tokens that cannot be delayed (policy wait: `admit()`, `when_all`,
/// retries). If the gate is to decide about a submitted token, the token has no place yet, but one
/// in the control loop's mail. The limit applies to the places in the mail separately.

namespace tokengate::detail {

struct suspension;

class backlog {
public:
    /// With metrics, it counts the submits that it rejects.
    backlog(const backlog_options& options, bool metrics)
        : options_(options), refused_(metrics ? std::make_unique<stats_table>() : nullptr) {}

    /// Whether a token needs a place: it is of a user's operation, and outside of chains that have
    /// started.
    [[nodiscard]] bool counts(const token_record& token) const noexcept {
        return options_.limit != 0 && !(token.flags & in_domain) &&
               token.operation.load()->index >= first_operation;
    }

    bool take() noexcept;
    void take_anyway() noexcept { taken_.fetch_add(1, std::memory_order_seq_cst); }
    /// A token has left the gate.
    void leave() noexcept;
    [[nodiscard]] admission_rejected is_full(const token_record& token) const;

    /// For a submit, before the token is posted. The token's state shows whether it has its place.
    /// Blocks until there is one, or throws admission_rejected, as the policy requires. True: the
    /// token has a place in the mail instead.
    [[nodiscard]] bool enter_from_outside(token_record& token);
    /// A token with a place in the mail has been taken out of the mail.
    void leave_mail() noexcept;
    /// Rejected submits by operation; null without metrics.
    [[nodiscard]] const stats_table* refused() const noexcept { return refused_.get(); }

    /// True: a spawner that has been suspended on this loop will be woken. Under the policy wait,
    /// it is woken when there is room. Under the other policies, it is woken when the tokens
    /// rejected so far have ended; then a stop does not find it in the queue.
    bool wait_for_room(suspension& spawner, const token_record& spawned) noexcept;
    /// For a stop: false if the spawner is not in the queue (any more), and has been or will be
    /// woken.
    [[nodiscard]] bool leave_queue(suspension& spawner) noexcept;
    /// A spawner that had waited for room is done with it: unused room wakes the next.
    void pass_room_on() noexcept;

    /// The gate has been closed: threads that wait for room to submit are woken, and their submits
    /// rejected.
    void close() noexcept;

private:
    [[nodiscard]] bool has_room() const noexcept {
        return taken_.load(std::memory_order_seq_cst) < options_.limit;
    }
    bool take_one_of(std::atomic<std::size_t>& places) const noexcept;
    void wake_one() noexcept;

    const backlog_options& options_;
    const std::unique_ptr<stats_table> refused_;  // written under the mutex, read by any thread
    /// Tokens that wait at the gate. A thread that waits for room raises `wanted_` and then reads
    /// this count and the next; a thread that leaves a place subtracts here and then reads
    /// `wanted_`. All accesses are seq_cst, so at least one of the two threads sees the other's
    /// change.
    std::atomic<std::size_t> taken_{0};
    std::atomic<std::size_t> in_mail_{0};  // submitted tokens without a place
    std::atomic<unsigned> wanted_{0};
    std::mutex mutex_;  // guards what follows
    // Suspended until there is room; at most one entry for each spawning token.
    hook_queue spawners_;
    std::condition_variable room_;  // notified when a place has been left, and by close
    bool closed_ = false;
};

}  // namespace tokengate::detail
