// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/options.hpp>

#include <array>
#include <span>
#include <string>
#include <string_view>

/// The digest that names a seed domain. It is the same one that the prototype in Python computes:
///
///     const char* calls[] = {"parse", "store"};
///     frozen_call_list(calls)             // ('parse', 'store')
///     // 6922d4a9…, SHA-256 of "ingest_42_7:('parse', 'store')" in hexadecimal:
///     seed_digest("ingest_42_7", calls)
///
/// Pure functions, for any thread. A digest is computed at its first use. Routing never needs one,
/// and two domains whose short digests collide remain two. Errors: std::runtime_error with
/// libcrypto's own text, std::bad_alloc.

namespace tokengate::detail {

using digest_text = std::array<char, 64>;

/// The names, which are printable ASCII, in the form in which Python prints a tuple of strings.
[[nodiscard]] std::string frozen_call_list(std::span<const char* const> names);

/// Lower-case hexadecimal digits, without a terminator.
[[nodiscard]] digest_text seed_digest(std::string_view token_id,
                                      std::span<const char* const> calls);

/// The part of `digest` that `policy` shows. `digest` must outlive the view.
[[nodiscard]] constexpr std::string_view shown(const digest_text& digest,
                                               digest_policy policy) noexcept {
    std::string_view all(digest.data(), digest.size());
    switch (policy) {
        case digest_policy::short_: return all.substr(0, 16);
        case digest_policy::minimal: return all.substr(0, 8);
        case digest_policy::full: break;
    }
    return all;
}

}  // namespace tokengate::detail
