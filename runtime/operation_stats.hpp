// SPDX-License-Identifier: MIT
#pragma once

#include "context.hpp"
#include "histogram.hpp"

#include <tokengate/detail/relaxed.hpp>

#include <array>
#include <atomic>
#include <cstddef>
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
    relaxed<std::uint64_t> refused{};
    relaxed<std::uint64_t> retries{};
    histogram queue_wait;
    histogram run_time;
};

class stats_table {
public:
    stats_table() noexcept = default;
    ~stats_table();
    stats_table(const stats_table&) = delete;
    stats_table& operator=(const stats_table&) = delete;

    /// The owner. Null where there is no memory.
    [[nodiscard]] operation_stats* of(std::uint32_t index) noexcept {
        if (const chunk* rows = chunks_[index / chunk_size].load(std::memory_order_relaxed)) [[likely]]
            if (operation_stats* known = (*rows)[index % chunk_size].load(std::memory_order_relaxed)) [[likely]]
                return known;
        return make(index);
    }

    /// Any thread. Null for an operation that has not been here.
    [[nodiscard]] const operation_stats* find(std::uint32_t index) const noexcept {
        const chunk* rows = chunks_[index / chunk_size].load(std::memory_order_acquire);  // pairs with make()
        return rows ? (*rows)[index % chunk_size].load(std::memory_order_acquire) : nullptr;
    }

    [[nodiscard]] std::uint64_t lost() const noexcept { return lost_.load(); }

private:
    static constexpr std::size_t chunk_size = 256;
    using chunk = std::array<std::atomic<operation_stats*>, chunk_size>;

    operation_stats* make(std::uint32_t index) noexcept;

    /// These and those in the chunks: stored once by the owner (release), loaded by `find` (acquire).
    std::array<std::atomic<chunk*>, most_operations / chunk_size> chunks_{};
    relaxed<std::uint64_t> lost_{};
};

}  // namespace tokengate::detail
