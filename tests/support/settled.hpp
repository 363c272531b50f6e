// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/runtime.hpp>

#include <doctest/doctest.h>

namespace tokengate::test {

/// A runtime whose work is over: all that was admitted has ended, and nothing is held or waits.
inline void check_settled(const runtime& of) {
    const snapshot now = of.snapshot();
    CHECK(now.admitted == now.ended);
    CHECK(now.waiting == 0);
    CHECK(now.waiting_for_permit == 0);
    CHECK(now.held == 0);
    CHECK(now.domains == 0);
    CHECK(now.pins == 0);
}

}  // namespace tokengate::test
