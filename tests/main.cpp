// SPDX-License-Identifier: MIT
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

// A ring's memory is mapped by liburing's own system calls, of which ThreadSanitizer does not hear: where a ring lies at the
// address of an earlier one, it takes the two for one.
//
// A future that failed: its reader looks at the exception and lets go of it, then the loop lets go of the promise and frees it.
// What orders the two is the count within std::exception_ptr, which lives in libstdc++, built without ThreadSanitizer.
extern "C" const char*
__tsan_default_suppressions() {  // NOLINT(bugprone-reserved-identifier): the sanitizer's own name
    return "race:^io_uring_\n"
           "race:std::__future_base::_Result<*>::_M_destroy\n";
}
