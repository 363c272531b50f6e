// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/options.hpp>

/// The gate of a runtime, as far as it can be turned while the runtime runs.
///
///     runtime.gate().storage_limit(tg::storage::fast, 80);
///
/// A reference to its runtime; must not outlive it. Thread-safe. Errors: configuration_error, before anything has changed.

namespace tokengate {

namespace detail {
struct runtime_core;
}

class gate_control {
public:
    explicit gate_control(detail::runtime_core& of) noexcept : of_(&of) {}

    /// How many operations of a tier may run at a time, at least 1. Lowered below what is running, it admits nothing more
    /// until that fits; raised, it lets those that wait pass at once.
    void storage_limit(storage tier, int limit);
    [[nodiscard]] int storage_limit(storage tier) const;

    /// How many hold a permit of the tier now. Those that wait for other tokens have given theirs up meanwhile.
    [[nodiscard]] int storage_in_use(storage tier) const;

private:
    detail::runtime_core* of_;
};

}  // namespace tokengate
