// SPDX-License-Identifier: MIT
#pragma once

/// What the tests are built with, for those whose size or means must follow it: constants, and macros for what must not even
/// be seen by the compiler.

#if defined(__SANITIZE_THREAD__)
#define TOKENGATE_TEST_UNDER_TSAN
#elif defined(__SANITIZE_ADDRESS__)
#define TOKENGATE_TEST_UNDER_ASAN
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define TOKENGATE_TEST_UNDER_TSAN
#elif __has_feature(address_sanitizer)
#define TOKENGATE_TEST_UNDER_ASAN
#endif
#endif

namespace tokengate::test {

#ifdef TOKENGATE_TEST_UNDER_TSAN
inline constexpr bool under_tsan = true;
#else
inline constexpr bool under_tsan = false;
#endif
#ifdef TOKENGATE_TEST_UNDER_ASAN
inline constexpr bool under_asan = true;
#else
inline constexpr bool under_asan = false;
#endif

}  // namespace tokengate::test
