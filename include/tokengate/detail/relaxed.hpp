// SPDX-License-Identifier: MIT
#pragma once

namespace tokengate::detail {

/// A plain field of one owner that other threads may read. Loads and stores are relaxed atomics,
/// which cost as much as plain ones. Unlike std::atomic it is trivial, so it may lie in
/// uninitialised memory and begin with a store. It orders nothing, except by the functions that
/// state it. A reader gets some recent value, never a torn one.
template <class T>
class relaxed {
public:
    [[nodiscard]] T load() const noexcept {
        T value;
        __atomic_load(&value_, &value, __ATOMIC_RELAXED);
        return value;
    }
    void store(T value) noexcept { __atomic_store(&value_, &value, __ATOMIC_RELAXED); }
    /// Owner only. For other threads it is no atomic read-modify-write.
    void add(T amount) noexcept { store(static_cast<T>(load() + amount)); }

    /// For bits that any thread may set.
    void set_bits(T bits) noexcept { __atomic_fetch_or(&value_, bits, __ATOMIC_RELAXED); }

    /// For a field that also publishes the owner's earlier writes: `add_release` and
    /// `store_release` pair with `load_acquire`.
    void add_release(T amount) noexcept {
        __atomic_store_n(&value_, static_cast<T>(load() + amount), __ATOMIC_RELEASE);
    }
    void store_release(T value) noexcept { __atomic_store(&value_, &value, __ATOMIC_RELEASE); }
    [[nodiscard]] T load_acquire() const noexcept {
        T value;
        __atomic_load(&value_, &value, __ATOMIC_ACQUIRE);
        return value;
    }

private:
    T value_;
};

/// A word of flags of one owner. The owner reads it like a plain word, and other threads may read
/// what it writes. `set_release` also publishes the owner's earlier writes, to readers that use
/// `load_acquire`.
template <class T>
class relaxed_bits {
public:
    /// Owner only. No other thread writes.
    operator T() const noexcept { return word_; }  // NOLINT(google-explicit-constructor)
    relaxed_bits& operator=(T bits) noexcept {
        __atomic_store_n(&word_, bits, __ATOMIC_RELAXED);
        return *this;
    }
    relaxed_bits& operator|=(T bits) noexcept { return *this = static_cast<T>(word_ | bits); }
    void set_release(T bits) noexcept {
        __atomic_store_n(&word_, static_cast<T>(word_ | bits), __ATOMIC_RELEASE);
    }
    /// Any thread.
    [[nodiscard]] T load_acquire() const noexcept {
        return __atomic_load_n(&word_, __ATOMIC_ACQUIRE);
    }

private:
    T word_;
};

/// The same for a pointer that is one of several types. Stores release, so that a reader with
/// `load_acquire` also sees the owner's earlier writes.
class relaxed_pointer {
public:
    [[nodiscard]] void* load() const noexcept { return word_.load(); }
    [[nodiscard]] void* load_acquire() const noexcept { return word_.load_acquire(); }
    template <class T>
    explicit operator T*() const noexcept {
        return static_cast<T*>(word_.load());
    }
    relaxed_pointer& operator=(void* to) noexcept {
        word_.store_release(to);
        return *this;
    }

private:
    relaxed<void*> word_;
};

}  // namespace tokengate::detail
