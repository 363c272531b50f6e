// SPDX-License-Identifier: MIT
// The errors of a token, a task or a handle that is used in an invalid way.

#include <tokengate/error.hpp>

#include <tokengate/detail/admission.hpp>
#include <tokengate/detail/promise.hpp>

#include <cstdio>
#include <exception>

namespace tokengate::detail {

void throw_not_admissible(const token_record& token) {
    if (!this_core || !this_core->host)
        throw wrong_thread("wrong_thread: " + token.id().text() +
                           " was awaited or admitted on a thread without an event loop: use "
                           "runtime::submit, or do it "
                           "inside a coroutine that the runtime runs");
    throw wrong_runtime("wrong_runtime: " + token.id().text() +
                        " belongs to another runtime (it was admitted there, or inherited a seed "
                        "there): await it there");
}

void throw_already_admitted(const token_record& token) {
    throw already_awaited("already_awaited: " + token.id().text() +
                          " has been admitted already: admit() hands a token to the gate once; "
                          "await it for its result");
}

void throw_already_awaited() {
    throw already_awaited(
        "already_awaited: this token handle holds no result any more: it was awaited, submitted or "
        "moved "
        "from before; a token's result is taken once");
}

void throw_empty_task() {
    throw already_awaited(
        "already_awaited: this task is empty: it was awaited or moved from before, or never held a "
        "coroutine");
}

void terminate_miscompiled() noexcept {
    std::fprintf(stderr,
                 "tokengate: a coroutine was miscompiled: g++ 12 loses the body of one that uses "
                 "co_await in the "
                 "condition of an "
                 "if, while or switch while its outermost block has no local variable; name the "
                 "result first: "
                 "const bool more = co_await next(); if (more) ...\n");
    std::terminate();
}

}  // namespace tokengate::detail
