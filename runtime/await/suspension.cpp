// SPDX-License-Identifier: MIT
#include <tokengate/detail/suspension.hpp>

#include "executor/executor.hpp"
#include "executor/stop.hpp"

#include <tokengate/error.hpp>

#include <string>

namespace tokengate::detail {

core_context& suspension::on_a_loop(const char* what) {
    core_context* core = this_core;
    if (!core || !core->host)
        throw wrong_thread(std::string("wrong_thread: a coroutine was to ") + what +
                           " on a thread without an event loop: await it inside a coroutine that "
                           "the runtime runs");
    return *core;
}

core_context& suspension::enter(const char* what) {
    core_context& core = on_a_loop(what);
    if (core.current && core.current->stop_pending()) [[unlikely]] {
        if (core.current->flags & has_callbacks) core.host->run_stop_callbacks(*core.current);
        throw_stopped(*core.current, what);
    }
    return core;
}

void throw_stopped(const token_record& token, const char* what) {
    throw token_stopped("token_stopped: " + token.id().text() + " was asked to stop: it did not " +
                        what);
}

void suspension::wake() noexcept {
    wait_is_over();
    home->loop.ready(this);
}

void suspension::wake_behind_starts() noexcept {
    run = [](hook* self) noexcept {
        self->run = &suspension::resume_suspended;
        this_core->host->loop.ready(self);
    };
    this_core->host->loop.ready_start(this);
}

void suspension::wake_from_anywhere() noexcept { send_home(*home, this); }

void suspension::resume_suspended(hook* item) noexcept {
    auto& self = *static_cast<suspension*>(item);
    self.wait_is_over();
    self.home->resume_token(*this_core, self.token, self.handle);
}

}  // namespace tokengate::detail
