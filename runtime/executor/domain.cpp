// SPDX-License-Identifier: MIT
#include "executor/domain.hpp"

#include "executor/shared.hpp"
#include "token/awaiters.hpp"
#include "token/seed.hpp"

#include <tokengate/detail/admission.hpp>

#include <new>
#include <utility>

namespace tokengate::detail {

void open_domain(core_context& core, token_record& lead) noexcept {
    // The domain fits into a slot of this thread's own pool. If even that allocation fails, the
    // process terminates (noexcept).
    auto* opened_here =
        static_cast<domain*>(core.pool->allocate(sizeof(domain), slab_kind::object));
    opened_here->pending = 1;
    opened_here->home = &core;
    opened_here->position = core.position;
    opened_here->runtime = core.runtime;
    opened_here->outer = lead.flags & in_domain ? static_cast<domain*>(lead.anchor) : nullptr;
    opened_here->lead.store(lead.operation.load());
    opened_here->lead_created_ns.store(lead.created_ns.load());
    opened_here->lead_sequence.store(lead.sequence.load());
    const token_record* above = keeper_of(lead);
    opened_here->call_sequence.store(above ? above->sequence.load() : lead.sequence.load());
    opened_here->digested = false;
    core.counts.live_domains.add(1);
    lead.anchor = opened_here;
    lead.flags.set_release(in_domain | opened);  // pairs with shared_state::look
}

void leave_domain(core_context& core, token_record& token) noexcept {
    auto* left = static_cast<domain*>(token.anchor);
    if (token.flags & opened) {
        if (domain* outer = std::exchange(left->outer, nullptr); outer && --outer->pending == 0)
            release_domain(core, outer);
    }
    if (--left->pending == 0) release_domain(core, left);
}

void release_domain(core_context& core, domain* ended) noexcept {
    if (ended->home == &core) core.counts.live_domains.add(-1);
    // The domain's executor is gone; the caller holds shared_state::orphans.
    else
        --ended->runtime->orphaned_domains;
    core.pool->deallocate(ended, sizeof(domain), slab_kind::object);
}

std::string_view seed_of(domain& of, digest_policy policy) {
    if (!of.digested) {
        const operation_record& operation = *of.lead.load();
        const token_id lead{operation.name, of.lead_created_ns.load(), of.lead_sequence.load()};
        of.digest = seed_digest(lead.text(), operation.calls);
        of.digested = true;
    }
    return shown(of.digest, policy);
}

}  // namespace tokengate::detail
