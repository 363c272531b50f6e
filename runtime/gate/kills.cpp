// SPDX-License-Identifier: MIT
#include "gate/kills.hpp"

#include "gate/selection.hpp"

#include <algorithm>
#include <mutex>
#include <unordered_set>
#include <utility>

namespace tokengate::detail {

void gate_kills::add(const selection& what, const sequence_marks& before, reason why) {
    const std::scoped_lock lock(mutex_);
    const std::uint64_t number = newest_.load(std::memory_order_relaxed) + 1;
    if (what.of() == selection::kind::one) {
        singles_.insert_or_assign(what.id().sequence, single{std::move(why), number});
    } else {
        rule added{what, before, std::move(why), number};
        for (const rule& each : rules_)  // of two equal kills at once, the later may be added first
            if (same_selection(each.what, what)) added.before.unite(each.before);
        rules_.push_back(std::move(added));
        std::erase_if(rules_, [&](const rule& each) {
            return each.number != number && same_selection(each.what, what);
        });
    }
    newest_.store(number, std::memory_order_release);
}

gate_kills::reason gate_kills::reason_for(const token_record& token, bool on_its_thread) const {
    if (!is_users(token)) return nullptr;
    const std::shared_lock lock(mutex_);
    const std::uint64_t sequence = token.sequence.load();
    if (const auto known = singles_.find(sequence); known != singles_.end())
        return known->second.why;
    for (const rule& each : rules_) {
        if (!each.before.covers(sequence)) continue;
        if (selects(each.what, token)) return each.why;
        if (each.what.of() == selection::kind::chain &&
            in_chain(token, each.what.id().sequence, on_its_thread))
            return each.why;
    }
    return nullptr;
}

bool gate_kills::names(const token_record& token) const {
    if (!is_users(token)) return false;
    const std::shared_lock lock(mutex_);
    const std::uint64_t sequence = token.sequence.load();
    return singles_.contains(sequence) || std::ranges::any_of(rules_, [&](const rule& each) {
               return each.before.covers(sequence) && selects(each.what, token);
           });
}

bool gate_kills::any() const {
    const std::shared_lock lock(mutex_);
    return !rules_.empty() || !singles_.empty();
}

bool gate_kills::forget(std::uint64_t up_to, const std::vector<token_info>& waiting) {
    std::unordered_set<std::uint64_t> still_there;
    for (const token_info& info : waiting) still_there.insert(info.id.sequence);
    const std::scoped_lock lock(mutex_);
    std::erase_if(singles_, [&](const auto& each) {
        return each.second.number <= up_to && !still_there.contains(each.first);
    });
    std::erase_if(rules_, [&](const rule& each) {
        return each.number <= up_to && std::ranges::none_of(waiting, [&](const token_info& info) {
                   // A token_info does not show which chain contains which.
                   const bool chained =
                       each.what.of() == selection::kind::chain && !info.domain.operation.empty();
                   return each.before.covers(info.id.sequence) &&
                          (chained || means(each.what, info));
               });
    });
    return !rules_.empty() || !singles_.empty();
}

}  // namespace tokengate::detail
