// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/hook.hpp>

#include <cstdint>

namespace tokengate::detail {

/// A point in time at which a loop calls `run`; see runtime/loop/timer_wheel.hpp. The embedding
/// object withdraws the timer before it is destroyed.
struct timer : hook {
    std::uint64_t deadline_ns = 0;  // on the steady clock; constant while armed
    // The pointer to this timer in its slot's list. Null while the timer is not armed.
    hook** link = nullptr;

    [[nodiscard]] bool armed() const noexcept { return link != nullptr; }
};

}  // namespace tokengate::detail
