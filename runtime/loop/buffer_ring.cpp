// SPDX-License-Identifier: MIT
#include "loop/buffer_ring.hpp"

#include <sys/mman.h>

#include <bit>
#include <cerrno>
#include <limits>
#include <string>
#include <system_error>
#include <utility>

namespace tokengate::detail {

// In some versions, the kernel's header puts something before this member when it is compiled as
// C++.
static_assert(offsetof(io_uring_buf_ring, bufs) == 0,
              "the kernel's ring of buffers begins with its first entry");

namespace {

// Ids have 16 bits, and the kernel has to distinguish a full ring from an empty one.
constexpr unsigned most_buffers = 32768;

std::size_t descriptor_bytes(unsigned buffers) noexcept {
    constexpr std::size_t page = 4096;  // so that the buffers begin with a page
    return (buffers * sizeof(io_uring_buf) + page - 1) / page * page;
}

[[noreturn]] void fail(int code, const std::string& call) {
    throw std::system_error(code, std::system_category(), call);
}

}  // namespace

buffer_ring::buffer_ring(io_uring& ring, std::uint16_t group, unsigned buffers,
                         std::size_t bytes_each)
    : ring_(ring), bytes_each_(bytes_each), buffers_(buffers), group_(group) {
    const std::string call = "io_uring_register_buf_ring(" + std::to_string(group) + ", " +
                             std::to_string(buffers) + " buffers of " + std::to_string(bytes_each) +
                             " bytes)";
    // The kernel would report the same, but only after that much memory has been mapped.
    if (!std::has_single_bit(buffers) || buffers > most_buffers || bytes_each == 0 ||
        bytes_each > std::numeric_limits<decltype(io_uring_buf::len)>::max())
        fail(EINVAL, call);

    void* memory =
        ::mmap(nullptr, mapped_bytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        fail(errno, "mmap of " + std::to_string(mapped_bytes()) + " bytes for buffers");
    shared_ = static_cast<io_uring_buf_ring*>(memory);
    bytes_ = static_cast<std::byte*>(memory) + descriptor_bytes(buffers);

    io_uring_buf_reg registration{};
    registration.ring_addr = reinterpret_cast<std::uintptr_t>(memory);
    registration.ring_entries = buffers;
    registration.bgid = group;
    if (const int result = io_uring_register_buf_ring(&ring, &registration, 0); result < 0) {
        ::munmap(memory, mapped_bytes());
        fail(-result, call);
    }

    io_uring_buf_ring_init(shared_);
    for (unsigned id = 0; id < buffers; ++id)
        offer(static_cast<std::uint16_t>(id), static_cast<int>(id));
    io_uring_buf_ring_advance(shared_, static_cast<int>(buffers));
}

void buffer_ring::retire() noexcept {
    if (!std::exchange(retired_, true)) leaked_ = io_uring_unregister_buf_ring(&ring_, group_) != 0;
}

buffer_ring::~buffer_ring() {
    retire();
    // The kernel refuses to unregister, for instance if the thread is not the ring's. It may then
    // go on writing, so the memory stays mapped.
    if (!leaked_) ::munmap(shared_, mapped_bytes());
}

std::size_t buffer_ring::mapped_bytes() const noexcept {
    return descriptor_bytes(buffers_) + buffers_ * bytes_each_;
}

}  // namespace tokengate::detail
