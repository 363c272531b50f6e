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

/// Breakers and quarantines: what a runtime knows of an operation that has one, and whether the gate lets its tokens in.
///
///     if (std::exception_ptr why = desk.admit(token.id())) refuse(token, why);   // operation_blocked
///     desk.ended({.token = token.id(), .outcome = run_outcome::failed});
///
/// A breaker is closed; it opens when, of the last `window` runs, at least `min_runs`, a larger share than `failure_rate`
/// has failed. It refuses everything for `open_for`, and is half open from the first token that comes then: `probes` tokens
/// pass, and it closes with an empty window when all have succeeded, opens again when one has failed. One that neither
/// succeeded nor failed gives its place to another. There is no timer: it is looked at when a token comes or ends.
/// While it is not closed, the ends of those that had come before count for health only.
///
/// Thread-safe, under a mutex for each desk: only guarded operations pay for it.

namespace tokengate::detail {

/// How long the runs of an operation take: a histogram that forgets. When it has 16,384 of them, all its counts are halved,
/// so that what an operation did long ago does not stand against what it does now; a single long run stays a small share.
class run_history : private histogram_scheme {
public:
    /// `quantile`: the one that is kept up to date at each run, for a step or two.
    explicit run_history(double quantile) noexcept : quantile_(quantile) {}

    void record(std::uint64_t ns) noexcept;
    /// Runs so far, the forgotten ones too.
    [[nodiscard]] std::uint64_t runs() const noexcept { return runs_; }
    /// To 1/32 of it; 0 if there is none.
    [[nodiscard]] std::uint64_t quantile() const noexcept {
        return count_ == 0 ? 0 : middle_of(at_);
    }
    /// Any other, by looking at everything.
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
    std::uint32_t up_to_ = 0;  // how many lie in the buckets up to at_
    std::size_t at_ = 0;       // where the quantile lies
};

struct ended_run {
    token_id token;
    run_outcome outcome = run_outcome::completed;
    std::optional<std::chrono::nanoseconds>
        took{};                        ///< none: it did not run, or nobody took the time
    std::string* arguments = nullptr;  ///< taken if it is to be kept
};

class guard_desk {
public:
    using time_point = std::chrono::steady_clock::time_point;
    using clock = time_point (*)();

    explicit guard_desk(const operation_record& of, clock now = std::chrono::steady_clock::now);

    /// Null: it may come in. Else operation_blocked. Throws std::bad_alloc.
    [[nodiscard]] std::exception_ptr admit(const token_id& token);
    void started() noexcept;
    void ended(const ended_run& run) noexcept;

    /// From here on tokens pass. False: nothing was blocked.
    bool release() noexcept;
    /// Why it is blocked; empty if it is not.
    [[nodiscard]] std::string blocked() const;
    /// Adds counts, and run times if nobody else knows better.
    void add_to(operation_health& health) const noexcept;

private:
    enum class breaker_state : std::uint8_t { closed, open, half_open };

    /// The last runs; true are failures.
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
    double rate_ = 0;         // when it opened
    unsigned rate_of_ = 0;    // of how many runs
    time_point retry_at_{};   // while open
    unsigned succeeded_ = 0;  // probes, while half open
    /// Sequences of the probes on their way, while half open; at most `probes`.
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
    /// Any thread. Null for an operation that has not been here.
    [[nodiscard]] guard_desk* find(std::uint32_t index) const noexcept {
        return table_.find(index);
    }

private:
    std::mutex making_;  // of those who add
    operation_table<guard_desk> table_;
};

}  // namespace tokengate::detail
