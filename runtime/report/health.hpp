// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/token_info.hpp>

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

/// How operations do, from what the runtime has counted: by its executors where metrics are on, else by the desks of
/// breakers and quarantines. Any thread. Operations of one name, which followed each other, are one; the runtime's own are
/// left out. Throws std::bad_alloc.

namespace tokengate::detail {

struct shared_state;

[[nodiscard]] health grade_of(std::uint64_t succeeded, std::uint64_t failed) noexcept;

// The two that take a name: somebody has defined an operation of that name.

/// By name: those of which something has been counted, and those that are held by their name.
[[nodiscard]] std::vector<operation_health> health_of_all(const shared_state& runtime);
[[nodiscard]] std::optional<operation_health> health_of(const shared_state& runtime,
                                                        std::string_view name);

/// Lets in what a breaker or a quarantine keeps out; false if nothing did.
bool release_guards(const shared_state& runtime, std::string_view name);

/// What `runtime::snapshot` has, but for the operations. Any thread.
[[nodiscard]] snapshot counts_of(shared_state& runtime);

}  // namespace tokengate::detail
