// SPDX-License-Identifier: MIT
#include <tokengate/detail/retry.hpp>

#include "executor/executor.hpp"
#include "executor/shared.hpp"
#include "token/operation_stats.hpp"

#include <tokengate/anchor.hpp>
#include <tokengate/error.hpp>
#include <tokengate/time.hpp>

namespace tokengate::detail {

namespace {

/// In [0, 1). It only has to differ between tokens that fail at the same time.
double random_share(const token_record& token) noexcept {
    const std::uint64_t bits = combine(token.sequence.load(), event_loop::steady_ns());
    return static_cast<double>(bits >> 11) * 0x1p-53;
}

bool is_worth_another(const operation_record& of, unsigned attempt,
                      const std::exception_ptr& failure) {
    if (attempt >= of.retry.attempts) return false;
    const core_context& core = *this_core;
    if (core.current->stop_requested()) return false;
    // A kill rule may apply to the token although its loop has not taken the kill's hook yet.
    if ((core.runtime->at_start.load(std::memory_order_relaxed) & killing) &&
        core.runtime->kills.reason_for(*core.current, true))
        return false;
    if (retry_on<token_killed, token_stopped, admission_rejected, operation_blocked, gate_closed>(
            failure))
        return false;
    return !of.retry.retry_if || of.retry.retry_if(failure);
}

}  // namespace

held_key::held_key(const operation_record& of, std::uint64_t key) {
    core_context& core = *this_core;
    if ((of.flags & sticky_key) && !(core.current->flags & in_domain))
        held_ = core.host->pin_key(key, of.weight_class).held;
}

held_key::~held_key() {
    if (held_) this_core->runtime->registry.release(held_);
}

at_back::at_back() noexcept { this_core->host->to_the_back(true); }

at_back::~at_back() { this_core->host->to_the_back(false); }

std::chrono::nanoseconds backoff_after(unsigned attempt, const retry_options& retry,
                                       double random) noexcept {
    const std::int64_t longest = retry.max_backoff.count();
    const std::int64_t first = retry.backoff.count();
    const unsigned doublings = attempt - 1;
    std::int64_t full = 0;
    if (first != 0)
        full = doublings < 63 && first <= longest >> doublings ? first << doublings : longest;
    // `random` is below 1, so the product is at most `full` and the difference is not negative.
    return std::chrono::nanoseconds(full - static_cast<std::int64_t>(static_cast<double>(full) *
                                                                     retry.jitter * random));
}

task<> next_attempt_due(const operation_record& of, unsigned attempt, std::exception_ptr failure) {
    if (!is_worth_another(of, attempt, failure)) std::rethrow_exception(std::move(failure));
    co_await sleep_for(backoff_after(attempt, of.retry, random_share(*this_core->current)));
    core_context& core = *this_core;
    core.counts.retries.add(1);
    if (operation_stats* stats = core.host->stats_of(of.index)) stats->retries.add(1);
}

}  // namespace tokengate::detail
