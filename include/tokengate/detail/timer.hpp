// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/hook.hpp>

#include <cstdint>

namespace tokengate::detail {

/// A point in time at which a loop calls `run`; see runtime/loop/timer_wheel.hpp. Whoever embeds it withdraws it before it goes.
struct timer : hook {
    std::uint64_t deadline_ns = 0;  // on the steady clock; constant while armed
    hook** link = nullptr;  // the pointer to this timer in its slot's list; null while not armed

    [[nodiscard]] bool armed() const noexcept { return link != nullptr; }
};

}  // namespace tokengate::detail
