// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/token_record.hpp>
#include <tokengate/gate.hpp>
#include <tokengate/token_info.hpp>

#include <cstdint>

/// Which tokens an operator means. A token is matched by whoever has it in hand.

namespace tokengate::detail {

/// A token of a user's operation or task, not one that the library makes for itself.
[[nodiscard]] bool is_users(const token_record& token) noexcept;

/// Whether a token is one of those. `chain` is not decided here, except for the lead before it starts: see in_chain.
[[nodiscard]] bool selects(const selection& what, const token_record& token) noexcept;

/// Whether a conducted token belongs to the chain of that lead, or of a call with a time limit or retries that made it. For
/// whoever has it in hand. On the thread of its domain also whether it belongs to a chain inside of that one; elsewhere the
/// domain that it keeps alive is all that can be looked at.
[[nodiscard]] bool in_chain(const token_record& token, std::uint64_t lead_sequence,
                            bool on_its_thread) noexcept;

/// The same by what can be seen from outside, of a token that is not the runtime's own.
[[nodiscard]] bool means(const selection& what, const token_info& info) noexcept;

/// Whether the two mean the same tokens.
[[nodiscard]] bool same_selection(const selection& a, const selection& b) noexcept;

/// A selection that lives on: the name in it is an operation's own. Throws configuration_error if nobody defined it.
[[nodiscard]] selection settled(const selection& what);

}  // namespace tokengate::detail
