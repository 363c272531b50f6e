// SPDX-License-Identifier: MIT
#include "gate/gate.hpp"

#include <bit>
#include <new>
#include <utility>

namespace tokengate::detail {

gate::gate(unsigned positions, const storage_limits& limits) : parked_((positions + 63) / 64) {
    // A backlog of 32,768 tokens, in full chains, before the first growth.
    for (fifo& each : fifos_) each.chains.resize(1024);
    permits_of(storage::slow).limit = limits.slow;
    permits_of(storage::moderate).limit = limits.moderate;
    permits_of(storage::fast).limit = limits.fast;
    permits_of(storage::insane).limit = limits.insane;
}

bool gate::grow(fifo& full) noexcept {
    try {
        std::vector<chain> larger(full.chains.size() * 2);
        for (std::size_t i = 0; i < full.used; ++i) larger[i] = full.at(i);
        full.chains = std::move(larger);
        full.first = 0;
        return true;
    } catch (const std::bad_alloc&) {
        return false;
    }
}

void gate::wait(weight w, hook_queue& chain_of_hooks, std::size_t count) noexcept {
    fifo& to = fifo_of(w);
    const std::scoped_lock lock(to.mutex);
    if (to.used == to.chains.size() && !grow(to)) {
        // No memory for a descriptor: the last chain becomes longer instead.
        to.at(to.used - 1).hooks.append(chain_of_hooks);
        to.at(to.used - 1).count += count;
    } else {
        chain& last = to.at(to.used++);
        last.hooks = std::exchange(chain_of_hooks, {});
        last.count = count;
    }
    to.waiting.store(to.waiting.load(std::memory_order_relaxed) + count, std::memory_order_relaxed);
}

void gate::put_back(weight w, hook_queue& chain_of_hooks, std::size_t count) noexcept {
    fifo& to = fifo_of(w);
    const std::scoped_lock lock(to.mutex);
    if (to.used == to.chains.size() && !grow(to)) {
        to.at(0).hooks.prepend(chain_of_hooks);  // no memory for a descriptor
        to.at(0).count += count;
    } else {
        to.first = (to.first + to.chains.size() - 1) & (to.chains.size() - 1);
        ++to.used;
        to.at(0).hooks = std::exchange(chain_of_hooks, {});
        to.at(0).count = count;
    }
    to.waiting.store(to.waiting.load(std::memory_order_relaxed) + count, std::memory_order_relaxed);
}

std::size_t gate::take_locked(fifo& from, std::size_t most, hook_queue& into) noexcept {
    std::size_t taken = 0;
    while (taken < most && from.used != 0) {
        chain& oldest = from.at(0);
        if (oldest.count <= most - taken) {
            taken += oldest.count;
            into.append(oldest.hooks);
            from.first = (from.first + 1) & (from.chains.size() - 1);
            --from.used;
        } else if (taken != 0) {
            // Whole chains are taken without touching their hooks; fewer than requested is enough.
            break;
        } else {
            for (; taken < most; ++taken, --oldest.count) into.push(oldest.hooks.pop());
        }
    }
    from.waiting.store(from.waiting.load(std::memory_order_relaxed) - taken,
                       std::memory_order_relaxed);
    return taken;
}

void gate::set_parked(unsigned position, bool now) noexcept {
    std::atomic<std::uint64_t>& word = parked_[position / 64];
    const std::uint64_t bit = std::uint64_t{1} << position % 64;
    now ? word.fetch_or(bit, std::memory_order_seq_cst)
        : word.fetch_and(~bit, std::memory_order_seq_cst);
}

unsigned gate::find_parked(unsigned first, unsigned end) const noexcept {
    for (unsigned at = first; at < end; at = (at / 64 + 1) * 64) {
        const std::uint64_t bits =
            parked_[at / 64].load(std::memory_order_seq_cst) & ~std::uint64_t{0} << at % 64;
        if (bits == 0) continue;
        const unsigned found = at / 64 * 64 + static_cast<unsigned>(std::countr_zero(bits));
        return found < end ? found : end;
    }
    return end;
}

bool gate::acquire(storage tier, hook* item) noexcept {
    tier_permits& permits = permits_of(tier);
    const std::scoped_lock lock(permits.mutex);
    if (permits.in_use < permits.limit && permits.waiting.empty()) {
        ++permits.in_use;
        return true;
    }
    permits.waiting.push(item);
    ++permits.count;
    return false;
}

bool gate::try_acquire(storage tier) noexcept {
    tier_permits& permits = permits_of(tier);
    const std::scoped_lock lock(permits.mutex);
    if (permits.in_use >= permits.limit || !permits.waiting.empty()) return false;
    ++permits.in_use;
    return true;
}

std::size_t gate::waiting_for_permit(storage tier) noexcept {
    tier_permits& permits = permits_of(tier);
    const std::scoped_lock lock(permits.mutex);
    return permits.count;
}

hook* gate::release(storage tier) noexcept {
    tier_permits& permits = permits_of(tier);
    const std::scoped_lock lock(permits.mutex);
    --permits.in_use;
    return next_permitted(permits);
}

hook* gate::next_permitted(tier_permits& permits) noexcept {
    if (permits.waiting.empty() || permits.in_use >= permits.limit) return nullptr;
    ++permits.in_use;
    --permits.count;
    return permits.waiting.pop();
}

hook* gate::grant(storage tier) noexcept {
    tier_permits& permits = permits_of(tier);
    const std::scoped_lock lock(permits.mutex);
    return next_permitted(permits);
}

void gate::set_limit(storage tier, int limit) noexcept {
    tier_permits& permits = permits_of(tier);
    const std::scoped_lock lock(permits.mutex);
    permits.limit = limit;
}

int gate::limit(storage tier) noexcept {
    tier_permits& permits = permits_of(tier);
    const std::scoped_lock lock(permits.mutex);
    return permits.limit;
}

void gate::force(storage tier) noexcept {
    tier_permits& permits = permits_of(tier);
    const std::scoped_lock lock(permits.mutex);
    ++permits.in_use;
}

int gate::in_use(storage tier) noexcept {
    tier_permits& permits = permits_of(tier);
    const std::scoped_lock lock(permits.mutex);
    return permits.in_use;
}

}  // namespace tokengate::detail
