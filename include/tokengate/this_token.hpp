// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/token_info.hpp>

#include <string_view>

/// Functions about the token whose body runs on this thread.
///
///     log(tg::this_token::id().text(), tg::this_token::core());
///
/// Errors: wrong_thread outside of every token. std::runtime_error from `seed` if libcrypto cannot
/// compute the digest.

namespace tokengate::this_token {

[[nodiscard]] token_id id();

/// The core that the token runs on, the same for its whole life; `control_core` in the main
/// coroutine.
[[nodiscard]] unsigned core();

/// The executor that the token runs on: equal to `core()` unless workers_per_core is above 1.
[[nodiscard]] unsigned executor();

/// The seed that the token inherited from its lead, in hexadecimal, as long as
/// runtime_options::digest selects. Empty outside of a conducted chain. It is valid while the token
/// lives; the first call in a domain computes it.
[[nodiscard]] std::string_view seed();

[[nodiscard]] std::string_view operation();

}  // namespace tokengate::this_token
