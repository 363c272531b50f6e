// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/token_info.hpp>

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

/// The health of operations, from what the runtime has counted. If metrics are on, the executors
/// count; else only the guards (breakers and quarantines) do. Operations of the same name, defined
/// one after the other, count as one. The runtime's own operations are left out.
///
/// Thread safety: any thread. Errors: std::bad_alloc.

namespace tokengate::detail {

struct shared_state;

[[nodiscard]] health grade_of(std::uint64_t succeeded, std::uint64_t failed) noexcept;

// Precondition of the two functions that take a name: an operation of that name has been defined.

/// Sorted by name: the operations of which something has been counted, those that are paused by
/// name, and those that a guard blocks.
[[nodiscard]] std::vector<operation_health> health_of_all(const shared_state& runtime);
[[nodiscard]] std::optional<operation_health> health_of(const shared_state& runtime,
                                                        std::string_view name);

/// Ends the blocking by a breaker or a quarantine; false if neither blocked the operation.
bool release_guards(const shared_state& runtime, std::string_view name);

/// What `runtime::snapshot` returns, without the operations. Any thread.
[[nodiscard]] snapshot counts_of(shared_state& runtime);

}  // namespace tokengate::detail
