// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/core_context.hpp>
#include <tokengate/detail/suspension.hpp>
#include <tokengate/error.hpp>

namespace tokengate::detail {

/// Runs `part`, a part of the running token's wait. If a stop ends it, the text of token_stopped
/// names `deed()` as what the token did not do. `deed` is called only then.
template <class Deed, class Part>
auto naming(Deed deed, Part part) -> decltype(part()) {
    try {
        return part();
    } catch (const token_stopped&) {
        throw_stopped(*this_core->current, deed().c_str());
    }
}

}  // namespace tokengate::detail
