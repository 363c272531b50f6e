// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/admission.hpp>
#include <tokengate/detail/promise.hpp>
#include <tokengate/task.hpp>
#include <tokengate/token_info.hpp>

#include <coroutine>
#include <utility>

/// A token is the call of an operation, suspended at admission, and the handle to its result. It
/// does not run before it is awaited, admitted, grouped or submitted.
///
///     tg::token<int> t = parse("42");  // nothing has run
///     // admitted, routed, run on its core; the result comes back to this thread
///     int n = co_await t;
///
///     t.admit();  // runs on its own; await it later, or drop the handle to let it run detached
///
/// Thread safety: A handle belongs to one thread at a time.
///
/// Lifetime: If a handle is dropped before admission, the token is destroyed unrun. If it is
/// dropped after, the token runs on detached, and a failure goes to the runtime's failure handler.
///
/// Errors:
/// * already_awaited for a handle without a token, and from `admit` for an admitted token.
/// * wrong_thread from `admit` and the await where no event loop runs.
/// * wrong_runtime from `admit` and the await for a token of another runtime.
/// * From the await: the exception of the body, or the reason why the token ended: token_stopped,
///   token_killed, token_timeout, admission_rejected, operation_blocked.
///
/// Stop: If the awaiter is asked to stop, the awaited token is asked too. The await ends when that
/// token has ended.

namespace tokengate {

namespace detail {
struct token_access;
}

template <class T = void>
class [[nodiscard]] token {
public:
    using value_type = T;

    token() noexcept = default;
    token(token&& other) noexcept
        : coroutine_(std::exchange(other.coroutine_, nullptr)),
          admitted_(other.admitted_),
          in_domain_(other.in_domain_) {}
    token& operator=(token&& other) noexcept {
        token moved(std::move(other));
        std::swap(coroutine_, moved.coroutine_);
        std::swap(admitted_, moved.admitted_);
        std::swap(in_domain_, moved.in_domain_);
        return *this;
    }
    [[gnu::always_inline]] ~token() {
        if (!coroutine_) return;
        admitted_ ? detail::drop_admitted(record()) : detail::drop_unadmitted(record());
    }

    /// Whether the handle has a token.
    [[nodiscard]] bool valid() const noexcept { return coroutine_ != nullptr; }

    /// The id of the token. Throws already_awaited for a handle without a token.
    [[nodiscard]] token_id id() const {
        if (!coroutine_) detail::throw_already_awaited();
        return record().id();
    }

    /// Passes the token to the gate without waiting for it. Call it on the thread of an event loop;
    /// elsewhere use `runtime::submit`.
    void admit() {
        if (!coroutine_) detail::throw_already_awaited();
        if (admitted_) detail::throw_already_admitted(record());
        detail::check_admissible(record());
        admitted_ = true;
        record().awaited_by.store(0);
        detail::admit(*detail::this_core, record());
    }

    /// Asks the token to stop, regardless of its state; see stop.hpp. A token that has not started
    /// never starts.
    void request_stop() {
        if (!coroutine_) detail::throw_already_awaited();
        detail::request_stop(record(), detail::stop_asked);
    }

    /// Admits the token if it is not admitted, and waits for its result.
    [[gnu::always_inline]] auto operator co_await() {
        if (!coroutine_) detail::throw_already_awaited();
        const bool here = may_begin_here(record());
        if (!here) detail::check_admissible(record());  // before the handle loses the token
        return awaiter{std::exchange(coroutine_, nullptr), admitted_, here};
    }

private:
    friend detail::token_access;
    using handle = std::coroutine_handle<detail::promise<T>>;

    token(handle coroutine, bool conducted) noexcept
        : coroutine_(coroutine), in_domain_(conducted) {}

    [[nodiscard]] detail::token_record& record() const noexcept {
        return coroutine_.promise().token;
    }

    /// Whether a child may begin in place without the gate. It is conducted and on its domain's own
    /// core, or kept at once, and the running token has nothing to release or to pass on.
    static bool may_begin_here(const detail::token_record& child) noexcept {
        const detail::core_context* core = detail::this_core;
        if (!core || !core->current || (core->current->word() & detail::forbids_in_place) != 0)
            return false;
        if (child.word() == detail::made_conducted)
            return static_cast<detail::domain*>(child.anchor)->home == core;
        return detail::keeps_at_once(*core, child);
    }

    class awaiter {
    public:
        awaiter(handle coroutine, bool admitted, bool here) noexcept
            : coroutine_(coroutine), admitted_(admitted), here_(here) {}
        awaiter(const awaiter&) = delete;
        awaiter& operator=(const awaiter&) = delete;
        [[gnu::always_inline]] ~awaiter() {
            // If the token has not ended, the awaiting frame is destroyed without having been
            // resumed.
            ended_      ? coroutine_.destroy()
            : admitted_ ? detail::drop_admitted(record())
                        : detail::drop_unadmitted(record());
        }

        bool await_ready() const noexcept { return false; }

        /// A child that may begin in place runs at once, within the budget of this turn.
        [[gnu::always_inline]] detail::started await_suspend(std::coroutine_handle<> parent) {
            detail::core_context& core = *detail::this_core;
            if (!here_ || --core.inline_budget < 0) [[unlikely]]
                return hand_over(parent);
            return run_in_place(core, record(), parent, record().flags);
        }

        T await_resume() {
            ended_ = true;
            if (self_.token) {
                self_.token->wait_is_over();
                detail::retake_permit(*detail::this_core, *self_.token);
            }
            return coroutine_.promise().take();
        }

    private:
        [[nodiscard]] detail::token_record& record() const noexcept {
            return coroutine_.promise().token;
        }

        [[gnu::always_inline]] detail::started run_in_place(
            detail::core_context& core, detail::token_record& token, std::coroutine_handle<> parent,
            std::uint16_t flags, bool measured = false) {
            self_.done = nullptr;
            self_.home = core.host;
            self_.token = core.current;
            admitted_ = true;
            token.owner = reinterpret_cast<std::uintptr_t>(static_cast<detail::waiter*>(&self_));
            token.awaited_by.store(core.current->sequence.load());
            token.set_word(
                core.in_place |
                detail::token_word{0, 0, flags, token_state{}, 0}.bits());  // lists the token
            core.counts.in_place.add(1);
            if (flags & detail::leads) detail::open_domain(core, token);
            core.current->wait_for(token);
            core.current = &token;
            return measured ? detail::start_measured(core, token, self_.handle, parent)
                            : detail::start_child(core, coroutine_, self_.handle, parent);
        }

        /// Takes the child through the gate. A function of its own, so that the code above stays
        /// short.
        [[gnu::noinline]] detail::started hand_over(std::coroutine_handle<> parent) {
            detail::core_context& core = *detail::this_core;
            detail::token_record& token = record();
            if (may_run_in_place(core, token)) {
                const detail::place at = detail::place_of(core, token);
                std::uint16_t flags = token.flags;
                if (at == detail::place::here ||
                    (at == detail::place::kept && detail::keeps(core, token))) {
                    bool in_place = --core.inline_budget >= 0;
                    if (!in_place && detail::begin_watched(core, token)) {
                        in_place = true;
                        flags |= detail::watched;
                    }
                    const bool measured =
                        at == detail::place::kept && !detail::known_to_be_short(core, token);
                    if (in_place) return run_in_place(core, token, parent, flags, measured);
                }
            }
            self_.done = nullptr;
            self_.home = core.host;
            self_.token = core.current;
            self_.handle = parent;
            token.awaited_by.store(core.current ? core.current->sequence.load() : 0);
            if (core.current) {
                detail::give_up_permit(core, *core.current);
                core.current->wait_for(token);
                // The running token was asked to stop before it began to wait, so its child is
                // asked, too.
                if (core.current->stop_pending()) [[unlikely]]
                    detail::request_stop(token, detail::stop_asked);
            }
            const auto self =
                reinterpret_cast<std::uintptr_t>(static_cast<detail::waiter*>(&self_));
            if (admitted_) {
                const auto claimed = token.shared_owner().exchange(self, std::memory_order_acq_rel);
                return claimed == detail::owner_done ? detail::not_suspended(parent)
                                                     : detail::stay_suspended();
            }
            admitted_ = true;
            token.owner = self;
            detail::admit(core, token);
            return detail::stay_suspended();
        }

        bool may_run_in_place(const detail::core_context& core,
                              const detail::token_record& token) const noexcept {
            return !admitted_ && core.current &&
                   (core.current->word() & detail::forbids_in_place) == 0 &&
                   !token.stop_requested();
        }

        handle coroutine_;
        bool admitted_;
        bool here_;
        bool ended_ = false;
        detail::coroutine_waiter self_;
    };

    handle coroutine_ = nullptr;
    bool admitted_ = false;
    bool in_domain_ = false;  // as in its record, which may be in no cache any more
};

namespace detail {

struct token_access {
    template <class T>
    static token<T> adopt(std::coroutine_handle<promise<T>> coroutine, bool conducted) noexcept {
        return token<T>(coroutine, conducted);
    }
    template <class T>
    static bool admitted(const token<T>& from) noexcept {
        return from.admitted_;
    }
    /// Whether the token belongs to a runtime already: it was admitted, or is in a seed domain.
    template <class T>
    static bool bound(const token<T>& from) noexcept {
        return from.admitted_ || from.in_domain_;
    }
    template <class T>
    static void mark_admitted(token<T>& of) noexcept {
        of.admitted_ = true;
    }
    template <class T>
    static token_record& record(const token<T>& of) noexcept {
        return of.record();
    }
    template <class T>
    static promise<T>& promise_of(const token<T>& of) noexcept {
        return of.coroutine_.promise();
    }
    template <class T>
    static std::coroutine_handle<promise<T>> handle_of(const token<T>& of) noexcept {
        return of.coroutine_;
    }
    /// For a token that has ended and whose result is taken: destroys the frame.
    template <class T>
    static void destroy(token<T>& ended) noexcept {
        std::exchange(ended.coroutine_, nullptr).destroy();
    }
    template <class T>
    static std::coroutine_handle<promise<T>> release(token<T>& from) noexcept {
        return std::exchange(from.coroutine_, nullptr);
    }
};

}  // namespace detail
}  // namespace tokengate
