// SPDX-License-Identifier: MIT
#pragma once

#include <exception>
#include <string>

namespace tokengate::test {

/// What the call throws, in its own words.
///
///     CHECK(has(what_of<wrong_thread>([&] { runtime.start(); }), "running already"));
template <class Error, class Call>
std::string what_of(Call call) {
    try {
        call();
    } catch (const Error& thrown) {
        return thrown.what();
    } catch (const std::exception& other) {
        return std::string("another exception: ") + other.what();
    }
    return "nothing was thrown";
}

}  // namespace tokengate::test
