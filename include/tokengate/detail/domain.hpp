// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/token_record.hpp>

#include <array>
#include <cstdint>

/// A seed domain: a lead opens it when it starts, and everything that the lead spawns inherits it.
/// All tokens of a domain run on one executor, and only that executor's thread touches the plain
/// fields. The `relaxed` fields, which identify the lead, may be read by any thread.
///
/// `pending` counts the tokens of the domain from their making to their end, the lead included.
/// Each of these tokens refers to the domain for exactly that time, so the count is also the
/// domain's lifetime: at zero it is released.

namespace tokengate::detail {

struct domain {
    std::uint64_t pending;
    core_context* home;
    std::uint16_t position;  ///< of the executor whose thread has the context `home`
    shared_state* runtime;
    /// The domain in which the lead itself is a child, until the lead ends.
    domain* outer;
    relaxed<const operation_record*> lead;
    relaxed<std::uint64_t> lead_created_ns;
    relaxed<std::uint64_t> lead_sequence;
    /// Of the lead's wrapper token, which keeps its time or its arguments. Without one, of the
    /// lead.
    relaxed<std::uint64_t> call_sequence;
    bool digested;  ///< `digest` has been computed, at its first use
    std::array<char, 64> digest;
};

/// Ends a domain whose last token has ended. On the thread of its `home`.
void release_domain(core_context& core, domain* ended) noexcept;

}  // namespace tokengate::detail
