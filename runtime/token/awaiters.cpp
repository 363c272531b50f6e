// SPDX-License-Identifier: MIT
#include "token/awaiters.hpp"

#include <atomic>
#include <cstdint>

namespace tokengate::detail {

const token_record* awaiter_of(const token_record& token) noexcept {
    const std::uintptr_t claimed =
        std::atomic_ref(const_cast<std::uintptr_t&>(token.owner)).load(std::memory_order_acquire);
    if (claimed <= owner_dropped) return nullptr;
    return reinterpret_cast<const waiter*>(claimed)->token;
}

const token_record* awaiter_here(const core_context& core, const token_record& token) noexcept {
    const token_record* above = awaiter_of(token);
    return above && above->position.load() == core.position ? above : nullptr;
}

const token_record* keeper_of(const token_record& token) noexcept {
    const token_record* above = awaiter_of(token);
    return above && above->operation.load() == token.operation.load()->keeper ? above : nullptr;
}

}  // namespace tokengate::detail
