// SPDX-License-Identifier: MIT
#include <tokengate/task_token.hpp>

#include "executor/shared.hpp"

#include <tokengate/error.hpp>

#include <string>

namespace tokengate::detail {

void bind_to_core(token_record& token, unsigned core) {
    const core_context* here = this_core;
    if (!here || !here->runtime)
        throw wrong_thread(
            "wrong_thread: tokengate::as_token(task, core) was called on a thread without an event "
            "loop: only inside a "
            "runtime is it known which core is meant");
    const core_layout layout = here->runtime->loads.layout();
    if (core >= layout.cores)
        throw configuration_error("configuration_error: tokengate::as_token(task, " +
                                  std::to_string(core) + "): the runtime has the cores 0 to " +
                                  std::to_string(layout.cores - 1));
    if (token.flags & in_domain) return;  // a conducted token stays on the core of its chain
    token.flags = static_cast<std::uint16_t>((token.flags & ~unroutable) | bound);
    token.anchor = reinterpret_cast<void*>(std::uintptr_t{core} * layout.workers_per_core);
}

}  // namespace tokengate::detail
