// SPDX-License-Identifier: MIT
#include <tokengate/stop.hpp>

#include "executor/executor.hpp"
#include "executor/shared.hpp"
#include "gate/attention.hpp"
#include "token/awaiters.hpp"

#include <tokengate/error.hpp>

#include <atomic>

namespace tokengate {

namespace detail {

shielding::shielding() : token_(this_core ? this_core->current : nullptr) {
    was_shielded_ = !token_ || (token_->flags & shielded);
    if (!was_shielded_) token_->flags |= shielded;
}

shielding::~shielding() {
    if (was_shielded_) return;
    token_->flags = static_cast<std::uint16_t>(token_->flags & ~shielded);
    if ((token_->flags & has_callbacks) && token_->stop_requested())
        this_core->host->run_stop_callbacks(*token_);
}

}  // namespace detail

bool stop_token::stop_requested() const noexcept {
    if (of_->stop_requested()) return true;
    const detail::core_context* core = detail::this_core;
    if (core && core->current == of_) return this_token::stop_requested();
    if (detail::runtimes_that_ask.load(std::memory_order_relaxed) == 0) return false;
    // A stop of the whole runtime or a kill sets the bit of a computing body only when the body's
    // loop has its next turn, so this call polls `at_start` and the kill rules itself. It cannot
    // evaluate a kill rule for a chain: on another thread the domain may be freed before the frame.
    bool asked = false;
    const auto look = [&](const detail::shared_state& of) {
        const std::uint16_t flags = of_->flags.load_acquire();
        if (flags & detail::shielded) return;
        const std::uint32_t said = of.at_start.load(std::memory_order_relaxed);
        asked = ((said & detail::stopping_all) && !(flags & detail::exempt)) ||
                ((said & detail::killing) && of.kills.names(*of_));
    };
    if (const std::uint16_t slot = of_->runtime.load(); slot != 0) {
        if (core && core->runtime && core->runtime_slot == slot)
            look(*core->runtime);
        else
            detail::with_runtime(slot, look);
    }
    // The token's next await then throws, in agreement with this result.
    if (asked) of_->stop.set_bits(detail::stop_asked);
    return asked;
}

bool this_token::stop_requested() noexcept {
    const detail::core_context* core = detail::this_core;
    if (!core || !core->current) return false;
    bool asked = false;
    // The loop cannot take a stop message to an awaiter on this loop before all of them suspend.
    // So this loop reads the bits of each awaiter.
    for (const detail::token_record* each = core->current; each && !asked;
         each = detail::awaiter_here(*core, *each)) {
        if (each->flags & detail::shielded) return false;
        asked = each->stop_requested();
    }
    if (!asked) {
        const std::uint32_t said = core->runtime->at_start.load(std::memory_order_relaxed);
        asked = ((said & detail::stopping_all) && !(core->current->flags & detail::exempt)) ||
                ((said & detail::killing) && core->host->kills_current());
    }
    if (asked) core->current->stop.set_bits(detail::stop_asked);  // as in stop_token
    return asked;
}

stop_token this_token::stop() {
    detail::core_context* core = detail::this_core;
    if (!core || !core->current)
        throw wrong_thread("wrong_thread: this_token::stop was asked outside of every token");
    return stop_token(*core->current);
}

}  // namespace tokengate
