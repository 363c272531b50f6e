// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/token_record.hpp>
#include <tokengate/gate.hpp>
#include <tokengate/token_info.hpp>

#include <cstdint>

/// The tokens that an operator selects. The thread that has a token in hand matches it.

namespace tokengate::detail {

/// A token of a user's operation or task, not one that the library makes for itself.
[[nodiscard]] bool is_users(const token_record& token) noexcept;

/// Whether a token is in the selection. A `chain` is decided here only for the lead before it
/// starts; see in_chain.
[[nodiscard]] bool selects(const selection& what, const token_record& token) noexcept;

/// Whether a conducted token belongs to the chain of that lead, or to the chain of a call with a
/// timeout or retries that made the lead. For the thread that has the token in hand. On the thread
/// of the token's domain, also whether it belongs to a chain inside that one. On another thread,
/// only the domain that the token keeps alive can be read.
[[nodiscard]] bool in_chain(const token_record& token, std::uint64_t lead_sequence,
                            bool on_its_thread) noexcept;

/// Whether a selection applies to a token of a user, by the fields of its token_info.
[[nodiscard]] bool means(const selection& what, const token_info& info) noexcept;

/// Whether two selections select the same tokens.
[[nodiscard]] bool same_selection(const selection& a, const selection& b) noexcept;

/// A selection that may be kept: its name is that of the operation itself. Throws
/// configuration_error if no operation has that name.
[[nodiscard]] selection settled(const selection& what);

}  // namespace tokengate::detail
