// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/core_context.hpp>
#include <tokengate/detail/group.hpp>
#include <tokengate/detail/token_record.hpp>

namespace tokengate::detail {

/// Counts out a token of the group that has ended on this thread.
void count_out_of_group(core_context& core, token_record& token, token_group& group) noexcept;

}  // namespace tokengate::detail
