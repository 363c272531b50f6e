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

/// `blocking` runs a callable that can only block, away from the cores: a foreign library, or a
/// system call that io_uring does not have. The callable runs once, on a thread of the runtime's
/// pool. At most runtime_options::blocking_threads calls run at a time, in the order of the calls.
/// Meanwhile the token waits without holding its core, and it resumes on that core. The call
/// allocates nothing. g++ 12 miscompiles a lambda with captures that is written inside the co_await
/// expression: name it before.
///
///     auto read_row = [&db, key] { return db.get(key); };  // named: see above
///     row found = co_await tg::blocking(read_row);         // its result or its exception
///
///     // a call that polls for a stop itself
///     auto scan = [stop = tg::this_token::stop()] { while (!stop.stop_requested() && step()) {} };
///
/// Thread safety: The callable runs beside the token's own core. Everything that it refers to must
/// be safe to use from another thread. The threads of the pool run no loop: this_token throws
/// wrong_thread there.
///
/// Lifetime: The awaiting frame holds the callable and destroys it. Everything that the callable
/// refers to must stay alive until it has returned; the awaiting frame does.
///
/// Errors: token_stopped if the token is asked to stop before a thread has begun the call; the
/// callable then never runs. wrong_thread where no event loop runs. std::system_error if the pool
/// has no thread and cannot make one. An exception of the callable reaches the awaiter as itself.
///
/// Stop: If no thread has begun the call, a stop withdraws it. If a thread runs the call, neither a
/// stop nor a timeout interrupts it: the token waits for it and gets its result. The callable may
/// poll a stop_token that the body took before the call.

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
        // `perform` writes the result before the post; the token reads it after its loop has taken
        // the mail.
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

/// The await returns the result of the callable, or throws its exception.
template <class Function>
    requires std::invocable<std::decay_t<Function>>
[[nodiscard]] detail::blocking_call<std::decay_t<Function>> blocking(Function&& function) {
    return detail::blocking_call<std::decay_t<Function>>(std::in_place,
                                                         std::forward<Function>(function));
}

}  // namespace tokengate
