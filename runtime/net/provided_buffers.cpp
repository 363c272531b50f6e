// SPDX-License-Identifier: MIT
#include "net/provided_buffers.hpp"

#include "executor/executor.hpp"

#include <new>
#include <utility>

namespace tokengate::detail {

provided_buffers::provided_buffers(io_uring& ring)
    : ring_(ring, group_id, count, bytes_each), pieces_(count) {
    for (unsigned id = 0; id < count; ++id)
        pieces_[id] = {nullptr, nullptr, this, 0, static_cast<std::uint16_t>(id)};
}

piece* provided_buffers::take(std::uint32_t flags, std::int32_t length) noexcept {
    io_uring_cqe done{};
    done.flags = flags;
    const std::uint16_t id = ring_.take(done);
    piece& lent = pieces_[id];
    lent.size = length > 0 ? static_cast<std::uint32_t>(length) : 0;
    lent.bytes = ring_.buffer(id, lent.size).data();
    lent.next = nullptr;
    return &lent;
}

bool provided_buffers::any_left() noexcept {
    if (ring_.lent() == count) reclaim();
    return ring_.lent() < count;
}

void provided_buffers::reclaim() noexcept {
    piece* back;
    {
        const std::scoped_lock lock(mutex_);
        back = std::exchange(returned_, nullptr);
    }
    for (; back; back = back->next) ring_.give_back(back->id);
}

bool provided_buffers::is_here() const noexcept {
    return this_core && this_core->host && this_core->host->known_buffers() == this;
}

void provided_buffers::give_back(piece* used) noexcept {
    if (is_here()) {
        ring_.give_back(used->id);
        return;
    }
    {
        const std::scoped_lock lock(mutex_);
        if (!retired_) {
            used->next = std::exchange(returned_, used);
            return;
        }
        if (--left_ != 0) return;
    }
    delete this;
}

void provided_buffers::retire() noexcept {
    reclaim();
    ring_.retire();
    {
        const std::scoped_lock lock(mutex_);
        for (; returned_; returned_ = returned_->next)
            ring_.give_back(returned_->id);  // returned since reclaim()
        retired_ = true;
        left_ = ring_.lent();
        if (left_ != 0) return;
    }
    delete this;
}

// ---- pieces -------------------------------------------------------------------------------------

piece* make_piece() {
    void* memory = ::operator new(sizeof(piece) + provided_buffers::bytes_each);
    return ::new (memory)
        piece{nullptr, static_cast<std::byte*>(memory) + sizeof(piece), nullptr, 0, 0};
}

void give_back(piece* used) noexcept {
    if (used->of)
        used->of->give_back(used);
    else
        ::operator delete(used);
}

}  // namespace tokengate::detail
