// SPDX-License-Identifier: MIT
#include <tokengate/this_token.hpp>

#include "executor/domain.hpp"
#include "executor/shared.hpp"

#include <tokengate/detail/core_context.hpp>
#include <tokengate/error.hpp>

namespace tokengate::this_token {

namespace {

detail::core_context& inside_a_token() {
    detail::core_context* core = detail::this_core;
    if (!core || !core->current)
        throw wrong_thread(
            "wrong_thread: tokengate::this_token was asked outside of every token: only code that "
            "the runtime "
            "runs has one");
    return *core;
}

}  // namespace

token_id id() { return inside_a_token().current->id(); }

unsigned core() {
    detail::core_context& here = inside_a_token();
    return here.runtime->core_of(here.position);
}

unsigned executor() {
    detail::core_context& here = inside_a_token();
    return here.runtime->is_control(here.position) ? control_core : here.position;
}

std::string_view seed() {
    detail::core_context& here = inside_a_token();
    if (!(here.current->flags & detail::in_domain)) return {};
    return seed_of(*static_cast<detail::domain*>(here.current->anchor),
                   here.runtime->options.digest);
}

std::string_view operation() { return inside_a_token().current->operation.load()->name; }

}  // namespace tokengate::this_token
