// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/token_record.hpp>

#include <array>
#include <cstdint>

/// A seed domain: what a lead opens when it starts, and everything it spawns inherits. All of a domain runs on one
/// executor, so its fields are plain: only that executor's thread touches them. Others may look at who the lead is.
///
/// `pending` counts the tokens of the domain, from their making to their end, the lead included. Every such token refers to
/// the domain exactly so long, therefore the count is also the domain's life: at zero it is released.

namespace tokengate::detail {

struct domain {
    std::uint64_t pending;
    core_context* home;
    std::uint16_t position;  ///< of the executor whose thread has that context
    shared_state* runtime;
    domain* outer;  ///< the domain the lead itself is a child of, until the lead ends
    relaxed<const operation_record*> lead;
    relaxed<std::uint64_t> lead_created_ns;
    relaxed<std::uint64_t> lead_sequence;
    relaxed<std::uint64_t>
        call_sequence;  ///< of the keeper of the lead's time or arguments; else the lead's
    bool digested;      ///< `digest` is computed at the first look
    std::array<char, 64> digest;
};

/// Ends a domain whose last token has ended. On its home's thread.
void release_domain(core_context& core, domain* ended) noexcept;

}  // namespace tokengate::detail
