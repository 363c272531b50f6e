// SPDX-License-Identifier: MIT
#pragma once

#include "base/histogram.hpp"
#include "token/operation_table.hpp"

#include <tokengate/detail/relaxed.hpp>
#include <tokengate/detail/token_record.hpp>

#include <cstdint>

/// What one executor knows of each operation: what became of its tokens here, how long they waited and ran.
///
///     if (operation_stats* known = stats.of(operation.index)) known->started.add(1);     // the executor's thread
///     if (const operation_stats* known = stats.find(index)) sum += known->started.load();   // any thread
///
/// The thread that hosts the executor writes, without a lock and without sharing; anyone reads meanwhile. Memory is taken
/// when an operation first appears, some 10 KiB for each of them, and kept as long as the table. Where there is none, what
/// happened is not counted, and `lost` says how often.

namespace tokengate::detail {

struct operation_stats {
    relaxed<std::uint64_t> admitted{};
    relaxed<std::uint64_t> started{};
    relaxed<std::uint64_t> completed{};
    relaxed<std::uint64_t> failed{};
    relaxed<std::uint64_t> killed{};
    relaxed<std::uint64_t> timed_out{};
    relaxed<std::uint64_t> expired{};
    relaxed<std::uint64_t> refused{};
    relaxed<std::uint64_t> retries{};
    histogram queue_wait;
    histogram run_time;
};

/// How a run ended. A refused one did not run, nor did one that had expired: its time was over before it had started.
enum class run_outcome : std::uint8_t { completed, failed, timed_out, killed, refused, expired };

/// Of a token whose state is final.
[[nodiscard]] run_outcome outcome_of(const token_record& token) noexcept;

class stats_table {
public:
    /// The owner. Null where there is no memory.
    [[nodiscard]] operation_stats* of(std::uint32_t index) noexcept {
        if (operation_stats* known = table_.find(index)) [[likely]]
            return known;
        return make(index);
    }

    /// Any thread. Null for an operation that has not been here.
    [[nodiscard]] const operation_stats* find(std::uint32_t index) const noexcept {
        return table_.find(index);
    }

    [[nodiscard]] std::uint64_t lost() const noexcept { return lost_.load(); }

private:
    operation_stats* make(std::uint32_t index) noexcept;

    operation_table<operation_stats> table_;
    relaxed<std::uint64_t> lost_{};
};

}  // namespace tokengate::detail
