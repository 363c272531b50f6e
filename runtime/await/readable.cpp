// SPDX-License-Identifier: MIT
#include <tokengate/readable.hpp>

#include <liburing.h>
#include <poll.h>

#include <string>
#include <system_error>

namespace tokengate::detail {

readable_wait::readable_wait(int descriptor) noexcept
    : io_wait("wait for a descriptor to be readable"), descriptor_(descriptor) {
    io_uring_prep_poll_add(sqe(), descriptor, POLLIN);
}

void readable_wait::await_resume() {
    const int result = finished();
    if (result < 0)
        throw std::system_error(-result, std::system_category(),
                                "tg::readable: descriptor " + std::to_string(descriptor_) +
                                    " cannot be polled");
}

}  // namespace tokengate::detail
