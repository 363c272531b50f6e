// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/token_info.hpp>

#include <string_view>

/// The token whose body is running on this thread. Outside of every token each of these throws `wrong_thread`.
///
///     log(tg::this_token::id().text(), tg::this_token::core());

namespace tokengate::this_token {

[[nodiscard]] token_id id();

/// The core it runs on, the same for its whole life; `control_core` in the main coroutine.
[[nodiscard]] unsigned core();

/// The executor it runs on: `core()` unless workers_per_core is above 1.
[[nodiscard]] unsigned executor();

/// The seed it inherited from its lead, hexadecimal: as long as runtime_options::digest says. Empty outside of a conducted
/// chain. Valid while the token lives; computed at the first look within a domain.
[[nodiscard]] std::string_view seed();

[[nodiscard]] std::string_view operation();

}  // namespace tokengate::this_token
