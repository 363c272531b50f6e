// SPDX-License-Identifier: MIT
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

// A future that failed: its reader looks at the exception and lets go of it, then the loop lets go of the promise and frees it.
// What orders the two is the count within std::exception_ptr, which lives in libstdc++, built without ThreadSanitizer.
extern "C" const char*
__tsan_default_suppressions() {  // NOLINT(bugprone-reserved-identifier): the sanitizer's own name
    return "race:std::__future_base::_Result<*>::_M_destroy\n";
}
