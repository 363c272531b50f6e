// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/hook.hpp>

#include <cstddef>
#include <cstdint>

struct io_uring_sqe;

/// One request to the kernel, submitted or about to be. It lies where it was made: in a suspended
/// frame, or in an object that outlives it. It stays there from `start` until the last call of
/// `completed`, which is the kernel's last completion.
///
/// The maker fills in `completed`, and `entry` with liburing's io_uring_prep functions; the loop
/// sets the entry's user_data. All calls are on one loop's thread. The loop identifies a request by
/// a ticket (slot and generation), never by its address, so a late completion cannot reach another
/// request.

namespace tokengate::detail {

/// The most bytes that the kernel moves in one request (MAX_RW_COUNT).
inline constexpr std::size_t most_at_once = 0x7ffff000;

class event_loop;

struct io_request : hook {
    enum class phase : std::uint8_t { idle, queued, in_flight };

    /// Called for every completion; `last` is false if more will follow (multishot, zero-copy
    /// send). Runs on the loop's thread, outside of every token. After the last call the request is
    /// idle and may be started again from within the call.
    void (*completed)(event_loop&, io_request&, std::int32_t result, std::uint32_t flags,
                      bool last) noexcept;

    /// The submission entry, in the form in which the loop copies it to the queue.
    alignas(8) std::byte entry[64];
    std::uint64_t ticket = 0;  // the loop's, and so are the next members
    phase now = phase::idle;
    bool cancel_wanted = false;
    bool in_cancels = false;  ///< linked in the loop's queue of cancellations

    [[nodiscard]] io_uring_sqe* sqe() noexcept { return reinterpret_cast<io_uring_sqe*>(entry); }
    [[nodiscard]] bool pending() const noexcept { return now != phase::idle; }
};

}  // namespace tokengate::detail
