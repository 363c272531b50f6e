// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/core_context.hpp>

#include <coroutine>
#include <utility>

/// How control passes from one coroutine to another without growing the stack.
///
/// clang compiles symmetric transfer to a tail call at every optimisation level. g++ 12 does not
/// below -O2, and with a sanitizer not even there. With g++ a child is therefore resumed by a
/// nested call. If the child ends at once, the awaiter was never suspended. If the stack is used
/// up, the child is left in `core.next`. All calls then return to the innermost `resume` on the
/// stack, which continues with the child. A null continuation means that the awaiter is on the
/// stack and checks for the end itself. With clang a nested call is the exception, for a child
/// whose run is measured (admission.hpp, start_measured).
///
///     auto await_suspend(std::coroutine_handle<> awaiter) {
///         return start_child(core, child, continuation, awaiter);
///     }
///
/// All of it happens on one thread.

namespace tokengate::detail {

#if defined(__clang__)

using started = std::coroutine_handle<>;  ///< returned by an await_suspend that starts a child
using resumed = std::coroutine_handle<>;  ///< returned by a final await_suspend

inline started start_child(core_context&, std::coroutine_handle<> child,
                           std::coroutine_handle<>& continuation,
                           std::coroutine_handle<> awaiter) noexcept {
    continuation = awaiter;
    return child;
}
inline started stay_suspended() noexcept { return std::noop_coroutine(); }
inline started not_suspended(std::coroutine_handle<> awaiter) noexcept { return awaiter; }

inline resumed continue_with(core_context&, std::coroutine_handle<> continuation) noexcept {
    return continuation;
}
inline resumed nobody_continues() noexcept { return std::noop_coroutine(); }
/// The continuation of a child whose awaiter is on the stack below it.
inline std::coroutine_handle<> on_the_stack() noexcept { return std::noop_coroutine(); }

/// Resumes a coroutine from a loop, or from any other code that is no coroutine.
inline void resume(core_context&, std::coroutine_handle<> coroutine) { coroutine.resume(); }

#else

using started = bool;
using resumed = void;

inline started start_child(core_context& core, std::coroutine_handle<> child,
                           std::coroutine_handle<>& continuation, std::coroutine_handle<> awaiter) {
    if (static_cast<char*>(__builtin_frame_address(0)) < core.stack_mark) {
        continuation = awaiter;
        core.next = child;
        return true;
    }
    continuation = nullptr;
    child.resume();
    if (child.done()) return false;
    continuation = awaiter;
    return true;
}
inline started stay_suspended() noexcept { return true; }
inline started not_suspended(std::coroutine_handle<>) noexcept { return false; }

inline resumed continue_with(core_context& core, std::coroutine_handle<> continuation) noexcept {
    if (continuation) core.next = continuation;
}
inline resumed nobody_continues() noexcept {}
inline std::coroutine_handle<> on_the_stack() noexcept { return nullptr; }

inline void resume(core_context& core, std::coroutine_handle<> coroutine) {
    coroutine.resume();
    while (core.next) std::exchange(core.next, nullptr).resume();
}

#endif

}  // namespace tokengate::detail
