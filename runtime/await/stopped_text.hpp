// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/core_context.hpp>
#include <tokengate/detail/suspension.hpp>
#include <tokengate/error.hpp>

namespace tokengate::detail {

/// A part of the running token's wait that may meet a stop: what token_stopped then says it did not do is `deed()`, a text
/// that is made only then.
template <class Deed, class Part>
auto naming(Deed deed, Part part) -> decltype(part()) {
    try {
        return part();
    } catch (const token_stopped&) {
        throw_stopped(*this_core->current, deed().c_str());
    }
}

}  // namespace tokengate::detail
