// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/hook.hpp>

#include <cstddef>
#include <cstdint>

struct io_uring_sqe;

/// One operation that the kernel has been asked for, or is about to be. Lies where it was made (a suspended frame, or
/// an object that outlives it) from `start` until `completed` was called for the last time: until the kernel's last
/// completion.
///
/// Who makes one fills in `entry` by liburing's io_uring_prep functions (its user_data is the loop's) and `completed`.
/// All on one loop's thread. The loop knows a request by a ticket (slot and generation), never by its address: a completion
/// that comes late cannot meet another request.

namespace tokengate::detail {

/// Bytes that the kernel moves in one request at most (MAX_RW_COUNT).
inline constexpr std::size_t most_at_once = 0x7ffff000;

class event_loop;

struct io_request : hook {
    enum class phase : std::uint8_t { idle, queued, in_flight };

    /// Every completion, `last` or with more to come (multishot, zero-copy send). On the loop's thread, outside of every
    /// token. After the last one the request is idle, and may be started again from within.
    void (*completed)(event_loop&, io_request&, std::int32_t result, std::uint32_t flags,
                      bool last) noexcept;

    alignas(8) std::byte entry[64];  ///< the submission entry, as it will be copied to the queue
    std::uint64_t ticket = 0;        // the loop's, like what follows
    phase now = phase::idle;
    bool cancel_wanted = false;
    bool in_cancels = false;  ///< linked in the loop's queue of cancellations

    [[nodiscard]] io_uring_sqe* sqe() noexcept { return reinterpret_cast<io_uring_sqe*>(entry); }
    [[nodiscard]] bool pending() const noexcept { return now != phase::idle; }
};

}  // namespace tokengate::detail
