// SPDX-License-Identifier: MIT
#include <tokengate/when_any.hpp>

#include "executor/executor.hpp"

#include <stdexcept>

namespace tokengate::detail {

void throw_none_of_any() {
    throw std::invalid_argument("tokengate::when_any of no token at all would never end");
}

void any_core::begin(core_context& core, std::coroutine_handle<> awaiting, entry* entries,
                     std::size_t count) noexcept {
    entries_ = entries;
    count_ = left_ = count;
    suspend(core, awaiting, [](core_context&, wait_point& point) noexcept {
        static_cast<any_core&>(static_cast<suspension&>(point)).stop_others();
    });
    if (core.current) give_up_permit(core, *core.current);
}

void any_core::add(core_context& core, std::size_t index, token_record& token,
                   bool admitted) noexcept {
    entry& added = entries_[index];
    added.done = entry_ended;
    added.home = core.host;
    added.of = this;
    added.token = core.current;
    added.work = &token;
    added.ended = false;
    token.awaited_by.store(core.current ? core.current->sequence.load() : 0);
    // Another member has already ended, or the awaiter has a stop request: this one need not start.
    if (first_ != none || (core.current && core.current->stop_pending()))
        request_stop(token, stop_asked);
    const auto self = reinterpret_cast<std::uintptr_t>(static_cast<waiter*>(&added));
    if (!admitted) {
        token.owner = self;
        admit(core, token);
    } else if (token.shared_owner().exchange(self, std::memory_order_acq_rel) == owner_done) {
        note_end(added);  // the exchange acquires the result in the token's frame
    }
}

bool any_core::finish(core_context&) noexcept {
    if (left_ == 0) return false;
    if (first_ != none) stop_others();
    suspended_ = true;
    return true;
}

void any_core::resumed() {
    wait_is_over();
    core_context& core = *this_core;
    if (core.current) retake_permit(core, *core.current);
}

void any_core::entry_ended(token_record&, waiter& self) noexcept {
    auto& ended = static_cast<entry&>(self);
    ended.of->note_end(ended);
}

void any_core::note_end(entry& ended) noexcept {
    ended.ended = true;
    --left_;
    if (first_ == none) {
        first_ = static_cast<std::size_t>(&ended - entries_);
        if (suspended_) stop_others();
    }
    if (left_ == 0 && suspended_) wake();
}

void any_core::stop_others() noexcept {
    for (std::size_t i = 0; i < count_; ++i)
        if (entries_[i].work && !entries_[i].ended) request_stop(*entries_[i].work, stop_asked);
}

}  // namespace tokengate::detail
