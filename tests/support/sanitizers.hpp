// SPDX-License-Identifier: MIT
#pragma once

/// What the tests are built with, for those whose size must follow it.

namespace tokengate::test {

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define TOKENGATE_TEST_UNDER_TSAN
#endif
#if __has_feature(address_sanitizer)
#define TOKENGATE_TEST_UNDER_ASAN
#endif
#endif
#if defined(TOKENGATE_TEST_UNDER_TSAN) || defined(__SANITIZE_THREAD__)
inline constexpr bool under_tsan = true;
#else
inline constexpr bool under_tsan = false;
#endif
#if defined(TOKENGATE_TEST_UNDER_ASAN) || defined(__SANITIZE_ADDRESS__)
inline constexpr bool under_asan = true;
#else
inline constexpr bool under_asan = false;
#endif

}  // namespace tokengate::test
