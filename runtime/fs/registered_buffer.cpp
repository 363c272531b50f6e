// SPDX-License-Identifier: MIT
#include <tokengate/registered_buffer.hpp>

#include "executor/executor.hpp"

#include <tokengate/error.hpp>

#include <liburing.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <mutex>
#include <new>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

// The thread that has registered a ring's table of buffers knows which slots are free. If another
// thread registered it (a control loop that changes threads), or the ring has been closed, that
// knowledge may be wrong. No result depends on it: the kernel compares the address of an operation
// with the buffer in its slot and rejects a mismatch with EFAULT. The operation then continues as a
// plain one.

namespace tokengate {

namespace detail {

class buffer_slots {
public:
    explicit buffer_slots(const ring& of) : ring_(&of), free_(registered_buffer::slots_of_a_loop) {
        std::iota(free_.rbegin(), free_.rend(), 0);
    }

    [[nodiscard]] bool of(const ring& other) const noexcept { return ring_ == &other; }
    int take() noexcept {
        const std::scoped_lock lock(mutex_);
        if (free_.empty()) return -1;
        const int slot = free_.back();
        free_.pop_back();
        return slot;
    }
    void give_back(int slot) noexcept {
        const std::scoped_lock lock(mutex_);
        free_.push_back(slot);  // does not allocate: there are never more than at the start
    }

private:
    const ring* ring_;  // only compared, never dereferenced
    std::mutex mutex_;  // guards free_: any thread may destroy a buffer
    std::vector<int> free_;
};

namespace {

/// The slots of the ring that this thread hosts. Null if no table could be registered, or if
/// another thread registered it.
std::shared_ptr<buffer_slots> slots_of(ring& here) {
    static thread_local std::shared_ptr<buffer_slots> known;
    const int result =
        io_uring_register_buffers_sparse(&here.raw(), registered_buffer::slots_of_a_loop);
    if (result == 0) known = std::make_shared<buffer_slots>(here);  // the ring had no table before
    if (result != 0 && result != -EBUSY) return nullptr;
    return known && known->of(here) ? known : nullptr;
}

int set_slot(ring& of, int slot, void* memory, std::size_t size) noexcept {
    const iovec where{memory, size};
    const __u64 no_tag = 0;
    return io_uring_register_buffers_update_tag(&of.raw(), static_cast<unsigned>(slot), &where,
                                                &no_tag, 1);
}

}  // namespace

}  // namespace detail

registered_buffer::registered_buffer(std::size_t size) {
    const detail::core_context* core = detail::this_core;
    if (!core || !core->host)
        throw wrong_thread(
            "wrong_thread: a registered_buffer was made on a thread without an event loop");
    if (size == 0)
        throw configuration_error(
            "configuration_error: a registered_buffer of 0 bytes: at least 1");
    detail::ring& ring = core->host->loop.own_ring();
    slots_ = detail::slots_of(ring);

    void* memory =
        ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    memory_ = static_cast<std::byte*>(memory);
    size_ = size;
    home_ = core->host;

    const int slot = slots_ ? slots_->take() : -1;
    if (slot < 0) return;
    const int result = detail::set_slot(ring, slot, memory, size);
    if (result == 1) {
        slot_ = slot;
        return;
    }
    slots_->give_back(slot);
    if (result != -ENOMEM) return;  // usable as plain memory, without a slot
    ::munmap(memory, size);
    throw ring_unavailable("ring_unavailable: a registered_buffer of " + std::to_string(size) +
                               " bytes cannot be locked: " + std::strerror(ENOMEM) +
                               ". Raise `ulimit -l` (systemd: LimitMEMLOCK=), or make it smaller",
                           ENOMEM);
}

registered_buffer::registered_buffer(registered_buffer&& other) noexcept { swap(other); }

registered_buffer& registered_buffer::operator=(registered_buffer&& other) noexcept {
    registered_buffer taken(std::move(other));
    swap(taken);
    return *this;
}

registered_buffer::~registered_buffer() {
    if (slot_here() >= 0)
        static_cast<void>(detail::set_slot(detail::this_core->host->loop.own_ring(), slot_, nullptr,
                                           0));
    if (slot_ >= 0) slots_->give_back(slot_);
    if (memory_) ::munmap(memory_, size_);
}

int registered_buffer::slot_here() const noexcept {
    const detail::core_context* core = detail::this_core;
    return core && core->host && core->host == home_ ? slot_ : -1;
}

void registered_buffer::swap(registered_buffer& other) noexcept {
    std::swap(memory_, other.memory_);
    std::swap(size_, other.size_);
    std::swap(slot_, other.slot_);
    std::swap(home_, other.home_);
    std::swap(slots_, other.slots_);
}

}  // namespace tokengate
