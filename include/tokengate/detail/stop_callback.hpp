// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/core_context.hpp>
#include <tokengate/detail/token_record.hpp>

/// A token's stop as other code sees it, and the callbacks that a stop notifies; see stop.hpp.

namespace tokengate {

/// Whether a stop of one token has been requested or is on its way. It also covers a runtime's stop
/// or a kill that the token's loop has not processed yet. Refers to the token, and is valid while
/// the token lives.
class stop_token {
public:
    explicit stop_token(detail::token_record& of) noexcept : of_(&of) {}
    [[nodiscard]] bool stop_requested() const noexcept;

private:
    friend class stop_callback_base;
    detail::token_record* of_;
};

class stop_callback_base {
public:
    stop_callback_base(const stop_callback_base&) = delete;
    stop_callback_base& operator=(const stop_callback_base&) = delete;

protected:
    stop_callback_base() noexcept = default;
    /// Calls `call` at once if the stop has been requested. Throws wrong_thread outside of that
    /// token, std::bad_alloc.
    void enlist(stop_token token, void (*call)(stop_callback_base&) noexcept);
    ~stop_callback_base();

private:
    friend class detail::executor;
    void (*call_)(stop_callback_base&) noexcept = nullptr;
    detail::token_record* of_ = nullptr;
};

}  // namespace tokengate
