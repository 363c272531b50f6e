// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <memory>
#include <span>

/// A registered buffer is memory that the kernel resolves and pins once, instead of at each read
/// and write. It pays for direct I/O. The memory is zero at first and begins at a page. The buffer
/// belongs to the loop that it was made on, and only tokens of that loop profit. On other loops it
/// is memory like any other. If the kernel did not register it (older than 5.19, or no slot is
/// left), it is that on every loop.
///
///     tg::registered_buffer page(4096);  // on a loop
///     const std::size_t came = co_await data.read_at(page, offset);
///     use(page.bytes().first(came));
///
/// Lifetime: If no operation uses it, a buffer may be moved, and destroyed on any thread. It counts
/// against RLIMIT_MEMLOCK, unless the process may lock memory (CAP_IPC_LOCK). If it is destroyed on
/// another thread than its loop's, it counts until its slot is used again or the loop has ended.
///
/// Errors: From the constructor: wrong_thread where no event loop runs, configuration_error for 0
/// bytes, ring_unavailable when the limit of locked memory is reached, std::bad_alloc.

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
    /// Whether the kernel has registered it on its loop.
    [[nodiscard]] bool is_registered() const noexcept { return slot_ >= 0; }

    /// For operations that start on this thread: the buffer's number in the ring of the loop, or
    /// -1.
    [[nodiscard]] int slot_here() const noexcept;

private:
    void swap(registered_buffer& other) noexcept;

    std::byte* memory_ = nullptr;
    std::size_t size_ = 0;
    int slot_ = -1;
    const detail::executor* home_ = nullptr;  // compared only: it may have been destroyed
    std::shared_ptr<detail::buffer_slots> slots_;
};

}  // namespace tokengate
