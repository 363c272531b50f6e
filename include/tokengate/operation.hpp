// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/anchor.hpp>
#include <tokengate/detail/arguments.hpp>
#include <tokengate/detail/promise.hpp>
#include <tokengate/detail/retry.hpp>
#include <tokengate/detail/time_limit.hpp>
#include <tokengate/options.hpp>
#include <tokengate/task.hpp>
#include <tokengate/token.hpp>

#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <type_traits>
#include <utility>

/// An operation is a callable with a name and options. A call of it makes a token, suspended at
/// admission; the call runs nothing. The callable is an ordinary function, or a coroutine that
/// returns tg::task. `const T&` and `T&&` parameters are stored as T, and `T&` takes a std::ref. A
/// coroutine's parameters must be values, since they outlive the call.
///
///     const tg::operation twice{{.name = "twice", .weight = tg::weight::light},
///                               [](int n) { return 2 * n; }};
///     int four = co_await twice(2);
///
/// Thread safety: An operation may be called on any thread. Its callable is called as const, from
/// any core at once.
///
/// Lifetime: The operation owns the callable, and the token owns the arguments by value. An
/// operation cannot be moved and must outlive its tokens. If it is destroyed while one exists, it
/// prints an error and terminates the process, since the token would call a dangling callable.
///
/// Errors:
/// * From the constructor: configuration_error for an option out of range, for retries of arguments
///   that cannot be copied, and beyond 65,534 different operations in the process.
/// * configuration_error for a name that a living operation has with other options. If a runtime
///   exists, the constructor throws it, else the constructor of the next runtime does.
/// * From a call: already_awaited if the callable returns an empty task.

namespace tokengate {

namespace detail {

const operation_record& register_operation(const operation_options& options, std::uint16_t flags,
                                           std::span<const char* const> calls,
                                           bool arguments_can_be_kept);
void unregister_operation(const operation_record& record) noexcept;

/// The stored form of a `T&` parameter: only a std::ref converts to it, so the caller states the
/// reference.
template <class T>
class explicit_reference {
public:
    explicit_reference(std::reference_wrapper<T> to) noexcept
        : to_(to) {}  // NOLINT(google-explicit-constructor)
    [[nodiscard]] T& get() const noexcept { return to_; }

private:
    std::reference_wrapper<T> to_;
};
}  // namespace detail
}  // namespace tokengate

template <class T>
struct std::hash<tokengate::detail::explicit_reference<T>> {
    std::size_t operator()(
        const tokengate::detail::explicit_reference<T>& reference) const noexcept {
        return std::hash<T*>{}(&reference.get());
    }
};

namespace tokengate {
namespace detail {

template <class P>
struct parameter {  // values
    using stored = P;
    static P&& pass(stored& from) noexcept { return static_cast<P&&>(from); }
};
template <class P>
struct parameter<const P&> {
    using stored = P;
    static const P& pass(stored& from) noexcept { return from; }
};
template <class P>
struct parameter<P&&> {
    using stored = P;
    static P&& pass(stored& from) noexcept { return static_cast<P&&>(from); }
};
template <class P>
struct parameter<P&> {
    using stored = explicit_reference<P>;
    static P& pass(stored& from) noexcept { return from.get(); }
};

template <class R>
struct returned {
    using value = std::conditional_t<std::is_rvalue_reference_v<R>, std::remove_cvref_t<R>, R>;
    static constexpr bool is_task = false;
};
template <class T>
struct returned<task<T>> {
    using value = T;
    static constexpr bool is_task = true;
};

/// The signature of a callable that has exactly one: a function, or an object with one const call
/// operator.
template <class F>
struct signature_of {
    static_assert(
        requires { &F::operator(); },
        "an operation needs a callable with one call operator: wrap overloaded or generic ones in "
        "a lambda with "
        "the parameter types written out");
    using type = typename signature_of<decltype(&F::operator())>::type;
};
template <class R, class... P>
struct signature_of<R (*)(P...)> {
    using type = R(P...);
};
template <class R, class... P>
struct signature_of<R (*)(P...) noexcept> {
    using type = R(P...);
};
template <class C, class R, class... P>
struct signature_of<R (C::*)(P...) const> {
    using type = R(P...);
};
template <class C, class R, class... P>
struct signature_of<R (C::*)(P...) const noexcept> {
    using type = R(P...);
};
template <class C, class R, class... P>
struct signature_of<R (C::*)(P...)> {
    static_assert(
        !sizeof(C*),
        "an operation's callable is called from every core at once, so it must be const: a lambda "
        "without `mutable`");
};

/// Sets the time of a context; a thread without a loop does not keep it up to date.
void note_time(core_context& core) noexcept;

/// Fills in the token record of a frame. If the running token is in a domain, the record inherits
/// the domain, and the call returns true. `awaited_by` is set later: it is read only once a runtime
/// has the token.
template <bool sticky = false>
[[gnu::always_inline]] inline bool adopt(core_context& core, promise_base& promise,
                                         const operation_record& operation,
                                         [[maybe_unused]] std::uint64_t key = 0) noexcept {
    const token_record* running = core.current;
    if (!running && !core.host) note_time(core);
    token_record& token = promise.token;
    token.operation.store(&operation);
    token.next = nullptr;  // in no queue
    token.owner = owner_unclaimed;
    const std::uint64_t sequence = core.next_sequence.load();
    token.sequence.store(sequence);
    core.next_sequence.store(sequence + 1);
    token.created_ns.store(core.turn_ns);
    std::uint64_t word = operation.made;
    const bool conducted = running && (running->flags & in_domain);
    if (conducted) {
        auto* inherited = static_cast<domain*>(running->anchor);
        ++inherited->pending;
        if constexpr (sticky) {
            core.counts.sticky_bypassed.add(1);
            word &= ~token_word{0, 0, sticky_key, token_state{}, 0}.bits();
        }
        word |= token_word{0, 0, in_domain, token_state{}, 0}.bits();
        token.anchor = inherited;
    } else if constexpr (sticky) {
        token.anchor = reinterpret_cast<void*>(key);
    }
    promise.is_token = true;
    token.set_word(word);  // last: a thread that acquires the state sees the operation, too
    return conducted;
}

template <class F, class Anchor, class Signature>
class typed_operation;

template <class F, class Anchor, class R, class... P>
class typed_operation<F, Anchor, R(P...)> {
    using result = typename returned<R>::value;
    static constexpr bool calls_coroutine = returned<R>::is_task;
    static constexpr bool can_be_kept = (copyable<typename parameter<P>::stored> && ...);
    static_assert(!calls_coroutine || (!std::is_reference_v<P> && ...),
                  "a coroutine's parameters outlive the call: take them by value, or as "
                  "std::reference_wrapper where the "
                  "referenced object is known to outlive the token");

public:
    /// Makes a token. Its parameters are the stored types, so that conversions and braces work at
    /// the call.
    [[nodiscard, gnu::always_inline]] token<result> operator()(
        typename parameter<P>::stored... arguments) const& {
        // Read once, because the code below writes to memory in between.
        const operation_record& record = record_;
        if (record.special.load() != 0) [[unlikely]]
            return make_special(std::move(arguments)...);
        return make(record, std::move(arguments)...);
    }
    token<result> operator()(
        typename parameter<P>::stored... arguments) const&& = delete;  // the token would dangle

    [[nodiscard]] std::string_view name() const noexcept { return record_.name; }

protected:
    typed_operation(const operation_options& options, Anchor anchor, F callable)
        : callable_(std::move(callable)),
          anchor_(std::move(anchor)),
          record_(register_operation(options, flags(), calls(), can_be_kept)) {}
    ~typed_operation() { unregister_operation(record_); }

private:
    static task<result> call(const F* callable, typename parameter<P>::stored... arguments) {
        if constexpr (std::is_void_v<result>) {
            (*callable)(parameter<P>::pass(arguments)...);
            co_return;
        } else {
            co_return (*callable)(parameter<P>::pass(arguments)...);
        }
    }

    [[gnu::always_inline]] token<result> make(const operation_record& record,
                                              typename parameter<P>::stored&&... arguments) const {
        core_context& core = context();
        std::uint64_t key = 0;
        if constexpr (is_sticky<Anchor>) key = anchor_.key(std::as_const(arguments)...);
        std::coroutine_handle<promise<result>> coroutine;
        if constexpr (calls_coroutine)
            coroutine = task_access::release(callable_(std::move(arguments)...));
        else
            coroutine = task_access::release(call(&callable_, std::move(arguments)...));
        if (!coroutine) throw_empty_task();
        const bool conducted = adopt<is_sticky<Anchor>>(core, coroutine.promise(), record, key);
        return token_access::adopt(coroutine, conducted);
    }

    [[gnu::noinline, gnu::cold]] token<result> make_apart(
        typename parameter<P>::stored... arguments) const {
        if (!(record_.special.load() & guarded)) return make(record_, std::move(arguments)...);
        argument_text text;
        if (record_.quarantine.factor != 0) (text.add(arguments), ...);
        token<result> made = make(record_, std::move(arguments)...);
        begin_notes(token_access::record(made), std::move(text));
        return made;
    }

    /// Calls of operations with a guard, a timeout or retries. A function of its own, with its
    /// arguments by value, so that other calls pay nothing for it.
    [[gnu::noinline, gnu::cold]] token<result> make_special(
        typename parameter<P>::stored... arguments) const {
        if (!(record_.special.load() & wraps)) return make_apart(std::move(arguments)...);
        if constexpr (can_be_kept) {
            if (record_.retry.attempts > 1) {
                std::uint64_t key = 0;
                if constexpr (is_sticky<Anchor>) key = anchor_.key(std::as_const(arguments)...);
                return wrapped(attempts<result>(record_, key,
                                                [this, ... kept = std::move(arguments)] {
                                                    return make_apart(kept...);
                                                }));
            }
        }
        return wrapped(with_timeout(make_apart(std::move(arguments)...), record_.timeout));
    }

    /// Makes the wrapper token, which callers get from an operation with a timeout or retries. It
    /// awaits the attempts, and keeps their time from its own admission on. It runs where it is
    /// admitted.
    [[gnu::noinline, gnu::cold]] token<result> wrapped(task<result> work) const {
        const auto keeper = task_access::release(std::move(work));
        core_context& core = context();
        const bool conducted = adopt(core, keeper.promise(), *record_.keeper);
        return token_access::adopt(keeper, conducted);
    }

    static constexpr std::uint16_t flags() noexcept {
        return is_lead<Anchor> ? leads : is_sticky<Anchor> ? sticky_key : 0;
    }
    [[nodiscard]] std::span<const char* const> calls() const noexcept {
        if constexpr (is_lead<Anchor>)
            return anchor_.calls;
        else
            return {};
    }

    F callable_;
    [[no_unique_address]] Anchor anchor_;
    const operation_record& record_;
};

}  // namespace detail

/// Constructed from its options, at most one anchor, and its callable.
template <class F, class Anchor = unanchored>
class operation
    : public detail::typed_operation<F, Anchor, typename detail::signature_of<F>::type> {
    using base = detail::typed_operation<F, Anchor, typename detail::signature_of<F>::type>;
    static_assert(detail::anchor<Anchor>,
                  "an anchor is tg::sticky, tg::sticky_by_name or tg::lead: one of them, once");

public:
    operation(operation_options options, F callable) : base(options, {}, std::move(callable)) {}
    operation(operation_options options, Anchor anchor, F callable)
        : base(options, std::move(anchor), std::move(callable)) {}
    operation(const operation&) = delete;
    operation& operator=(const operation&) = delete;
};

template <class F>
operation(operation_options, F) -> operation<std::decay_t<F>>;
template <class Anchor, class F>
operation(operation_options, Anchor, F) -> operation<std::decay_t<F>, Anchor>;
template <class First, class Second, class F>  // no anchor: the class rejects it by static_assert
operation(operation_options, First, Second, F)
    -> operation<std::decay_t<F>, std::pair<First, Second>>;

}  // namespace tokengate
