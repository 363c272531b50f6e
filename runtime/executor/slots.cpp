// SPDX-License-Identifier: MIT
#include "executor/slots.hpp"

#include "executor/shared.hpp"

#include <mutex>
#include <unordered_map>
#include <utility>

namespace tokengate::detail {

/// The runtimes of the process, linked through `older`; guarded by the slots' mutex. Only debuggers
/// use it, and find it by its name (runtime/gdb/tokengate.py).
[[gnu::used]] constinit shared_state* newest_runtime = nullptr;

namespace {

using failure_handler = std::function<void(const failure&)>;

struct runtime_slots {
    std::mutex mutex;
    struct living {
        shared_state* core;
        std::shared_ptr<const failure_handler> handler;
    };
    std::unordered_map<std::uint16_t, living> runtimes;
    std::uint16_t last = 0;
};

runtime_slots& slots() {
    static auto* forever = new runtime_slots;
    return *forever;
}

/// Under the slots' mutex. Null: the runtime has been unlinked already.
void unlink(const shared_state* gone) noexcept {
    for (shared_state** link = &newest_runtime; *link; link = &(*link)->older) {
        if (*link != gone) continue;
        *link = gone->older;
        return;
    }
}

}  // namespace

slot_lease::slot_lease(shared_state& of, const failure_handler& handler) {
    runtime_slots& all = slots();
    const std::scoped_lock lock(all.mutex);
    do ++all.last;
    while (all.last == 0 || all.runtimes.contains(all.last));
    slot_ = all.last;
    all.runtimes.emplace(slot_, runtime_slots::living{
                                    &of, std::make_shared<const failure_handler>(handler)});
    of.older = std::exchange(newest_runtime, &of);
}

void slot_lease::retire() const noexcept {
    runtime_slots& all = slots();
    const std::scoped_lock lock(all.mutex);
    unlink(std::exchange(all.runtimes.at(slot_).core, nullptr));
}

slot_lease::~slot_lease() {
    runtime_slots& all = slots();
    const std::scoped_lock lock(all.mutex);
    unlink(all.runtimes.at(slot_).core);  // not null if a constructor threw
    all.runtimes.erase(slot_);
}

std::shared_ptr<const failure_handler> failure_handler_of(std::uint16_t slot) {
    runtime_slots& all = slots();
    const std::scoped_lock lock(all.mutex);
    const auto found = all.runtimes.find(slot);
    return found == all.runtimes.end() ? nullptr : found->second.handler;
}

void with_runtime(std::uint16_t slot, const std::function<void(shared_state&)>& visit) {
    runtime_slots& all = slots();
    const std::scoped_lock lock(all.mutex);
    if (const auto found = all.runtimes.find(slot);
        found != all.runtimes.end() && found->second.core)
        visit(*found->second.core);
}

}  // namespace tokengate::detail
