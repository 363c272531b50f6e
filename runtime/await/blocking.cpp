// SPDX-License-Identifier: MIT
#include <tokengate/blocking.hpp>

#include "executor/shared.hpp"

#include <cerrno>
#include <system_error>

namespace tokengate::detail {

namespace {
constexpr const char* doing = "make a blocking call";
}

bool blocking_wait::await_suspend(std::coroutine_handle<> awaiting) {
    core_context& core = enter(doing);
    suspend(core, awaiting, [](core_context& at, wait_point& point) noexcept {
        auto& self = static_cast<blocking_wait&>(static_cast<suspension&>(point));
        // The pool's mutex orders this stop and the pool thread that takes the call. A call that
        // has begun wakes the token itself.
        self.withdrawn_ = at.runtime->blocking->withdraw(self);
        if (self.withdrawn_) self.wake();
    });
    // After submit, a pool thread may perform the call and post the wake-up to this loop's mailbox.
    // This loop does not take its mail before this function returns.
    if (core.runtime->blocking->submit(*this)) return true;
    wait_is_over();
    throw std::system_error(
        EAGAIN, std::generic_category(),
        "tg::blocking: there is no thread for blocking calls and none could be made");
}

void blocking_wait::throw_if_withdrawn() const {
    if (withdrawn_) throw_stopped(*token, doing);
}

}  // namespace tokengate::detail
