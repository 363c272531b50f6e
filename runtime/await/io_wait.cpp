// SPDX-License-Identifier: MIT
#include <tokengate/detail/io_wait.hpp>

#include "executor/executor.hpp"

#include <cerrno>

namespace tokengate::detail {

bool io_wait::await_suspend(std::coroutine_handle<> awaiting) {
    core_context& core = enter(what_);
    core.host->loop.start(*this);  // completes nothing before this function returns
    suspend(core, awaiting, [](core_context& at, wait_point& point) noexcept {
        at.host->loop.cancel(static_cast<io_wait&>(static_cast<suspension&>(point)));
    });
    return true;
}

void io_wait::complete(event_loop&, io_request& request, std::int32_t result, std::uint32_t flags,
                       bool last) noexcept {
    auto& self = static_cast<io_wait&>(request);
    self.result_ = result;
    self.flags_ = flags;
    if (last) self.wake();
}

std::int32_t io_wait::finished() {
    // A cancelled operation ends with one of these, depending on its progress. Only a stop of the
    // token or the timeout of the wait cancels it.
    if ((result_ == -ECANCELED || result_ == -EINTR) && cancel_wanted && token)
        throw_stopped(*token, what_);
    return result_;
}

}  // namespace tokengate::detail
