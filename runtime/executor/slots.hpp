// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/token_info.hpp>

#include <cstdint>
#include <functional>
#include <memory>

/// The runtimes of the process by number: a thread that knows no runtime reaches a token's runtime
/// here.
///
/// Threads: all members from any, under one mutex of the process.

namespace tokengate::detail {

struct shared_state;

/// The number of a living runtime, which its tokens hold; 0 is none.
class slot_lease {
public:
    slot_lease(shared_state& of, const std::function<void(const failure&)>& failure_handler);
    ~slot_lease();
    slot_lease(const slot_lease&) = delete;
    slot_lease& operator=(const slot_lease&) = delete;
    [[nodiscard]] std::uint16_t slot() const noexcept { return slot_; }
    /// From here on `with_runtime` finds nothing. Waits for a visit under way.
    void retire() const noexcept;

private:
    std::uint16_t slot_;
};

/// Calls `visit` with the living runtime that has this slot. The runtime lives at least until
/// `visit` returns.
void with_runtime(std::uint16_t slot, const std::function<void(shared_state&)>& visit);

/// The failure handler of the runtime that has this slot; null once the runtime is gone.
std::shared_ptr<const std::function<void(const failure&)>> failure_handler_of(std::uint16_t slot);

}  // namespace tokengate::detail
