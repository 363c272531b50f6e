// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/admission.hpp>
#include <tokengate/detail/hook.hpp>
#include <tokengate/detail/suspension.hpp>
#include <tokengate/task.hpp>
#include <tokengate/task_token.hpp>
#include <tokengate/token.hpp>

#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <limits>
#include <type_traits>
#include <utility>

/// A scope owns tokens whose number is not known beforehand; none outlives it. The body runs at
/// once, on this loop, as a token of its own. On every path out of the body, the scope waits until
/// all that it spawned have ended. At the first failure it asks the rest (the body too) to stop,
/// and rethrows the failure once all have ended. With `on_failure::report`, a child's failure goes
/// to the runtime's failure handler, and the others go on. A failure of the body is a failure of
/// the scope either way. A child is destroyed when it ends, so a server's scope does not grow. The
/// scope drops the results of its children: pass out by reference or channel what you want to keep.
///
///     co_await tg::with_scope([&](tg::scope& jobs) -> tg::task<> {
///         for (auto& u : urls) co_await jobs.spawn(fetch(u));  // waits at the scope's limit
///     });  // joins; rethrows the first failure
///
///     co_await tg::with_scope({.limit = 1000, .on_failure = tg::on_failure::report},
///                             serve_clients);
///
/// Thread safety: A scope belongs to its loop. All calls are for tokens of that core; on another
/// core, open a scope there.
///
/// Errors:
/// * From `spawn`: wrong_thread for a spawner on another core, token_stopped once the spawner or
///   the scope is asked to stop. already_awaited for an empty handle or an admitted token,
///   wrong_runtime for a token of another runtime, std::bad_alloc. `spawn` then drops the token,
///   unrun unless it was admitted before.
/// * From `with_scope`: the first failure, or token_stopped if a stop of the awaiter has cut a
///   child short. wrong_thread where no event loop runs.
///
/// Stop: The scope passes a stop of the awaiting token to the body and to every child. A stop ends
/// the wait of `spawn` with token_stopped.

namespace tokengate {

enum class on_failure : std::uint8_t { stop, report };

struct scope_options {
    /// The most children alive at a time; 0 counts as 1.
    std::size_t limit = std::numeric_limits<std::size_t>::max();
    tokengate::on_failure on_failure = tokengate::on_failure::stop;
};

namespace detail {

struct scope_access;

/// The part of a scope that does not depend on types. All of it belongs to the thread of its loop.
class scope_core {
public:
    scope_core(const scope_core&) = delete;
    scope_core& operator=(const scope_core&) = delete;

    /// Asks all children and the body to stop.
    void request_stop() noexcept;

    /// The number of children alive, and of rooms taken for those about to be admitted.
    [[nodiscard]] std::size_t size() const noexcept { return alive_; }

protected:
    explicit scope_core(const scope_options& options);
    ~scope_core() = default;

    /// A child, listed by the scope from its admission to its end.
    struct child : waiter {
        scope_core* of;
        token_record* work;
        child* previous;
        child* next;
    };

    /// A spawner that waits for room, in turn.
    struct spawner : suspension {
        scope_core* of = nullptr;
        const token_record* spawned = nullptr;
        bool has_room = false;
    };

    class joining : public suspension {
    public:
        explicit joining(scope_core& of) noexcept : of_(of) {}
        bool await_ready() const noexcept { return false; }
        bool await_suspend(std::coroutine_handle<> awaiting);
        void await_resume();

    private:
        scope_core& of_;
    };

    /// Throws unless the running token may spawn this one here.
    void check_spawn(const token_record& token, bool admitted) const;
    /// Takes room for a child, or waits for it; returns true if the spawner is suspended. A
    /// suspended spawner releases its storage permit.
    bool take_room(spawner& waiting, std::coroutine_handle<> awaiting, const token_record& spawned);
    /// For a suspended spawner that has room in the scope: waits for room at the gate too, if it
    /// has to. Returns whether it waits.
    static bool wait_for_gate(spawner& waiting) noexcept;
    static void spawner_resumed();
    void give_room_back() noexcept;
    void admit_child(token_record& token);

    void start_body(token_record& body) noexcept;
    [[nodiscard]] joining join() noexcept { return joining(*this); }
    /// Also throws token_stopped if a stop of the awaiter has cut children short, because their
    /// work is not done.
    void rethrow_failure();

private:
    static void child_ended(token_record& token, waiter& self) noexcept;
    static void body_ended(token_record& token, waiter& self) noexcept;
    void fail(token_record& token, std::exception_ptr error) noexcept;
    void stop_from_outside() noexcept;
    void wake_if_joined() noexcept;
    [[nodiscard]] bool all_ended() const noexcept { return alive_ == 0 && !body_; }

    const scope_options options_;
    const std::size_t room_;
    executor* const home_;
    token_record* const owner_;  // the token that has opened the scope and awaits its end
    std::size_t alive_ = 0;      // children, and rooms taken for those about to be admitted
    bool stopping_ = false;
    bool stopped_from_outside_ = false;  // by a stop of the awaiter
    bool cut_short_ = false;             // a child has ended with token_stopped, as requested
    child* children_ = nullptr;          // doubly linked: any may be the next to end
    hook_queue spawners_;  // wait for room; no more than the tokens of this loop that spawn
    joining* joiner_ = nullptr;
    child body_waiter_{};
    token_record* body_ = nullptr;  // while it lives
    std::exception_ptr first_failure_;
};

}  // namespace detail

class scope : public detail::scope_core {
public:
    /// Admits a token. If the scope is at its limit, the spawner waits for room first.
    template <class T>
    [[nodiscard]] auto spawn(token<T> work) {
        return admission<T>(*this, std::move(work));
    }
    /// The same for a task, which runs on this loop.
    template <class T>
    [[nodiscard]] auto spawn(task<T> work) {
        return spawn(as_token(std::move(work)));
    }

private:
    friend detail::scope_access;
    using scope_core::scope_core;

    template <class T>
    class admission : public spawner {
    public:
        admission(scope& of, tokengate::token<T>&& work) noexcept
            : of_(of), work_(std::move(work)) {}

        bool await_ready() const noexcept { return false; }
        bool await_suspend(std::coroutine_handle<> awaiting) {
            if (!work_.valid()) detail::throw_already_awaited();
            check();
            return of_.take_room(*this, awaiting, detail::token_access::record(work_));
        }
        void await_resume() {
            spawner_resumed();
            if (!this->has_room) detail::throw_stopped(*this->token, "spawn into a scope");
            try {
                check();  // the scope or the spawner may have been asked to stop during the wait
                of_.admit_child(detail::token_access::record(work_));
            } catch (...) {
                of_.give_room_back();
                throw;
            }
            static_cast<void>(detail::token_access::release(work_));
        }

    private:
        void check() const {
            of_.check_spawn(detail::token_access::record(work_),
                            detail::token_access::admitted(work_));
        }

        scope& of_;
        tokengate::token<T> work_;
    };
};

namespace detail {

struct scope_access {
    template <class T, class Body>
    static task<T> run(scope_options options, Body body) {
        scope opened(options);
        token<T> running = as_token(body(opened));
        token_access::mark_admitted(running);
        opened.start_body(token_access::record(running));
        co_await opened.join();
        const auto frame = token_access::release(running);
        struct destroyer {
            std::coroutine_handle<> frame;
            ~destroyer() { frame.destroy(); }
        } const at_end{frame};
        opened.rethrow_failure();
        if constexpr (std::is_void_v<T>)
            co_return;
        else
            co_return frame.promise().take();
    }
};

}  // namespace detail

/// Runs `body(scope&)`, a coroutine that returns a task, in a scope. Returns the result of the
/// body.
template <class Body>
auto with_scope(scope_options options, Body body) {
    using T = typename std::invoke_result_t<Body&, scope&>::value_type;
    return detail::scope_access::run<T>(options, std::move(body));
}
template <class Body>
auto with_scope(Body body) {
    return with_scope(scope_options{}, std::move(body));
}

}  // namespace tokengate
