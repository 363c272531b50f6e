// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/core_context.hpp>
#include <tokengate/detail/token_record.hpp>

/// A token's stop as others see it, and what is told of it; see stop.hpp.

namespace tokengate {

/// Whether one token has been asked to stop, or is to be: also by a runtime's stop or a kill that its loop has had no time to
/// hear of. A reference to the token: valid while that lives.
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
    /// Calls at once if the stop has been requested. Throws wrong_thread outside of that token, std::bad_alloc.
    void enlist(stop_token token, void (*call)(stop_callback_base&) noexcept);
    ~stop_callback_base();

private:
    friend class detail::executor;
    void (*call_)(stop_callback_base&) noexcept = nullptr;
    detail::token_record* of_ = nullptr;
};

}  // namespace tokengate
