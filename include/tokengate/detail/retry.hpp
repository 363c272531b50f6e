// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/time_limit.hpp>
#include <tokengate/detail/token_record.hpp>
#include <tokengate/options.hpp>
#include <tokengate/task.hpp>
#include <tokengate/token.hpp>

#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>

/// The implementation of an operation's retries: one token that awaits the attempts, one after the
/// other.

namespace tokengate::detail {

/// Whether copying a T compiles. Containers claim to be copyable whatever their elements are, so
/// the elements are checked, too. (A user's class with such a member makes the same wrong claim,
/// unless its copy constructor is deleted.)
template <class T>
inline constexpr bool copyable = std::is_copy_constructible_v<T>;
template <class T>
    requires std::is_copy_constructible_v<T> && requires {
        typename T::allocator_type;
        typename T::value_type;
    }
inline constexpr bool copyable<T> = copyable<typename T::value_type>;
template <class T>
inline constexpr bool copyable<std::optional<T>> = copyable<T>;
template <class... T>
inline constexpr bool copyable<std::variant<T...>> = (copyable<T> && ...);
template <class... T>
inline constexpr bool copyable<std::tuple<T...>> = (copyable<T> && ...);
template <class First, class Second>
inline constexpr bool copyable<std::pair<First, Second>> = copyable<First> && copyable<Second>;

class pin;

/// Keeps a sticky key on its core between two attempts, when no attempt is in flight. Nothing else
/// needs to be kept, because a chain has its core anyway. Made and destroyed in a token's body.
class held_key {
public:
    held_key(const operation_record& of, std::uint64_t key);
    ~held_key();
    held_key(const held_key&) = delete;
    held_key& operator=(const held_key&) = delete;

private:
    pin* held_ = nullptr;
};

/// While this object lives, tokens that the running token admits begin behind all that waits to
/// start on its core.
class at_back {
public:
    at_back() noexcept;
    ~at_back();
    at_back(const at_back&) = delete;
    at_back& operator=(const at_back&) = delete;
};

/// How long to wait after attempt number `attempt` has failed, the first being 1. `random` is from
/// [0, 1).
[[nodiscard]] std::chrono::nanoseconds backoff_after(unsigned attempt, const retry_options& retry,
                                                     double random) noexcept;

/// Ends when the next attempt is due. Throws `failure` if there is no further attempt, or
/// token_stopped.
task<> next_attempt_due(const operation_record& of, unsigned attempt, std::exception_ptr failure);

/// The attempts of one call. `make` makes the token of each attempt here, so that it inherits what
/// this token has inherited.
template <class T>
[[gnu::noinline, gnu::cold]] task<T> attempts(const operation_record& of, std::uint64_t key,
                                              std::function<token<T>()> make) {
    const held_key here(of, key);
    for (unsigned attempt = 1;; ++attempt) {
        std::exception_ptr failure;
        token<T> work = make();
        // Also if the attempt could run in place.
        if (attempt != 1) {
            const at_back behind_all;
            work.admit();
        }
        try {
            if (of.timeout.count() != 0)
                co_return co_await with_timeout(std::move(work), of.timeout);
            co_return co_await work;
        } catch (...) {
            failure = std::current_exception();
        }
        co_await next_attempt_due(of, attempt, std::move(failure));
    }
}

}  // namespace tokengate::detail
