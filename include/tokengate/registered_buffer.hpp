// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <memory>
#include <span>

/// Memory that the kernel has looked up and pinned once, instead of at each read and write: worth it for direct I/O.
///
///     tg::registered_buffer page(4096);                      // on a loop
///     const std::size_t came = co_await data.read_at(page, offset);
///     use(page.bytes().first(came));
///
/// Zero at first, and begins at a page. It belongs to the loop that it was made on: tokens of that loop profit;
/// elsewhere, and where the kernel did not register it (older than 5.19, or no slot is left), it is memory like any
/// other. May be moved, and destroyed on any thread, when no operation uses it. It counts against RLIMIT_MEMLOCK,
/// unless the process may lock memory (CAP_IPC_LOCK); destroyed elsewhere than on its loop it does so until its slot is
/// used again or the loop has ended. Errors: wrong_thread, configuration_error (no bytes), std::bad_alloc;
/// ring_unavailable when the limit is reached.

namespace tokengate {

namespace detail {
class buffer_slots;
class executor;
}  // namespace detail

class registered_buffer {
public:
    static constexpr unsigned slots_of_a_loop = 1024;

    explicit registered_buffer(std::size_t size);
    registered_buffer(registered_buffer&& other) noexcept;
    registered_buffer& operator=(registered_buffer&& other) noexcept;
    ~registered_buffer();

    [[nodiscard]] std::span<std::byte> bytes() const noexcept { return {memory_, size_}; }
    [[nodiscard]] bool is_registered() const noexcept { return slot_ >= 0; }

    /// For operations that start on this thread: its number in the loop's ring, or -1.
    [[nodiscard]] int slot_here() const noexcept;

private:
    void swap(registered_buffer& other) noexcept;

    std::byte* memory_ = nullptr;
    std::size_t size_ = 0;
    int slot_ = -1;
    const detail::executor* home_ = nullptr;  // compared only: it may be gone
    std::shared_ptr<detail::buffer_slots> slots_;
};

}  // namespace tokengate
