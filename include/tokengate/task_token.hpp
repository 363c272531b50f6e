// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/core_context.hpp>
#include <tokengate/operation.hpp>
#include <tokengate/task.hpp>
#include <tokengate/token.hpp>

#include <utility>
#include <vector>

/// `as_token` makes a token of a plain task, for calls that take tokens only. Groups, timeouts and
/// scopes take tasks and make them tokens themselves. The token inherits like any token and is
/// named "task". It is not routed. It runs on the loop that admits it, interleaved with the other
/// tokens there, or on the core that it is bound to. For parallel work call operations: routing
/// selects cores with room. Bind a token to a core for work that must be on every core, such as a
/// listener each. Inside a conducted chain the chain's core takes precedence, as it does for sticky
/// operations.
///
///     tg::token<int> later = tg::as_token(part(1));  later.admit();  …  int a = co_await later;
///
///     for (unsigned core = 0; core < runtime.cores(); ++core)
///         tokens.push_back(tg::as_token(accept_on(address), core));
///
/// Errors: already_awaited for an empty task. With a core: wrong_thread outside of the runtime,
/// configuration_error for a core that the runtime does not have.

namespace tokengate {

namespace detail {

/// The operation of such tokens.
const operation_record& task_operation();

void bind_to_core(token_record& token, unsigned core);

}  // namespace detail

/// Makes a token that runs on the loop that admits it.
template <class T>
[[nodiscard]] token<T> as_token(task<T> work) {
    const auto coroutine = detail::task_access::release(std::move(work));
    if (!coroutine) detail::throw_empty_task();
    detail::core_context& core = detail::context();
    const bool conducted = detail::adopt(core, coroutine.promise(), detail::task_operation());
    return detail::token_access::adopt(coroutine, conducted);
}

/// Makes a token that is bound to a core of this runtime.
template <class T>
[[nodiscard]] token<T> as_token(task<T> work, unsigned core) {
    token<T> made = as_token(std::move(work));
    detail::bind_to_core(detail::token_access::record(made), core);
    return made;
}

namespace detail {

// The members of a group: tokens, and tasks made into tokens.
template <class T>
token<T> to_member(token<T>&& work) noexcept {
    return std::move(work);
}
template <class T>
token<T> to_member(task<T>&& work) {
    return as_token(std::move(work));
}
template <class T>
std::vector<token<T>> to_members(std::vector<task<T>>&& works) {
    std::vector<token<T>> members;
    members.reserve(works.size());
    for (task<T>& each : works) members.push_back(as_token(std::move(each)));
    return members;
}

template <class Work>
concept group_member = requires(Work work) { to_member(std::move(work)); };

}  // namespace detail

}  // namespace tokengate
