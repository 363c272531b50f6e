// SPDX-License-Identifier: MIT
#pragma once

#include "base/histogram.hpp"
#include "token/operation_stats.hpp"

#include <tokengate/detail/core_context.hpp>
#include <tokengate/detail/token_record.hpp>
#include <tokengate/token_info.hpp>

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

/// Breakers and quarantines: the records of a guarded operation in one runtime, and whether the
/// gate admits the operation's tokens.
///
///     // operation_blocked:
///     if (std::exception_ptr why = desk.admit(token.id())) refuse(token, why);
///     desk.ended({.token = token.id(), .outcome = run_outcome::failed});
///
/// A breaker is closed at first. It opens if, of the last `window` runs (at least `min_runs`), a
/// larger share than `failure_rate` has failed. While open, it rejects every token for `open_for`.
/// The first token that comes after that time makes it half open. Then `probes` tokens pass, that
/// one included. If all have succeeded, it closes with an empty window; if one has failed, it opens
/// again. A probe that neither succeeded nor failed gives its place to another token. There is no
/// timer: the state changes when a token comes or ends. While the breaker is not closed, it ignores
/// the ends of tokens admitted before it opened; they still count for health and for a quarantine.
///
/// Thread-safe, under a mutex for each desk: only guarded operations pay for it.

namespace tokengate::detail {

/// The run times of an operation: a histogram that forgets. At 16,384 runs, all its counts are
/// halved, so that old runs do not outweigh recent ones; a single long run stays a small share.
class run_history : private histogram_scheme {
public:
    /// `quantile`: the quantile that is kept up to date at each run, in a step or two.
    explicit run_history(double quantile) noexcept : quantile_(quantile) {}

    void record(std::uint64_t ns) noexcept;
    /// Runs so far, the forgotten ones included.
    [[nodiscard]] std::uint64_t runs() const noexcept { return runs_; }
    /// To within 1/32 of its value; 0 if there are no runs.
    [[nodiscard]] std::uint64_t quantile() const noexcept {
        return count_ == 0 ? 0 : middle_of(at_);
    }
    /// Any other quantile, by a scan of all buckets.
    [[nodiscard]] std::uint64_t quantile(double q) const noexcept;

private:
    static constexpr std::uint32_t most = 16'384;

    void forget_half() noexcept;
    void settle() noexcept;
    [[nodiscard]] static std::uint32_t rank(double q, std::uint32_t of) noexcept;

    const double quantile_;
    std::array<std::uint32_t, buckets> counts_{};
    std::uint64_t runs_ = 0;
    std::uint32_t count_ = 0;
    std::uint32_t up_to_ = 0;  // the number of runs in the buckets up to at_
    std::size_t at_ = 0;       // the bucket of the quantile
};

struct ended_run {
    token_id token;
    run_outcome outcome = run_outcome::completed;
    /// None: the token did not run, or its time was not taken.
    std::optional<std::chrono::nanoseconds> took{};
    std::string* arguments = nullptr;  ///< moved from if the desk keeps it
};

class guard_desk {
public:
    using time_point = std::chrono::steady_clock::time_point;
    using clock = time_point (*)();

    explicit guard_desk(const operation_record& of, clock now = std::chrono::steady_clock::now);

    /// Null: the token is admitted. Else operation_blocked. Throws std::bad_alloc.
    [[nodiscard]] std::exception_ptr admit(const token_id& token);
    void started() noexcept;
    void ended(const ended_run& run) noexcept;

    /// Admits tokens from here on. False: nothing was blocked.
    bool release() noexcept;
    /// Why the operation is blocked; empty if it is not.
    [[nodiscard]] std::string blocked() const;
    /// Adds the counts, and sets the run times if the record has any.
    void add_to(operation_health& health) const noexcept;

private:
    enum class breaker_state : std::uint8_t { closed, open, half_open };

    /// The last runs; true entries are failures.
    struct last_runs {
        std::vector<bool> failed;
        std::size_t next = 0;
        unsigned count = 0;
        unsigned failures = 0;
    };

    struct offence {
        token_id token;
        std::string arguments;
        std::uint64_t took_ns;
        std::uint64_t usual_ns;
        std::chrono::system_clock::time_point since;
    };

    void note_run(bool failed) noexcept;
    void end_probe(std::uint64_t sequence, run_outcome outcome) noexcept;
    void open() noexcept;
    void close() noexcept;
    void judge(const ended_run& run) noexcept;
    [[nodiscard]] bool may_probe(time_point now) const noexcept;
    [[nodiscard]] std::string reason(time_point now) const;
    [[nodiscard]] double failure_rate() const noexcept;

    const operation_record& of_;
    const clock now_;

    mutable std::mutex mutex_;  // guards all below but the last
    std::uint64_t admitted_ = 0, completed_ = 0, failed_ = 0, timed_out_ = 0, killed_ = 0,
                  refused_ = 0, expired_ = 0;

    breaker_state state_ = breaker_state::closed;
    last_runs last_;
    double rate_ = 0;         // when the breaker opened
    unsigned rate_of_ = 0;    // the number of runs behind that rate
    time_point retry_at_{};   // while open
    unsigned succeeded_ = 0;  // probes, while half open
    /// Sequences of the probes that have not ended, while half open; at most `probes`.
    std::vector<std::uint64_t> probing_;

    std::optional<run_history> history_;  // with a quarantine
    std::optional<offence> offence_;      // in quarantine

    std::atomic<std::uint64_t> started_{0};  // relaxed: a count, read beside the others
};

/// The desks of a runtime, by operation.
class guard_table {
public:
    /// Any thread. Throws std::bad_alloc.
    [[nodiscard]] guard_desk& of(const operation_record& operation);
    /// Any thread. Null for an operation of which no token has come yet.
    [[nodiscard]] guard_desk* find(std::uint32_t index) const noexcept {
        return table_.find(index);
    }

private:
    std::mutex making_;  // serializes the threads that add a desk
    operation_table<guard_desk> table_;
};

}  // namespace tokengate::detail
