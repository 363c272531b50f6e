// SPDX-License-Identifier: MIT
#pragma once

#include "executor/executor.hpp"

#include <tokengate/detail/core_context.hpp>
#include <tokengate/detail/hook.hpp>

#include <atomic>
#include <coroutine>
#include <mutex>
#include <utility>

/// Awaitables for tests: the awaiting tokens suspend, and each is resumed on its own loop once somebody sets the event.
///
///     manual_event go;              countdown arrived{2};
///     co_await go;                  arrived.arrive();             // in tokens
///     go.set();                     co_await arrived;             // any thread; any coroutine that a loop runs
///
/// Thread-safe. Stays set; must outlive the awaits, which must happen on a loop's thread.

namespace tokengate::test {

class manual_event {
public:
    void set() {
        detail::hook_queue all;
        {
            const std::scoped_lock lock(mutex_);
            set_ = true;
            all.append(waiting_);
        }
        while (!all.empty()) {
            auto* each = static_cast<awaiter*>(all.pop());
            each->host_->loop.post(each);
        }
    }

    auto operator co_await() noexcept { return awaiter(*this); }

private:
    class awaiter : public detail::hook {
    public:
        explicit awaiter(manual_event& event) noexcept : hook{}, event_(event) {}

        bool await_ready() const noexcept { return false; }
        bool await_suspend(std::coroutine_handle<> awaiting) {
            detail::core_context& core = detail::context();
            host_ = core.host;
            token_ = core.current;
            awaiting_ = awaiting;
            run = [](hook* self) noexcept {
                auto& mine = *static_cast<awaiter*>(self);
                mine.host_->resume_token(*detail::this_core, mine.token_, mine.awaiting_);
            };
            const std::scoped_lock lock(event_.mutex_);
            if (event_.set_) return false;
            event_.waiting_.push(this);
            return true;
        }
        void await_resume() const noexcept {}

    private:
        friend manual_event;

        manual_event& event_;
        detail::executor* host_ = nullptr;
        detail::token_record* token_ = nullptr;
        std::coroutine_handle<> awaiting_;
    };

    std::mutex mutex_;  // guards the two below
    detail::hook_queue waiting_;
    bool set_ = false;
};

/// Set by the last of `count` arrivals.
class countdown {
public:
    explicit countdown(unsigned count) noexcept : left_(count) {}

    void arrive() {
        if (left_.fetch_sub(1, std::memory_order_acq_rel) == 1)
            done_.set();  // each arrival happens before the event
    }
    auto operator co_await() noexcept { return done_.operator co_await(); }

private:
    std::atomic<unsigned> left_;
    manual_event done_;
};

}  // namespace tokengate::test
