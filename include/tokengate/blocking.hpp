// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/blocking_job.hpp>
#include <tokengate/detail/suspension.hpp>

#include <concepts>
#include <coroutine>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>
#include <variant>

/// A call that can only block (a foreign library, a system call that io_uring does not have), away from the cores.
///
///     auto read_row = [&db, key] { return db.get(key); };       // named: see below
///     row found = co_await tg::blocking(read_row);              // its result or its exception
///
/// The callable runs once, on a thread of the runtime's pool: at most runtime_options::blocking_threads at a time, in
/// the order of the calls. Meanwhile the token waits without holding its core, to which it comes back. The callable is
/// kept in the awaiting frame, and destroyed there; nothing is allocated. It runs beside the token's own core, so what
/// it refers to must stay alive until it has returned (the awaiting frame does) and be safe to use from another thread.
/// On the pool's threads runs no loop: this_token throws wrong_thread there.
///
/// A stop takes back a call that no thread has begun: token_stopped. One that runs cannot be interrupted; it is waited
/// for and its result delivered, timeouts included. It may look for itself, at a token's stop that was taken before:
///
///     auto scan = [stop = tg::this_token::stop()] { while (!stop.stop_requested() && step()) {} };
///
/// Errors: token_stopped, the callable then never runs; wrong_thread where no event loop runs; std::system_error if
/// there is no thread and none can be made. A lambda with captures that is written inside the co_await expression is
/// miscompiled by g++ 12: name it first.

namespace tokengate {

namespace detail {

class blocking_wait : public suspension, public blocking_job {
public:
    blocking_wait(const blocking_wait&) = delete;
    blocking_wait& operator=(const blocking_wait&) = delete;

    bool await_ready() const noexcept { return false; }
    bool await_suspend(std::coroutine_handle<> awaiting);

protected:
    blocking_wait() = default;
    ~blocking_wait() = default;

    void throw_if_withdrawn() const;

private:
    bool withdrawn_ = false;
};

template <class Function>
class [[nodiscard]] blocking_call final : public blocking_wait {
    using result = std::invoke_result_t<Function>;
    using kept = std::conditional_t<
        std::is_void_v<result>, std::monostate,
        std::conditional_t<std::is_reference_v<result>, std::remove_reference_t<result>*,
                           std::remove_cv_t<result>>>;

public:
    template <class Given>
    explicit blocking_call(std::in_place_t, Given&& function)
        : function_(std::forward<Given>(function)) {
        // What is written here before the post is read by the token after it has taken the mail.
        call = [](blocking_job* self) noexcept {
            auto& mine = static_cast<blocking_call&>(*self);
            mine.perform();
            mine.wake_from_anywhere();
        };
    }

    result await_resume() {
        throw_if_withdrawn();
        if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
        if constexpr (std::is_reference_v<result>)
            return static_cast<result>(**result_);
        else if constexpr (!std::is_void_v<result>)
            return std::move(*result_);
    }

private:
    void perform() noexcept {
        try {
            if constexpr (std::is_void_v<result>) {
                std::invoke(std::move(function_));
            } else if constexpr (std::is_reference_v<result>) {
                result&& referred = std::invoke(std::move(function_));
                result_.emplace(std::addressof(referred));
            } else {
                result_.emplace(std::invoke(std::move(function_)));
            }
        } catch (...) {
            error_ = std::current_exception();
        }
    }

    Function function_;
    std::optional<kept> result_;
    std::exception_ptr error_;
};

}  // namespace detail

template <class Function>
    requires std::invocable<std::decay_t<Function>>
[[nodiscard]] detail::blocking_call<std::decay_t<Function>> blocking(Function&& function) {
    return detail::blocking_call<std::decay_t<Function>>(std::in_place,
                                                         std::forward<Function>(function));
}

}  // namespace tokengate
