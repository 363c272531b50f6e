// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/token_record.hpp>

#include <string_view>

/// All operations of the process; operation.hpp describes a single one. Any thread; one mutex
/// guards them.

namespace tokengate::detail {

/// Registers a runtime. Throws configuration_error if living operations contradict each other.
void check_operations();
void forget_runtime() noexcept;

/// The name as stored in an operation's record, valid for as long as the process lives. Null if no
/// operation has had that name.
const char* operation_name_of(std::string_view name);

/// The operation of the coroutine that `run` runs.
const operation_record& main_operation();

}  // namespace tokengate::detail
