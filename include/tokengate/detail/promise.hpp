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

/// The one promise type of the library. A plain task uses its continuation and its result. When an
/// operation adopts the frame, it fills in the token record there, and the same frame is a token.
/// There is no other allocation.

namespace tokengate {
template <class T>
class task;
}

namespace tokengate::detail {

struct token_notes;

/// The parts of a token's end that are not the common case; final_awaiter has that inline. On the
/// token's thread.
void note_failure(core_context& core, token_record& token) noexcept;
void end_anchored(core_context& core, token_record& token) noexcept;
void end_elsewhere(core_context& core, token_record& token) noexcept;

class promise_base {
public:
    // The awaiter of this plain task. It is the first member, so that debuggers find it.
    std::coroutine_handle<> continuation;
    std::exception_ptr error;
    bool is_token = false;
    // Used by promise<T> only. In this place it costs no padding.
    bool has_value = false;
    // Also without padding: the address of an instrumented (`watched`) token's notes, at most 48
    // bits. Uninitialised otherwise.
    std::uint16_t notes_high;
    std::uint32_t notes_low;
    token_record token;  // uninitialised until an operation adopts the frame

    promise_base() noexcept {
    }  // NOLINT(cppcoreguidelines-pro-type-member-init): `token`, notes stay untouched on purpose
    promise_base(const promise_base&) = delete;
    promise_base& operator=(const promise_base&) = delete;

    ~promise_base() {
        if (is_token)
            // A thread that enumerates slots finds no token here from now on.
            token.state.store(token_state::none);
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

    /// Of an instrumented token. May be null.
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
    /// The record in a slot of the frame pool, for code that enumerates slots. The record's state
    /// shows whether it is a token.
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
        // The token began in place, and since then no other flag was set and it did not fail. (A
        // group's child that suspended has counted_here.) The awaiter is on this thread and needs
        // no notification.
        if ((flags & ~(in_domain | unroutable)) != ran_in_place || promise.error) [[unlikely]]
            return end_apart(core, promise);
        token.state.store(token_state::completed);
        if (flags & in_domain) {
            auto* inherited = static_cast<domain*>(token.anchor);
            if (--inherited->pending == 0) [[unlikely]]
                release_domain(core, inherited);
        }
        auto* heard_by = reinterpret_cast<waiter*>(token.owner);
        // The token ended inside its group's await, which checks for the end itself.
        if (heard_by->done) return nobody_continues();
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
        // acquire: pairs with the exchange by the holder of a handle, which may have claimed the
        // token meanwhile.
        const std::uintptr_t claimed = token.shared_owner().load(std::memory_order_acquire);
        if (claimed > owner_dropped) {
            auto* heard_by = reinterpret_cast<waiter*>(claimed);
            if (heard_by->home == core.host && !heard_by->done) {
                auto& awaiter = static_cast<coroutine_waiter&>(*heard_by);
                if (!(token.flags & ran_in_place)) core.counts.ended.add_release(1);
                core.current = awaiter.token;
                return continue_with(core, awaiter.handle);
            }
            // The token ended inside its group's await, which checks for the end itself.
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
    // Conditionally supported beyond standard layout. Both compilers support it.
    return offsetof(promise_base, token);
#pragma GCC diagnostic pop
}

/// The offset of the promise in a frame. Both compilers put it behind the two function pointers at
/// the start of the frame.
inline constexpr std::size_t promise_offset = 2 * sizeof(void*);

inline const token_record& promise_base::record_in(const void* slot) noexcept {
    return *reinterpret_cast<const token_record*>(static_cast<const char*>(slot) + promise_offset +
                                                  offset_of_token());
}

/// The result that an ended coroutine gives its awaiter.
template <class T>
class promise : public promise_base {
    static_assert(!std::is_rvalue_reference_v<T>,
                  "return the value, or an lvalue reference to something that outlives it");
    using stored = std::conditional_t<std::is_reference_v<T>, std::remove_reference_t<T>*, T>;
    /// An lvalue that needs no conversion. A temporary would be destroyed before the awaiter reads
    /// it.
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

    /// Moves the result out, or throws the exception.
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
