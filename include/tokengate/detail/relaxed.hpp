// SPDX-License-Identifier: MIT
#pragma once

namespace tokengate::detail {

/// A plain field of one owner that other threads may look at: loads and stores are relaxed atomics, which cost what plain
/// ones do. Unlike std::atomic it is trivial, so it may lie in uninitialised memory and be made by a store. It orders
/// nothing, unless it says so: readers get some recent value, never a torn one.
template <class T>
class relaxed {
public:
    [[nodiscard]] T load() const noexcept {
        T value;
        __atomic_load(&value_, &value, __ATOMIC_RELAXED);
        return value;
    }
    void store(T value) noexcept { __atomic_store(&value_, &value, __ATOMIC_RELAXED); }
    /// Only the owner: not a read-modify-write for anybody else.
    void add(T amount) noexcept { store(static_cast<T>(load() + amount)); }

    /// For bits that anybody may set.
    void set_bits(T bits) noexcept { __atomic_fetch_or(&value_, bits, __ATOMIC_RELAXED); }

    /// For a field that also publishes what its owner did before: `add_release` and `store_release` pair with
    /// `load_acquire`.
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

/// A word of flags of one owner, which reads it like a plain one; what it writes, others may look at. `set_release` also
/// publishes what its owner did before, to who reads with `load_acquire`.
template <class T>
class relaxed_bits {
public:
    /// The owner, who is the only one to write.
    operator T() const noexcept { return word_; }  // NOLINT(google-explicit-constructor)
    relaxed_bits& operator=(T bits) noexcept {
        __atomic_store_n(&word_, bits, __ATOMIC_RELAXED);
        return *this;
    }
    relaxed_bits& operator|=(T bits) noexcept { return *this = static_cast<T>(word_ | bits); }
    void set_release(T bits) noexcept {
        __atomic_store_n(&word_, static_cast<T>(word_ | bits), __ATOMIC_RELEASE);
    }
    /// Anybody.
    [[nodiscard]] T load_acquire() const noexcept {
        return __atomic_load_n(&word_, __ATOMIC_ACQUIRE);
    }

private:
    T word_;
};

/// The same for a pointer that is one of several types. Stores release, so that who reads with `load_acquire` sees what came
/// before, too.
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
