// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

/// Four kinds of real work, from half a microsecond to tens of them; the waves sample and the benchmarks run them.
///
///     workload::cpu_crunch(60)                       // 440, the sum of the primes below 60
///     workload::fingerprint(workload::data_sort(400))
///
/// Pure functions of their arguments, for any thread. Errors: std::bad_alloc, std::runtime_error with libcrypto's own text.

namespace workload {

using digest = std::array<unsigned char, 32>;

/// The sum of the primes below `limit`, by trial division.
[[nodiscard]] std::uint64_t cpu_crunch(unsigned limit);

/// 300 letters that follow from `seed`, reversed, in upper case, with 4 for A, 3 for E and 1 for I.
[[nodiscard]] std::string string_transform(std::uint64_t seed);

/// `count` integers that follow from `count`, sorted.
[[nodiscard]] std::vector<std::uint32_t> data_sort(std::size_t count);

/// SHA-256 of `seed`, and then of each digest again, `rounds` in all (at least 1).
[[nodiscard]] digest hash_chain(std::string_view seed, unsigned rounds);

/// One number that stands for a result, whatever its type, so that results can be compared and carried alike.
[[nodiscard]] std::uint64_t fingerprint(std::uint64_t number);
[[nodiscard]] std::uint64_t fingerprint(std::string_view text);
[[nodiscard]] std::uint64_t fingerprint(const std::vector<std::uint32_t>& numbers);
[[nodiscard]] std::uint64_t fingerprint(const digest& hash);

}  // namespace workload
