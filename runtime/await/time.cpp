// SPDX-License-Identifier: MIT
#include <tokengate/time.hpp>

#include "executor/executor.hpp"

#include <tokengate/error.hpp>

#include <string>
#include <utility>

namespace tokengate::detail {

namespace {

/// The duration in the largest unit that needs no fraction: "2s", "1500ms".
std::string readable(std::chrono::nanoseconds duration) {
    const std::pair<std::int64_t, const char*> units[] = {
        {1'000'000'000, "s"}, {1'000'000, "ms"}, {1000, "us"}};
    for (const auto& [size, name] : units)
        if (duration.count() % size == 0) return std::to_string(duration.count() / size) + name;
    return std::to_string(duration.count()) + "ns";
}

}  // namespace

std::uint64_t deadline_after(std::chrono::nanoseconds from_now) noexcept {
    if (from_now.count() <= 0) return 0;
    // Both terms are below 2^63, so the sum does not overflow. A deadline from 2^63 ns on never
    // arrives.
    return event_loop::steady_ns() + static_cast<std::uint64_t>(from_now.count());
}

std::uint64_t deadline_at(std::chrono::nanoseconds since_epoch) noexcept {
    return since_epoch.count() <= 0 ? 0 : static_cast<std::uint64_t>(since_epoch.count());
}

// ---- sleep --------------------------------------------------------------------------------------

bool sleep::await_suspend(std::coroutine_handle<> awaiting) {
    core_context& core = enter("sleep");
    if (timer_.deadline_ns == 0 || timer_.deadline_ns <= core.host->loop.turn_began_ns())
        return false;
    suspend(core, awaiting, [](core_context& at, wait_point& point) noexcept {
        auto& self = static_cast<sleep&>(static_cast<suspension&>(point));
        at.host->loop.withdraw(self.timer_);
        self.stopped_ = true;
        self.wake();
    });
    timer_.of = this;
    timer_.run = [](hook* due) noexcept { static_cast<alarm*>(due)->of->wake(); };
    core.host->loop.arm(timer_);
    return true;
}

void sleep::await_resume() const {
    if (stopped_) throw_stopped(*token, "sleep");
}

bool yielding::await_suspend(std::coroutine_handle<> awaiting) {
    core_context& core = enter("yield");
    suspend(core, awaiting, nullptr);
    core.host->loop.ready_start(this);  // also behind the tokens that wait to start here
    return true;
}

// ---- timeouts -----------------------------------------------------------------------------------

time_limit::time_limit(token_record& limited, std::chrono::nanoseconds limit)
    // on_a_loop instead of `enter`: the await that follows passes a stop of the awaiter on to the
    // limited token.
    : home_(suspension::on_a_loop("wait with a timeout").host),
      limited_(&limited),
      limit_(limit),
      id_(limited.id()) {
    timer_.of = this;
    timer_.run = [](hook* due) noexcept {
        time_limit& self = *static_cast<alarm*>(due)->of;
        self.over_ = true;
        self.started_ = self.limited_->state.load() >= token_state::executing;
        request_stop(*self.limited_, stop_timeout);
    };
    timer_.deadline_ns = deadline_after(limit);
    if (timer_.deadline_ns == 0)
        timer_.run(&timer_);
    else
        home_->loop.arm(timer_);
}

time_limit::~time_limit() { home_->loop.withdraw(timer_); }

void time_limit::rethrow_if_over() const {
    if (!over_) return;
    throw token_timeout("token_timeout: " + id_.text() +
                        (started_ ? " ran longer than " : " had not been started within ") +
                        readable(limit_));
}

void wait_limit::check() const {
    if (limit_.count() > 0) return;
    suspension::enter("wait");  // throws first if a stop is pending or this thread has no loop
    throw_over();
}

void wait_limit::begin(suspension& wait) noexcept {
    wait_ = &wait;
    timer_.of = this;
    timer_.run = [](hook* due) noexcept {
        wait_limit& self = *static_cast<alarm*>(due)->of;
        token_record* const token = self.wait_->token;
        // If the token does not wait here any more, it has been woken or a stop came before.
        if (!token || token->waits_at() != self.wait_) return;
        self.over_ = true;
        token->wait_is_over();
        self.wait_->on_stop(*this_core, *self.wait_);
    };
    timer_.deadline_ns = deadline_after(limit_);
    wait.home->loop.arm(timer_);
}

void wait_limit::end() noexcept {
    if (wait_) std::exchange(wait_, nullptr)->home->loop.withdraw(timer_);
}

void wait_limit::throw_over() const {
    const token_record* token = this_core->current;
    throw token_timeout("token_timeout: " + (token ? token->id().text() : std::string("a wait")) +
                        " waited longer than " + readable(limit_));
}

}  // namespace tokengate::detail
