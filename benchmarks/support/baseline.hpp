// SPDX-License-Identifier: MIT
#pragma once

#include <sys/mman.h>
#include <array>
#include <coroutine>
#include <cstddef>
#include <exception>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>
#include <vector>

/// The least that a coroutine with a result can be: what the library is measured against. Its promise holds a
/// continuation, an exception_ptr and the result; frames come from free lists of the thread; the awaiter owns the
/// child.
///
///     baseline::coroutine<int> twice(int n) { co_return 2 * n; }
///     int four = baseline::run(twice(2));          // or co_await twice(2) in another one
///
/// It goes over to a child as is fastest: by symmetric transfer with clang, by a nested resume with g++ 12 (whose
/// symmetric transfer takes 16 instructions more). It knows no tokens, no loop, no budget and no bound of the stack.
/// One thread.

namespace baseline {

/// Free lists by multiples of 64 bytes, over blocks that live as long as the thread. Headerless.
class frame_pool {
public:
    void* allocate(std::size_t bytes) {
        const std::size_t index = (bytes - 1) / 64;
        slot* taken = free_[index];
        if (!taken) [[unlikely]]
            return carve((index + 1) * 64);
        free_[index] = taken->next;
        return taken;
    }
    void deallocate(void* frame, std::size_t bytes) noexcept {
        const std::size_t index = (bytes - 1) / 64;
        free_[index] = new (frame) slot{free_[index]};
    }

private:
    struct slot {
        slot* next;
    };
    static constexpr std::size_t block_size = 256 * 1024, largest = 1024;

    /// Apart, so that the thread-local pool itself needs no destructor, which each access would pay for.
    struct blocks {
        std::vector<void*> mapped;
        ~blocks() {
            for (void* block : mapped) munmap(block, block_size);
        }
    };

    void* carve(std::size_t size) {
        static thread_local blocks held;
        if (size > largest) throw std::bad_alloc();
        if (left_ < size) {
            void* block = mmap(nullptr, block_size, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (block == MAP_FAILED) throw std::bad_alloc();
            held.mapped.push_back(block);
            rest_ = static_cast<std::byte*>(block);
            left_ = block_size;
        }
        left_ -= size;
        return std::exchange(rest_, rest_ + size);
    }

    std::array<slot*, largest / 64> free_{};
    std::byte* rest_ = nullptr;
    std::size_t left_ = 0;
};

inline constinit thread_local frame_pool frames;

template <class T>
class coroutine;

struct promise_base {
    std::coroutine_handle<> continuation;
    std::exception_ptr error;

    static void* operator new(std::size_t bytes) { return frames.allocate(bytes); }
    static void operator delete(void* frame, std::size_t bytes) noexcept {
        frames.deallocate(frame, bytes);
    }

    std::suspend_always initial_suspend() noexcept { return {}; }
    void unhandled_exception() noexcept { error = std::current_exception(); }

#if defined(__clang__)
    struct to_continuation {
        bool await_ready() noexcept { return false; }
        template <class Promise>
        std::coroutine_handle<> await_suspend(std::coroutine_handle<Promise> ended) noexcept {
            return ended.promise().continuation;
        }
        void await_resume() noexcept {}
    };
    to_continuation final_suspend() noexcept { return {}; }
#else
    std::suspend_always final_suspend() noexcept {
        return {};
    }  // the awaiter is below on the stack
#endif
};

template <class T>
struct promise : promise_base {
    T value;

    promise() noexcept {}  // NOLINT(cppcoreguidelines-pro-type-member-init): set by the body
    coroutine<T> get_return_object() noexcept;
    void return_value(T result) noexcept { value = result; }
    T take() {
        if (error) [[unlikely]]
            std::rethrow_exception(std::move(error));
        return value;
    }
};

template <class T>
class [[nodiscard]] coroutine {
    static_assert(std::is_trivially_copyable_v<T>, "the baseline keeps to simple results");

public:
    using promise_type = promise<T>;

    explicit coroutine(std::coroutine_handle<promise_type> made) noexcept : made_(made) {}
    coroutine(coroutine&& other) noexcept : made_(std::exchange(other.made_, nullptr)) {}
    coroutine& operator=(coroutine&&) = delete;
    ~coroutine() {
        if (made_) made_.destroy();
    }

    auto operator co_await() && noexcept { return awaiter{std::exchange(made_, nullptr)}; }

    friend T run(coroutine top) {
#if defined(__clang__)
        top.made_.promise().continuation = std::noop_coroutine();
#endif
        top.made_.resume();
        return top.made_.promise().take();
    }

private:
    struct awaiter {
        std::coroutine_handle<promise_type> child;

        explicit awaiter(std::coroutine_handle<promise_type> awaited) noexcept : child(awaited) {}
        awaiter(const awaiter&) = delete;
        awaiter& operator=(const awaiter&) = delete;
        ~awaiter() { child.destroy(); }

        bool await_ready() const noexcept { return false; }
#if defined(__clang__)
        std::coroutine_handle<> await_suspend(std::coroutine_handle<> parent) noexcept {
            child.promise().continuation = parent;
            return child;
        }
#else
        bool await_suspend(std::coroutine_handle<> parent) noexcept {
            child.resume();
            if (child.done()) return false;
            child.promise().continuation = parent;
            return true;
        }
#endif
        T await_resume() { return child.promise().take(); }
    };

    std::coroutine_handle<promise_type> made_;
};

template <class T>
coroutine<T> promise<T>::get_return_object() noexcept {
    return coroutine<T>(std::coroutine_handle<promise>::from_promise(*this));
}

}  // namespace baseline
