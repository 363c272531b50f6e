// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/token_record.hpp>

#include <string_view>

/// The operations of the process, beyond what operation.hpp says of one. Any thread, under one mutex.

namespace tokengate::detail {

/// Registers a runtime; throws configuration_error if living operations contradict each other.
void check_operations();
void forget_runtime() noexcept;

/// The name as an operation has it, for as long as the process lives; null if no operation has been named so.
const char* operation_name_of(std::string_view name);

/// The operation that `run` gives its coroutine to.
const operation_record& main_operation();

}  // namespace tokengate::detail
