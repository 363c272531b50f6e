// SPDX-License-Identifier: MIT
#pragma once

#include <exception>
#include <string>

namespace tokengate::detail {

/// The message of a failure. Throws std::bad_alloc.
inline std::string what_of(const std::exception_ptr& failure) {
    try {
        std::rethrow_exception(failure);
    } catch (const std::exception& thrown) {
        return thrown.what();
    } catch (...) {
        return "an exception that is no std::exception";
    }
}

}  // namespace tokengate::detail
