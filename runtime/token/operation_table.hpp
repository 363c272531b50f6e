// SPDX-License-Identifier: MIT
#pragma once

#include "token/context.hpp"

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

/// A T for each operation that has appeared, by the operation's index.
///
///     if (const T* known = table.find(operation.index)) …           // any thread, without a lock
///     // one thread at a time; once for each index:
///     T& made = table.add(operation.index, std::make_unique<T>());
///
/// An added T stays where it is for as long as the table lives. `add` throws std::bad_alloc; then
/// nothing has changed.

namespace tokengate::detail {

template <class T>
class operation_table {
public:
    operation_table() noexcept = default;
    operation_table(const operation_table&) = delete;
    operation_table& operator=(const operation_table&) = delete;
    ~operation_table() {
        for (const auto& rows : chunks_) {
            const std::unique_ptr<chunk> owned(rows.load(std::memory_order_relaxed));
            if (!owned) continue;
            for (const auto& each : *owned) delete each.load(std::memory_order_relaxed);
        }
    }

    [[nodiscard]] T* find(std::uint32_t index) const noexcept {
        // acquire: pairs with the stores in add(), like the load below.
        const chunk* rows = chunks_[index / chunk_size].load(std::memory_order_acquire);
        return rows ? (*rows)[index % chunk_size].load(std::memory_order_acquire) : nullptr;
    }

    T& add(std::uint32_t index, std::unique_ptr<T> made) {
        std::atomic<chunk*>& place = chunks_[index / chunk_size];
        if (!place.load(std::memory_order_relaxed))
            place.store(new chunk{}, std::memory_order_release);
        T* added = made.release();
        (*place.load(std::memory_order_relaxed))[index % chunk_size].store(
            added, std::memory_order_release);
        return *added;
    }

private:
    static constexpr std::size_t chunk_size = 256;
    using chunk = std::array<std::atomic<T*>, chunk_size>;

    /// These pointers and those in the chunks: stored once by `add` (release), loaded by `find`
    /// (acquire).
    std::array<std::atomic<chunk*>, most_operations / chunk_size> chunks_{};
};

}  // namespace tokengate::detail
