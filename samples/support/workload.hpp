// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

/// Four kinds of real work, from half a microsecond to tens of microseconds. The waves sample and
/// the benchmarks run them.
///
///     workload::cpu_crunch(60)                       // 440, the sum of the primes below 60
///     workload::fingerprint(workload::data_sort(400))
///
/// Thread safety: pure functions, for any thread. Errors: std::bad_alloc, std::runtime_error with
/// libcrypto's own text.

namespace workload {

using digest = std::array<unsigned char, 32>;

/// The sum of the primes below `limit`, by trial division.
[[nodiscard]] std::uint64_t cpu_crunch(unsigned limit);

/// 300 letters generated from `seed`, reversed, in upper case, with 4 for A, 3 for E and 1 for I.
[[nodiscard]] std::string string_transform(std::uint64_t seed);

/// `count` integers generated from `count`, sorted.
[[nodiscard]] std::vector<std::uint32_t> data_sort(std::size_t count);

/// The SHA-256 of `seed`, then of the digest before, `rounds` times in all (at least once).
[[nodiscard]] digest hash_chain(std::string_view seed, unsigned rounds);

/// Reduces a result of any type to one number, so that results of all types can be compared and
/// stored in the same way.
[[nodiscard]] std::uint64_t fingerprint(std::uint64_t number);
[[nodiscard]] std::uint64_t fingerprint(std::string_view text);
[[nodiscard]] std::uint64_t fingerprint(const std::vector<std::uint32_t>& numbers);
[[nodiscard]] std::uint64_t fingerprint(const digest& hash);

}  // namespace workload
