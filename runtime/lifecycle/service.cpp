// SPDX-License-Identifier: MIT
#include "lifecycle/service.hpp"

#include "base/what_of.hpp"
#include "executor/executor.hpp"
#include "executor/stop.hpp"
#include "lifecycle/runtime_core.hpp"

#include <tokengate/detail/promise.hpp>
#include <tokengate/operation.hpp>
#include <tokengate/runtime.hpp>
#include <tokengate/task_token.hpp>
#include <tokengate/token.hpp>

#include <algorithm>
#include <cstring>
#include <deque>
#include <exception>
#include <string>
#include <utility>

// A live instance is counted neither as admitted nor as ended. When it has ended, it is counted as
// both at once. So the sums of life_cycle.cpp, step 3, are those of all other tokens. Instances
// start and end on the control loop's thread, which also takes the sums.

namespace tokengate::detail {

namespace {

std::string ended_text(const operation_record& operation, const std::exception_ptr& error) {
    return std::string("the service \"") + operation.name +
           "\" has ended, until the runtime is run or started again: " + what_of(error);
}

}  // namespace

const operation_record& service_operation(const char* name) {
    struct operations {
        std::mutex mutex;
        std::deque<operation_record> all;  // a deque: the addresses stay valid
    };
    static auto* forever = new operations;
    const std::scoped_lock lock(forever->mutex);
    for (const operation_record& known : forever->all)
        if (std::strcmp(known.name, name) == 0) return known;
    return forever->all.emplace_back(operation_record{.name = name,
                                                      .weight_class = weight::medium,
                                                      .tier = storage::none,
                                                      .flags = unroutable | exempt,
                                                      .index = own_operation});
}

void run_detached(task<> work, const char* name) {
    const operation_record& operation = service_operation(name);
    const auto coroutine = task_access::release(std::move(work));
    if (!coroutine) throw_empty_task();
    const bool conducted = adopt(context(), coroutine.promise(), operation);
    token_access::adopt(coroutine, conducted).admit();
}

runtime_core& runtime_access::core(runtime& of) noexcept { return *of.core_; }

// ---- service ------------------------------------------------------------------------------------

service::service(runtime_core& of, std::function<task<>()> make, const char* name)
    : node_(std::make_shared<node>()) {
    node_->of = &of;
    node_->make = std::move(make);
    node_->operation = &service_operation(name);
    of.services().add(node_);
}

service::~service() { node_->of->services().remove(*node_); }

// ---- service_desk -------------------------------------------------------------------------------

service_desk::service_desk(runtime_core& of) noexcept : of_(of) {
    update_.of = this;
    update_.run = [](hook* self) noexcept {
        service_desk& desk = *static_cast<update_hook*>(self)->of;
        {
            const std::scoped_lock lock(desk.mutex_);
            desk.update_.under_way = false;
        }
        desk.update();
    };
}

void service_desk::add(std::shared_ptr<service::node> made) {
    const std::scoped_lock lock(mutex_);
    all_.push_back(std::move(made));
    request_update();
}

void service_desk::remove(service::node& leaving) noexcept {
    std::unique_lock lock(mutex_);
    leaving.removed = true;
    if (!leaving.token) {
        forget(leaving);
        return;
    }
    request_update();
    // A thread of this runtime must not wait: `ended` removes the node later.
    if (this_core && this_core->runtime == &of_) return;
    left_.wait(lock, [&] { return !leaving.token; });
}

std::shared_ptr<service::node> service_desk::forget(const service::node& gone) noexcept {
    const auto found = std::find_if(all_.begin(), all_.end(),
                                    [&](const auto& each) { return each.get() == &gone; });
    std::shared_ptr<service::node> last = std::move(*found);
    all_.erase(found);
    return last;
}

void service_desk::request_update() noexcept {
    if (open_ && !std::exchange(update_.under_way, true)) of_.control().loop.post(&update_);
}

void service_desk::open() {
    {
        const std::scoped_lock lock(mutex_);
        if (of_.control().loop.closed()) return;  // the loop got a thread only in order to end
        open_ = true;
        for (const auto& each : all_) each->done = each->asked = false;
    }
    note_time(context());
    update();
}

/// Starts each service that has not run under this hosting, and requests a stop of each removed
/// one.
void service_desk::update() noexcept {
    std::vector<std::string> warnings;
    {
        const std::scoped_lock lock(mutex_);
        const core_context* here = this_core;
        // If this is false, the destroying thread runs the hook as mail that was left.
        if (!open_ || !here || here->host != &of_.control()) return;
        for (const auto& each : all_) {
            if (each->removed && each->token && !std::exchange(each->asked, true)) {
                each->token->stop.set_bits(stop_asked);
                deliver_stop(*this_core, *each->token);
            }
            if (each->removed || each->done) continue;
            each->done = true;
            try {
                start(*each);
            } catch (...) {
                warnings.push_back(ended_text(*each->operation, std::current_exception()));
            }
        }
    }
    for (const std::string& text : warnings) of_.warn(text);
}

void service_desk::start(service::node& chosen) {
    const auto coroutine = task_access::release(chosen.make());
    if (!coroutine) throw_empty_task();
    core_context& core = *this_core;
    token_record& token = coroutine.promise().token;
    adopt(core, coroutine.promise(), *chosen.operation);
    chosen.waiter::done = [](token_record& of, waiter& self) noexcept {
        auto& ended_one = static_cast<service::node&>(self);
        ended_one.of->services().ended(of, ended_one);
    };
    // Null, so that the end is counted after `ended`, in one step with the admission there.
    chosen.home = nullptr;
    chosen.token = &token;
    token.owner = reinterpret_cast<std::uintptr_t>(static_cast<waiter*>(&chosen));
    token.awaited_by.store(0);
    token.position.store(no_position);
    token.runtime.store(of_.slot);
    token.run = start_token;
    core.host->send(core.host->position(), token);
}

void service_desk::ended(token_record& token, service::node& of) noexcept {
    this_core->counts.admitted.add(1);
    promise_base& promise = promise_base::of(token);
    std::exception_ptr error = std::exchange(promise.error, nullptr);
    if (error && was_asked_for(token, error)) error = nullptr;
    const operation_record& operation = *of.operation;
    // Before the lock: the thread that destroys the service next destroys objects to which the
    // frame may refer.
    promise.handle().destroy();
    std::shared_ptr<service::node> gone;  // destroyed after the lock is released
    {
        const std::scoped_lock lock(mutex_);
        of.token = nullptr;
        if (of.removed) gone = forget(of);
        left_.notify_all();
    }
    if (error) of_.warn(ended_text(operation, error));
}

bool service_desk::close() noexcept {
    const std::scoped_lock lock(mutex_);
    open_ = false;
    bool none = true;
    for (const auto& each : all_) {
        if (!each->token) continue;
        none = false;
        if (std::exchange(each->asked, true)) continue;
        each->token->stop.set_bits(stop_asked);
        deliver_stop(*this_core, *each->token);
    }
    return none;
}

}  // namespace tokengate::detail
