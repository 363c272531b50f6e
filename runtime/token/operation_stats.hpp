// SPDX-License-Identifier: MIT
#pragma once

#include "base/histogram.hpp"
#include "token/operation_table.hpp"

#include <tokengate/detail/relaxed.hpp>
#include <tokengate/detail/token_record.hpp>

#include <cstdint>

/// One executor's counts for each operation: how its tokens ended here, how long they waited and
/// how long they ran.
///
///     // the executor's thread
///     if (operation_stats* known = stats.of(operation.index)) known->started.add(1);
///     // any thread
///     if (const operation_stats* known = stats.find(index)) sum += known->started.load();
///
/// The thread that hosts the executor writes, without a lock and without sharing. Any thread may
/// read meanwhile. Memory is allocated when an operation first appears, about 10 KiB for each, and
/// kept as long as the table. If there is no memory, the event is not counted, and `lost` counts
/// these cases.

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

/// How a run ended. A `refused` token did not run, and neither did an `expired` one: its time was
/// over before it started.
enum class run_outcome : std::uint8_t { completed, failed, timed_out, killed, refused, expired };

/// For a token whose state is final.
[[nodiscard]] run_outcome outcome_of(const token_record& token) noexcept;

class stats_table {
public:
    /// Owner only. Null if there is no memory.
    [[nodiscard]] operation_stats* of(std::uint32_t index) noexcept {
        if (operation_stats* known = table_.find(index)) [[likely]]
            return known;
        return make(index);
    }

    /// Any thread. Null for an operation that has not appeared here.
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
