// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/relaxed.hpp>
#include <tokengate/detail/wait_queue.hpp>
#include <tokengate/error.hpp>

#include <algorithm>
#include <atomic>
#include <bit>
#include <concepts>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <type_traits>
#include <utility>

/// A channel is a bounded queue between tokens on any cores, for several senders and receivers.
/// Values are received in the order in which they were sent, and each sender's values keep their
/// order. The token that has waited longest is served first, and each waiter resumes on its own
/// core. `send` and `try_send` move from an rvalue only if the channel takes the value. After
/// channel_closed, token_stopped or `false` the caller still has it. An lvalue is copied. T needs
/// to be movable, no more.
///
///     tg::channel<page> pages(64);
///     co_await pages.send(std::move(p));  // waits while 64 are in it
///     pages.close();                      // what is in it can still be received
///     while (true) {
///         std::optional<page> next = co_await pages.receive();  // empty: closed, and nothing left
///         if (!next) break;
///         …
///     }
///
/// Thread safety: Tokens wait inside the runtime; every other call works on any thread. The channel
/// is locked while it moves a T, so T's move and destructor must not use the channel.
///
/// Lifetime: No token may wait for the channel when it is destroyed. The channel destroys the
/// values that are in it then. The argument of `send` must live until the await has ended, as it
/// does within one expression.
///
/// Errors:
/// * channel_closed from `send` if the channel is closed.
/// * token_stopped from both waits if the token is asked to stop, with nothing sent or taken.
/// * wrong_thread from both waits where no event loop runs.
/// * From the constructor: configuration_error for a capacity of 0, and std::bad_alloc.
/// * If the move of a T throws on the way in, the sender gets the exception, and the value is not
///   in the channel. If it throws on the way out, the receiver gets it, and the value stays the
///   next.
///
/// Stop: A stop ends both waits with token_stopped. If another token or thread has served the wait
/// before, the wait succeeds.

namespace tokengate {

/// The channel was closed before the value was sent; the sender still has it.
class channel_closed : public error {
public:
    using error::error;
};

namespace detail {
[[noreturn]] void throw_no_capacity();
[[noreturn]] void throw_channel_closed();
}  // namespace detail

// A channel has two locks, so that senders and receivers do not disturb each other while neither
// side has to wait. The queue of waiting receivers, with its lock, belongs to the senders' side,
// and vice versa:
//
//   senders' lock (receivers_.lock)    guards `tail_` and the waiting receivers
//   receivers' lock (senders_.lock)    guards `head_` and the waiting senders
//   both, locked in this order         to join a queue, to set `closed_`, to admit waiting senders
//
// Receivers wait only while the channel is empty, since a sender serves them first. Senders wait
// only while it is full, since a receiver that makes room fills it at once from the waiting
// senders. Each side loads the other's position only when it has used up the one that it loaded
// last.
template <class T>
class channel {
    static_assert(std::is_object_v<T> && !std::is_const_v<T> && std::move_constructible<T>,
                  "T must be movable");

public:
    explicit channel(std::size_t capacity) : capacity_(capacity) {
        if (capacity == 0) detail::throw_no_capacity();
        if (capacity > ~std::size_t{0} / 4 / sizeof(T)) throw std::bad_alloc();
        mask_ = std::bit_ceil(capacity) - 1;
        slots_ = std::allocator<T>().allocate(mask_ + 1);
    }
    channel(const channel&) = delete;
    channel& operator=(const channel&) = delete;
    ~channel() {
        const std::scoped_lock senders(
            receivers_.lock);  // the sender of the last value may still have to unlock
        const std::scoped_lock receivers(senders_.lock);
        for (std::size_t at = head_.load(std::memory_order_relaxed);
             at != tail_.load(std::memory_order_relaxed); ++at)
            std::destroy_at(&slot(at));
        std::allocator<T>().deallocate(slots_, mask_ + 1);
    }

    /// Sends a value. If the channel is full, the token waits until there is room.
    [[nodiscard]] auto send(T&& value) { return sending<T&&>(*this, std::move(value)); }
    [[nodiscard]] auto send(const T& value)
        requires std::copy_constructible<T>
    {
        return sending<T>(*this, value);
    }
    /// Receives the next value. If the channel is empty, the token waits; if it is closed as well,
    /// the optional is empty.
    [[nodiscard]] auto receive() noexcept { return receiving(*this); }

    /// Returns false if the channel is full or closed.
    [[nodiscard]] bool try_send(T&& value) {
        return put_and_wake(std::move(value)) == outcome::done;
    }
    [[nodiscard]] bool try_send(const T& value)
        requires std::copy_constructible<T>
    {
        return put_and_wake(value) == outcome::done;
    }
    /// Returns an empty optional if the channel is empty.
    [[nodiscard]] std::optional<T> try_receive() {
        std::optional<T> taken;
        if (!take_alone(taken)) {
            detail::hook_queue released;
            {
                const std::scoped_lock senders(receivers_.lock);
                const std::scoped_lock receivers(senders_.lock);
                take_and_refill(taken, released);
            }
            wake_all(released);
        }
        return taken;
    }

    /// Closes the channel: from here on no value is sent. Waiting senders get channel_closed,
    /// waiting receivers an empty optional.
    void close() noexcept {
        detail::hook_queue released;
        {
            const std::scoped_lock senders(receivers_.lock);
            const std::scoped_lock receivers(senders_.lock);
            closed_.store(true);
            receivers_.pop_all(released);
            while (auto* refused = static_cast<sender*>(senders_.pop())) {
                refused->refused = true;
                released.push(refused);
            }
        }
        wake_all(released);
    }

    [[nodiscard]] bool closed() const noexcept { return closed_.load(); }
    /// The number of values at some moment of the call. The values of waiting senders do not count.
    [[nodiscard]] std::size_t size() const noexcept {
        // Pairs with the release in `take`, so that the tail loaded below is not older.
        const std::size_t head = head_.load(std::memory_order_acquire);
        return std::min(tail_.load(std::memory_order_relaxed) - head, capacity_);
    }
    [[nodiscard]] std::size_t capacity() const noexcept { return capacity_; }

private:
    enum class outcome : std::uint8_t { done, full, closed };

    struct sender : detail::queued_wait {
        T* value = nullptr;
        std::exception_ptr failure;  // of the move of the value by a receiver
        bool refused = false;
    };
    struct receiver : detail::queued_wait {
        std::optional<T> value;
    };

    template <class Held>
    class sending : public sender {
    public:
        template <class V>
        sending(channel& into, V&& value) : into_(into), held_(std::forward<V>(value)) {}

        bool await_ready() { return this->may_try() && note(into_.put_and_wake(std::move(held_))); }

        bool await_suspend(std::coroutine_handle<> awaiting) {
            detail::core_context& core = this->enter("send into a channel");
            detail::hook_queue released;
            bool settled = false;
            {
                const std::scoped_lock senders(into_.receivers_.lock);
                settled = note(into_.put(std::move(held_), released));
                if (!settled) {
                    const std::scoped_lock receivers(into_.senders_.lock);
                    settled = note(into_.put(std::move(held_), released));
                    if (!settled) {
                        this->value = std::addressof(held_);
                        into_.senders_.push(*this, core, awaiting);
                    }
                }
            }
            wake_all(released);
            return settled ? this->goes_on(core, awaiting) : this->waits(core);
        }

        void await_resume() {
            this->resumed("send into a channel");
            if (this->failure) std::rethrow_exception(std::move(this->failure));
            if (this->refused) detail::throw_channel_closed();
        }

    private:
        bool note(outcome found) noexcept {
            this->refused = found == outcome::closed;
            return found != outcome::full;
        }

        channel& into_;
        Held held_;
    };

    class receiving : public receiver {
    public:
        explicit receiving(channel& from) noexcept : from_(from) {}

        bool await_ready() { return this->may_try() && from_.take_alone(this->value); }

        bool await_suspend(std::coroutine_handle<> awaiting) {
            detail::core_context& core = this->enter("receive from a channel");
            detail::hook_queue released;
            bool settled = false;
            {
                const std::scoped_lock senders(from_.receivers_.lock);
                const std::scoped_lock receivers(from_.senders_.lock);
                settled = from_.take_and_refill(this->value, released) || from_.closed();
                if (!settled) from_.receivers_.push(*this, core, awaiting);
            }
            wake_all(released);
            return settled ? this->goes_on(core, awaiting) : this->waits(core);
        }

        std::optional<T> await_resume() {
            this->resumed("receive from a channel");
            return std::move(this->value);
        }

    private:
        channel& from_;
    };

    [[nodiscard]] T& slot(std::size_t at) const noexcept { return slots_[at & mask_]; }

    template <class V>
    outcome put_and_wake(V&& value) {
        detail::hook_queue released;
        outcome found;
        {
            const std::scoped_lock senders(receivers_.lock);
            found = put(std::forward<V>(value), released);
        }
        wake_all(released);
        return found;
    }

    /// The caller holds the senders' lock.
    template <class V>
    outcome put(V&& value, detail::hook_queue& released) {
        if (closed_.load()) return outcome::closed;
        if (auto* next = static_cast<receiver*>(receivers_.front())) {
            next->value.emplace(
                std::forward<V>(value));  // before the release, because this may throw
            if (!receivers_.release(*next))
                return put(std::move(*next->value), released);  // a stop came first
            released.push(next);
            return outcome::done;
        }
        const std::size_t tail = tail_.load(std::memory_order_relaxed);
        // The difference exceeds the capacity if a receiver has admitted waiting senders since.
        if (tail - head_seen_ >= capacity_) {
            // Pairs with the release in `take`: the slot is free.
            head_seen_ = head_.load(std::memory_order_acquire);
            if (tail - head_seen_ == capacity_) return outcome::full;
        }
        std::construct_at(&slot(tail), std::forward<V>(value));
        // Pairs with the acquire in `take`: the value is there.
        tail_.store(tail + 1, std::memory_order_release);
        return outcome::done;
    }

    /// The caller holds the receivers' lock.
    bool take(std::optional<T>& into) {
        const std::size_t head = head_.load(std::memory_order_relaxed);
        if (head == tail_seen_) {
            tail_seen_ = tail_.load(std::memory_order_acquire);  // pairs with the release in `put`
            if (head == tail_seen_) return false;
        }
        T& first = slot(head);
        into.emplace(std::move(first));
        std::destroy_at(&first);
        head_.store(head + 1, std::memory_order_release);  // pairs with the acquire in `put`
        return true;
    }

    /// Takes a value only if no sender waits; locks by itself.
    bool take_alone(std::optional<T>& into) {
        const std::scoped_lock receivers(senders_.lock);
        return senders_.empty() && take(into);
    }

    /// The caller holds both locks. Takes a value and admits waiting senders into the room.
    bool take_and_refill(std::optional<T>& into, detail::hook_queue& released) {
        if (!take(into)) return false;
        std::size_t tail = tail_.load(std::memory_order_relaxed);
        while (tail - head_.load(std::memory_order_relaxed) != capacity_) {
            auto* next = static_cast<sender*>(senders_.pop());
            if (!next) break;
            try {
                std::construct_at(&slot(tail), std::move(*next->value));
                tail_.store(++tail, std::memory_order_release);
            } catch (...) {
                next->failure = std::current_exception();
            }
            released.push(next);
        }
        return true;
    }

    const std::size_t capacity_;
    std::size_t mask_;
    T* slots_;
    /// Stored under both locks. A load without them returns some recent value.
    detail::relaxed<bool> closed_{};

    // The senders' side, under receivers_.lock.
    alignas(64) detail::wait_queue receivers_;
    std::size_t head_seen_ = 0;
    std::atomic<std::size_t> tail_{0};  // `put` stores it (release), `take` loads it (acquire)

    // The receivers' side, under senders_.lock.
    alignas(64) detail::wait_queue senders_;
    std::size_t tail_seen_ = 0;
    std::atomic<std::size_t> head_{0};  // `take` stores it (release), `put` loads it (acquire)
};

}  // namespace tokengate
