// SPDX-License-Identifier: MIT
#include <tokengate/operation.hpp>

#include "token/context.hpp"
#include "token/operations.hpp"

#include <tokengate/error.hpp>
#include <tokengate/task_token.hpp>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <deque>
#include <exception>
#include <mutex>
#include <string>
#include <vector>

namespace tokengate::detail {

namespace {

/// A record, and whether an operation object uses it. Records are never freed, because any listed
/// token may refer to one. The next operation with the same definition uses the record again, so
/// programs that make operations in a loop do not grow.
struct entry {
    operation_record record;
    bool in_use;
    operation_record keeper{};
};

struct registry {
    std::mutex mutex;
    std::deque<entry> entries;  // addresses stay valid
    unsigned runtimes = 0;
};

registry& operations() {
    static auto* forever = new registry;
    return *forever;
}

bool same_name(const operation_record& a, const operation_record& b) {
    return std::strcmp(a.name, b.name) == 0;
}

bool same_retries(const retry_options& a, const retry_options& b) {
    return a.attempts == b.attempts && a.backoff.count() == b.backoff.count() &&
           a.max_backoff.count() == b.max_backoff.count() && a.jitter == b.jitter &&
           a.retry_if == b.retry_if;
}

bool same_guards(const operation_record& a, const operation_record& b) {
    return a.breaker.failure_rate == b.breaker.failure_rate &&
           a.breaker.min_runs == b.breaker.min_runs && a.breaker.window == b.breaker.window &&
           a.breaker.open_for.count() == b.breaker.open_for.count() &&
           a.breaker.probes == b.breaker.probes && a.quarantine.factor == b.quarantine.factor &&
           a.quarantine.quantile == b.quarantine.quantile &&
           a.quarantine.min_runs == b.quarantine.min_runs;
}

bool same_definition(const operation_record& a, const operation_record& b) {
    if (!same_name(a, b) || a.weight_class != b.weight_class || a.tier != b.tier ||
        a.flags != b.flags || a.timeout != b.timeout || !same_retries(a.retry, b.retry) ||
        !same_guards(a, b) || a.calls.size() != b.calls.size())
        return false;
    for (std::size_t i = 0; i < a.calls.size(); ++i)
        if (std::strcmp(a.calls[i], b.calls[i]) != 0) return false;
    return true;
}

operation_record unrouted(const char* name, std::uint32_t index) {
    return {.name = name,
            .weight_class = weight::medium,
            .tier = storage::none,
            .flags = unroutable,
            .index = index};
}

std::string contradiction(const char* name) {
    return std::string("configuration_error: two operations are named \"") + name +
           "\" and differ in weight, storage, retry, timeout, breaker, quarantine or anchor: give "
           "one of them another "
           "name";
}

void check_retries(const std::string& name, const retry_options& retry,
                   bool arguments_can_be_kept) {
    const auto wrong = [&](const std::string& what) {
        throw configuration_error("configuration_error: operation \"" + name + "\": retry." + what);
    };
    if (retry.attempts == 0)
        wrong("attempts is 0: it counts all of them, use 1, or leave it out, for no retries");
    if (retry.backoff.count() < 0) wrong("backoff is negative: use 0 for none");
    if (retry.max_backoff.count() < 0) wrong("max_backoff is negative: use 0 for none");
    if (!(retry.jitter >= 0 && retry.jitter <= 1))
        wrong("jitter is " + std::to_string(retry.jitter) +
              ": use a share of the backoff, from 0 to 1");
    if (retry.attempts > 1 && !arguments_can_be_kept)
        wrong("attempts is " + std::to_string(retry.attempts) +
              ", but each attempt needs the arguments anew, and one of them cannot be copied: take "
              "a std::shared_ptr "
              "to it, or retry inside the operation");
}

void check_guards(const std::string& name, const breaker_options& breaker,
                  const quarantine_options& quarantine) {
    const auto wrong = [&](const std::string& what) {
        throw configuration_error("configuration_error: operation \"" + name + "\": " + what);
    };
    constexpr unsigned widest = 1'000'000;
    if (!(breaker.failure_rate >= 0 && breaker.failure_rate < 1))
        wrong("breaker.failure_rate is " + std::to_string(breaker.failure_rate) +
              ": use a share of the runs below 1, which more must fail than; or 0 for no breaker");
    if (breaker.window == 0 || breaker.window > widest)
        wrong("breaker.window is " + std::to_string(breaker.window) + ": use 1 to " +
              std::to_string(widest) + " runs");
    if (breaker.min_runs == 0 || breaker.min_runs > breaker.window)
        wrong("breaker.min_runs is " + std::to_string(breaker.min_runs) +
              ": use 1 to as many runs as breaker.window (" + std::to_string(breaker.window) + ")");
    if (breaker.open_for.count() <= 0)
        wrong("breaker.open_for is not positive: use a time for which it stays open");
    if (breaker.probes == 0)
        wrong("breaker.probes is 0: at least 1 token must show that it works again");
    if (quarantine.factor != 0 && !(quarantine.factor >= 1 && std::isfinite(quarantine.factor)))
        wrong("quarantine.factor is " + std::to_string(quarantine.factor) +
              ": use 1 or more times the usual run time; or 0 for no quarantine");
    if (!(quarantine.quantile > 0 && quarantine.quantile <= 1))
        wrong("quarantine.quantile is " + std::to_string(quarantine.quantile) +
              ": use a share of the runs, above 0 and at most 1");
    if (quarantine.min_runs == 0)
        wrong("quarantine.min_runs is 0: at least 1 run must have shown what is usual");
}

}  // namespace

const operation_record& register_operation(const operation_options& options, std::uint16_t flags,
                                           std::span<const char* const> calls,
                                           bool arguments_can_be_kept) {
    const std::string name(options.name.view());
    if (options.weight > weight::heavy)
        throw configuration_error("configuration_error: operation \"" + name + "\": weight " +
                                  std::to_string(static_cast<int>(options.weight)) +
                                  " does not exist: use weight::light, medium or heavy");
    if (options.storage > storage::insane)
        throw configuration_error(
            "configuration_error: operation \"" + name + "\": storage " +
            std::to_string(static_cast<int>(options.storage)) +
            " does not exist: use storage::none, slow, moderate, fast or insane");
    if (options.timeout.count() < 0)
        throw configuration_error("configuration_error: operation \"" + name +
                                  "\": timeout is negative: leave it out, or 0, for none");
    check_retries(name, options.retry, arguments_can_be_kept);
    check_guards(name, options.breaker, options.quarantine);
    const bool is_guarded = options.breaker.failure_rate != 0 || options.quarantine.factor != 0;
    if (options.storage != storage::none) flags |= has_tier;
    if (is_guarded) flags |= watched;
    operation_record wanted{.name = options.name.c_str(),
                            .weight_class = options.weight,
                            .tier = options.storage,
                            .flags = flags,
                            .index = 0,
                            .calls = {calls.begin(), calls.end()},
                            .timeout = options.timeout,
                            .retry = options.retry,
                            .breaker = options.breaker,
                            .quarantine = options.quarantine};
    if (is_guarded) wanted.special.store(guarded);

    registry& r = operations();
    const std::scoped_lock lock(r.mutex);
    entry* free = nullptr;
    for (entry& known : r.entries) {
        const bool same = same_definition(known.record, wanted);
        if (known.in_use && !same && r.runtimes != 0 && same_name(known.record, wanted))
            throw configuration_error(contradiction(known.record.name));
        if (!known.in_use && same) free = &known;
    }
    if (!free) {
        if (r.entries.size() + 2 == most_operations)
            throw configuration_error("configuration_error: operation \"" + name +
                                      "\" would be number " + std::to_string(most_operations) +
                                      " of different ones: make operations once, not per call");
        // 0 and 1 are the main operation and the operation of tasks.
        wanted.index = static_cast<std::uint32_t>(r.entries.size() + 2);
        free = &r.entries.emplace_back(entry{std::move(wanted), false});
        if (options.timeout.count() != 0 || options.retry.attempts > 1) {
            free->keeper = unrouted(free->record.name, task_operation().index);
            free->record.keeper = &free->keeper;
            free->record.special.set_bits(wraps);
        }
    }
    free->in_use = true;
    return free->record;
}

void unregister_operation(const operation_record& record) noexcept {
    std::size_t live = live_frames_of(record);
    // The wrapper tokens also live between two attempts.
    if (record.retry.attempts > 1) live += live_frames_of(*record.keeper);
    if (live != 0) {
        std::fprintf(stderr,
                     "tokengate: operation \"%s\" is being destroyed while %zu of its tokens "
                     "exist, which would call a "
                     "dangling function: keep operations alive longer than their tokens (namespace "
                     "scope is best)\n",
                     record.name, live);
        std::terminate();
    }
    registry& r = operations();
    const std::scoped_lock lock(r.mutex);
    for (entry& known : r.entries)
        if (&known.record == &record) known.in_use = false;
}

void check_operations() {
    registry& r = operations();
    const std::scoped_lock lock(r.mutex);
    for (std::size_t i = 0; i < r.entries.size(); ++i)
        for (std::size_t j = i + 1; j < r.entries.size(); ++j)
            if (r.entries[i].in_use && r.entries[j].in_use &&
                same_name(r.entries[i].record, r.entries[j].record) &&
                !same_definition(r.entries[i].record, r.entries[j].record))
                throw configuration_error(contradiction(r.entries[i].record.name));
    ++r.runtimes;
}

const char* operation_name_of(std::string_view name) {
    registry& r = operations();
    const std::scoped_lock lock(r.mutex);
    for (const entry& known : r.entries)
        if (name == known.record.name) return known.record.name;
    return nullptr;
}

void forget_runtime() noexcept {
    registry& r = operations();
    const std::scoped_lock lock(r.mutex);
    --r.runtimes;
}

std::vector<const operation_record*> known_operations() {
    std::vector<const operation_record*> all{&main_operation(), &task_operation()};
    registry& r = operations();
    const std::scoped_lock lock(r.mutex);
    for (const entry& known : r.entries) all.push_back(&known.record);
    return all;
}

const operation_record& main_operation() {
    // Not registered, because a user's operation may have the same name.
    static const operation_record forever = unrouted("main", 0);
    return forever;
}

const operation_record& task_operation() {
    static const operation_record forever = unrouted("task", 1);
    return forever;
}

}  // namespace tokengate::detail
