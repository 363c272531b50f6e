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

/// A bounded queue between tokens on any cores, for several senders and receivers.
///
///     tg::channel<page> pages(64);
///     co_await pages.send(std::move(p));                        // waits while 64 are in it
///     pages.close();                                            // what is in it can still be received
///     while (true) {
///         std::optional<page> next = co_await pages.receive();  // empty: closed, and nothing left
///         if (!next) break;
///         …
///     }
///
/// What is sent first is received first; who waits longest is served first; a sender's values keep their order. `send`
/// and `try_send` move from an rvalue only when the value is taken: after channel_closed, token_stopped or `false` the
/// caller still has it. An lvalue is copied. The argument of `send` must live until it has been awaited, as it does in
/// one expression. Waiters resume on their own cores. Thread safety: waiting inside the runtime, everything else on any
/// thread; nobody may be waiting when it is destroyed; what is in it then is destroyed.
///
/// T: movable, no more. It is moved while the channel is locked, so T's move and destructor must not use the channel.
/// If moving throws, the one whose value it is gets the exception: on the way in, the sender, and the value is not in;
/// on the way out, the receiver, and the value stays the next. Errors: channel_closed from `send`; of both waits
/// token_stopped, with nothing sent or taken, and wrong_thread; configuration_error for a capacity of 0; std::bad_alloc
/// from the constructor.

namespace tokengate {

/// A value was to be sent into a channel that has been closed; the sender still has it.
class channel_closed : public error {
public:
    using error::error;
};

namespace detail {
[[noreturn]] void throw_no_capacity();
[[noreturn]] void throw_channel_closed();
}  // namespace detail

// Two locks, so that senders and receivers do not disturb each other while neither has to wait: the queue of the waiting
// receivers with its lock belongs to the senders' side, and vice versa.
//
//   senders' lock     tail, who waits to receive            with both, locked in this order: joining a queue of those who
//   receivers' lock   head, who waits to send               wait, `closed_`, letting in those who wait to send
//
// Receivers wait only while nothing is in the channel, since a sender serves them first; senders wait only while it is
// full, since a receiver that makes room fills it at once from those who wait. Each side looks at the other's position
// only when what it last saw is used up.
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
            receivers_.lock);  // the one that sent the last may be about to unlock
        const std::scoped_lock receivers(senders_.lock);
        for (std::size_t at = head_.load(std::memory_order_relaxed);
             at != tail_.load(std::memory_order_relaxed); ++at)
            std::destroy_at(&slot(at));
        std::allocator<T>().deallocate(slots_, mask_ + 1);
    }

    [[nodiscard]] auto send(T&& value) { return sending<T&&>(*this, std::move(value)); }
    [[nodiscard]] auto send(const T& value)
        requires std::copy_constructible<T>
    {
        return sending<T>(*this, value);
    }
    [[nodiscard]] auto receive() noexcept { return receiving(*this); }

    /// False if it is full or closed.
    [[nodiscard]] bool try_send(T&& value) {
        return put_and_wake(std::move(value)) == outcome::done;
    }
    [[nodiscard]] bool try_send(const T& value)
        requires std::copy_constructible<T>
    {
        return put_and_wake(value) == outcome::done;
    }
    /// Empty if nothing is in it.
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

    /// From here on nothing is sent. Who waits to send gets channel_closed, who waits to receive an empty optional.
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
    /// At some moment of the call; those who wait to send do not count.
    [[nodiscard]] std::size_t size() const noexcept {
        const std::size_t head =
            head_.load(std::memory_order_acquire);  // pairs with take, so that tail is not older
        return std::min(tail_.load(std::memory_order_relaxed) - head, capacity_);
    }
    [[nodiscard]] std::size_t capacity() const noexcept { return capacity_; }

private:
    enum class outcome : std::uint8_t { done, full, closed };

    struct sender : detail::queued_wait {
        T* value = nullptr;
        std::exception_ptr failure;  // of moving it, when somebody else did
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

    /// With the senders' lock.
    template <class V>
    outcome put(V&& value, detail::hook_queue& released) {
        if (closed_.load()) return outcome::closed;
        if (auto* next = static_cast<receiver*>(receivers_.front())) {
            next->value.emplace(
                std::forward<V>(value));  // before it is released, for this may throw
            if (!receivers_.release(*next))
                return put(std::move(*next->value), released);  // a stop was quicker
            released.push(next);
            return outcome::done;
        }
        const std::size_t tail = tail_.load(std::memory_order_relaxed);
        if (tail - head_seen_ >=
            capacity_) {  // more: since then, a receiver has let in those who waited
            head_seen_ =
                head_.load(std::memory_order_acquire);  // pairs with take: the slot is free
            if (tail - head_seen_ == capacity_) return outcome::full;
        }
        std::construct_at(&slot(tail), std::forward<V>(value));
        tail_.store(tail + 1, std::memory_order_release);  // pairs with take: the value is there
        return outcome::done;
    }

    /// With the receivers' lock.
    bool take(std::optional<T>& into) {
        const std::size_t head = head_.load(std::memory_order_relaxed);
        if (head == tail_seen_) {
            tail_seen_ = tail_.load(std::memory_order_acquire);  // pairs with put
            if (head == tail_seen_) return false;
        }
        T& first = slot(head);
        into.emplace(std::move(first));
        std::destroy_at(&first);
        head_.store(head + 1, std::memory_order_release);  // pairs with put
        return true;
    }

    /// Where nobody waits to send.
    bool take_alone(std::optional<T>& into) {
        const std::scoped_lock receivers(senders_.lock);
        return senders_.empty() && take(into);
    }

    /// With both locks.
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
    detail::relaxed<bool>
        closed_{};  // decided under the locks; who only asks gets some recent answer

    // The senders' side: under receivers_.lock.
    alignas(64) detail::wait_queue receivers_;
    std::size_t head_seen_ = 0;
    std::atomic<std::size_t> tail_{0};  // release by put, acquire by take

    // The receivers' side: under senders_.lock.
    alignas(64) detail::wait_queue senders_;
    std::size_t tail_seen_ = 0;
    std::atomic<std::size_t> head_{0};  // release by take, acquire by put
};

}  // namespace tokengate
