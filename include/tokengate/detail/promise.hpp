// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/core_context.hpp>
#include <tokengate/detail/domain.hpp>
#include <tokengate/detail/transfer.hpp>

#include <coroutine>
#include <cstddef>
#include <exception>
#include <memory>
#include <type_traits>
#include <utility>

/// The one promise type of the library. A plain task uses its continuation and result; when an operation adopts the frame,
/// the token record in it is filled in and the same frame is a token. There is no other allocation.

namespace tokengate {
template <class T>
class task;
}

namespace tokengate::detail {

struct token_notes;

/// A token's end, as far as it is not the common case (which final_awaiter has inline). On the token's thread.
void note_failure(core_context& core, token_record& token) noexcept;
void end_anchored(core_context& core, token_record& token) noexcept;
void end_elsewhere(core_context& core, token_record& token) noexcept;

class promise_base {
public:
    std::coroutine_handle<>
        continuation;  // first, so that debuggers find it: who awaits this plain task
    std::exception_ptr error;
    bool is_token = false;
    bool has_value = false;  // used by promise<T> only; here it costs no padding
    // Nor does this: where a watched token's notes lie, an address of at most 48 bits; uninitialised otherwise.
    std::uint16_t notes_high;
    std::uint32_t notes_low;
    token_record token;  // uninitialised until an operation adopts the frame

    promise_base() noexcept {
    }  // NOLINT(cppcoreguidelines-pro-type-member-init): `token`, notes stay untouched on purpose
    promise_base(const promise_base&) = delete;
    promise_base& operator=(const promise_base&) = delete;

    ~promise_base() {
        if (is_token)
            token.state.store(
                token_state::none);  // whoever enumerates slots sees none from here on
    }

    static void* operator new(std::size_t bytes) { return allocate_frame(bytes); }
    static void operator delete(void* frame, std::size_t bytes) noexcept {
        free_frame(frame, bytes);
    }

    std::suspend_always initial_suspend() noexcept { return {}; }
    void unhandled_exception() noexcept { error = std::current_exception(); }

    struct final_awaiter {
        bool await_ready() noexcept { return false; }
        void await_resume() noexcept {}

        template <class Promise>
        resumed await_suspend(std::coroutine_handle<Promise> ended) noexcept {
            promise_base& promise = ended.promise();
            core_context& core = *this_core;
            if (!promise.is_token) return continue_with(core, promise.continuation);
            return end_token(core, promise);
        }
    };

    final_awaiter final_suspend() noexcept { return {}; }

    /// Of a watched token; may be null.
    [[nodiscard]] token_notes* notes() const noexcept {
        return reinterpret_cast<token_notes*>(std::uintptr_t{notes_high} << 32 | notes_low);
    }
    void keep_notes(token_notes* notes) noexcept {
        const auto address = reinterpret_cast<std::uintptr_t>(notes);
        notes_high = static_cast<std::uint16_t>(address >> 32);
        notes_low = static_cast<std::uint32_t>(address);
    }

    [[nodiscard]] std::coroutine_handle<promise_base> handle() noexcept {
        return std::coroutine_handle<promise_base>::from_promise(*this);
    }
    /// The record in a slot of the frame pool, for those who enumerate slots. Whether it is one, its state tells.
    static const token_record& record_in(const void* slot) noexcept;
    static promise_base& of(token_record& token) noexcept {
        return *reinterpret_cast<promise_base*>(reinterpret_cast<char*>(&token) -
                                                offset_of_token());
    }
    static std::size_t offset_of_token() noexcept;

private:
    [[gnu::always_inline]] static resumed end_token(core_context& core,
                                                    promise_base& promise) noexcept {
        token_record& token = promise.token;
        const std::uint16_t flags = token.flags;
        // Began in place, and nothing has become of it since: its awaiter is of this thread, and is not told of its end.
        if ((flags & ~(in_domain | unroutable)) != ran_in_place || promise.error) [[unlikely]]
            return end_apart(core, promise);
        token.state.store(token_state::completed);
        if (flags & in_domain) {
            auto* inherited = static_cast<domain*>(token.anchor);
            if (--inherited->pending == 0) [[unlikely]]
                release_domain(core, inherited);
        }
        auto* heard_by = reinterpret_cast<waiter*>(token.owner);
        if (heard_by->done)
            return nobody_continues();  // inside its group's await, which looks for itself
        auto& awaiter = static_cast<coroutine_waiter&>(*heard_by);
        core.current = awaiter.token;
        return continue_with(core, awaiter.handle);
    }

    [[gnu::noinline]] static resumed end_apart(core_context& core, promise_base& promise) noexcept {
        token_record& token = promise.token;
        if (promise.error) [[unlikely]]
            note_failure(core, token);
        else
            token.state.store(token_state::completed);
        constexpr auto rare = opened | pinned | holds_permit | watched;
        if ((token.flags & (in_domain | rare)) == in_domain) {
            auto* inherited = static_cast<domain*>(token.anchor);
            if (--inherited->pending == 0) release_domain(core, inherited);
        } else if (token.flags & (in_domain | rare)) {
            end_anchored(core, token);
        }
        // acquire: pairs with the exchange of a handle's holder, who may have claimed it meanwhile
        const std::uintptr_t claimed = token.shared_owner().load(std::memory_order_acquire);
        if (claimed > owner_dropped) {
            auto* heard_by = reinterpret_cast<waiter*>(claimed);
            if (heard_by->home == core.host && !heard_by->done) {
                auto& awaiter = static_cast<coroutine_waiter&>(*heard_by);
                if (!(token.flags & ran_in_place)) core.counts.ended.add_release(1);
                core.current = awaiter.token;
                return continue_with(core, awaiter.handle);
            }
            // Inside its group's await, which looks for itself.
            if ((token.flags & (ran_in_place | counted_here)) == ran_in_place)
                return nobody_continues();
        }
        end_elsewhere(core, token);
        return nobody_continues();
    }
};

inline std::size_t promise_base::offset_of_token() noexcept {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Winvalid-offsetof"
    return offsetof(
        promise_base,
        token);  // conditionally supported beyond standard layout; both compilers support it
#pragma GCC diagnostic pop
}

/// Where a frame's promise lies: both compilers put it behind the two function pointers that start the frame.
inline constexpr std::size_t promise_offset = 2 * sizeof(void*);

inline const token_record& promise_base::record_in(const void* slot) noexcept {
    return *reinterpret_cast<const token_record*>(static_cast<const char*>(slot) + promise_offset +
                                                  offset_of_token());
}

/// What an ended coroutine gives its awaiter.
template <class T>
class promise : public promise_base {
    static_assert(!std::is_rvalue_reference_v<T>,
                  "return the value, or an lvalue reference to something that outlives it");
    using stored = std::conditional_t<std::is_reference_v<T>, std::remove_reference_t<T>*, T>;
    /// An lvalue that needs no conversion: a temporary would be gone before the awaiter looks.
    template <class U>
    static constexpr bool refers_to =
        std::is_lvalue_reference_v<U> &&
        std::is_convertible_v<std::remove_reference_t<U>*, std::remove_reference_t<T>*>;
    static_assert(
        alignof(stored) <= 2 * sizeof(void*),
        "a result with a larger alignment than a frame's: return a std::unique_ptr to it");

public:
    promise() noexcept {}
    ~promise() {
        if constexpr (!std::is_trivially_destructible_v<stored>)
            if (has_value) std::destroy_at(std::addressof(value_));
    }

    task<T> get_return_object() noexcept;

    template <class U = T>
        requires(std::is_reference_v<T> ? refers_to<U> : std::is_constructible_v<T, U &&>)
    void return_value(U&& value) noexcept(std::is_reference_v<T> ||
                                          std::is_nothrow_constructible_v<T, U&&>) {
        if constexpr (std::is_reference_v<T>) {
            value_ = std::addressof(value);
        } else {
            std::construct_at(std::addressof(value_), std::forward<U>(value));
        }
        has_value = true;
    }

    /// The result moved out, or the exception thrown.
    T take() {
        if (error) [[unlikely]]
            std::rethrow_exception(std::move(error));
        if constexpr (std::is_reference_v<T>)
            return static_cast<T>(*value_);
        else
            return std::move(value_);
    }

private:
    union {
        stored value_;
    };
};

template <>
class promise<void> : public promise_base {
public:
    task<void> get_return_object() noexcept;
    void return_void() noexcept {}
    void take() {
        if (error) [[unlikely]]
            std::rethrow_exception(std::move(error));
    }
};

}  // namespace tokengate::detail
