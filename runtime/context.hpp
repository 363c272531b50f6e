// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/core_context.hpp>

#include <cstddef>
#include <cstdint>

/// The contexts of all threads (core_context.hpp), as a whole. Any thread.

namespace tokengate::detail {

inline constexpr std::size_t most_operations = 65536;  ///< distinct ones over the life of the process
inline constexpr std::size_t most_contexts = 16384;    ///< threads at a time that make tokens

/// Frames of an operation's tokens that exist now, over all threads. Exact when none is being made or destroyed.
[[nodiscard]] std::int64_t live_frames_of(const operation_record& operation) noexcept;

}  // namespace tokengate::detail
