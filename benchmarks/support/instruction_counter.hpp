// SPDX-License-Identifier: MIT
#pragma once

#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>

/// Counts the instructions that one thread executes between two points, and among them those that cost most: locked
/// ones, looks at the clock, system calls. Exact, whatever else the machine does; unlike valgrind it needs no model of
/// io_uring.
///
///     instruction_counter counter;                   // nothing happens yet
///     if (counter.start()) { work(); executed all = counter.stop(); }   // false: this system forbids tracing
///
/// A process forked for it single-steps the thread, some 100,000 instructions a second: what measures its own time
/// behaves as if it were that slow. Linux on x86-64; elsewhere `start` returns false. The other threads run on.

struct executed {
    std::uint64_t instructions = 0;
    std::uint64_t locked = 0;  // with a lock prefix, xchg with memory, mfence
    std::uint64_t clocks = 0;  // rdtsc, rdtscp: what clock_gettime does in user space
    std::uint64_t system_calls = 0;
};

class instruction_counter {
public:
    instruction_counter() {
        void* memory = mmap(nullptr, sizeof(shared), PROT_READ | PROT_WRITE,
                            MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) throw std::bad_alloc();
        shared_ = new (memory) shared;
    }
    instruction_counter(const instruction_counter&) = delete;
    instruction_counter& operator=(const instruction_counter&) = delete;
    ~instruction_counter() { munmap(shared_, sizeof(shared)); }

    bool start() {
        shared_->at.store(phase::forked, std::memory_order_relaxed);
        shared_->counted = {};
#if defined(__x86_64__)
        const auto thread = static_cast<pid_t>(syscall(SYS_gettid));
        tracer_ = fork();
        if (tracer_ == 0) trace(thread);
        if (tracer_ < 0) return false;
        prctl(PR_SET_PTRACER, tracer_, 0, 0, 0);
        shared_->at.store(phase::may_attach, std::memory_order_release);
        while (shared_->at.load(std::memory_order_acquire) == phase::may_attach) {}
        if (shared_->at.load(std::memory_order_relaxed) == phase::refused) {
            waitpid(tracer_, nullptr, 0);
            return false;
        }
        began();
        return true;
#else
        return false;
#endif
    }

    executed stop() {
        ended();
        waitpid(tracer_, nullptr, 0);
        return shared_->counted;
    }

private:
    enum class phase : int { forked, may_attach, tracing, refused };

    struct shared {
        std::atomic<phase> at{
            phase::forked};  // release and acquire, each step of the one waited for by the other
        executed counted;
    };

    // The tracer looks for their addresses.
    [[gnu::noinline]] static void began() noexcept { asm volatile("" ::: "memory"); }
    [[gnu::noinline]] static void ended() noexcept { asm volatile("nop" ::: "memory"); }

#if defined(__x86_64__)
    /// In the forked process: allocates nothing, since another thread may have held a lock of malloc.
    [[noreturn]] void trace(pid_t thread) noexcept {
        while (shared_->at.load(std::memory_order_acquire) != phase::may_attach) {}
        int status = 0;
        if (ptrace(PTRACE_SEIZE, thread, nullptr, nullptr) != 0 ||
            ptrace(PTRACE_INTERRUPT, thread, nullptr, nullptr) != 0 ||
            waitpid(thread, &status, __WALL) != thread) {
            shared_->at.store(phase::refused, std::memory_order_release);
            _exit(1);
        }
        shared_->at.store(phase::tracing, std::memory_order_release);
        const auto first = reinterpret_cast<std::uintptr_t>(&began),
                   last = reinterpret_cast<std::uintptr_t>(&ended);
        bool counting = false;
        for (int signal = 0;;) {
            if (ptrace(PTRACE_SINGLESTEP, thread, nullptr, signal) != 0) _exit(1);
            if (waitpid(thread, &status, __WALL) != thread || !WIFSTOPPED(status)) _exit(1);
            signal = WSTOPSIG(status) == SIGTRAP ? 0 : WSTOPSIG(status);
            const auto at = static_cast<std::uintptr_t>(ptrace(PTRACE_PEEKUSER, thread,
                                                               offsetof(user, regs.rip), nullptr));
            if (at == last) break;
            if (counting) count(reinterpret_cast<const unsigned char*>(at), shared_->counted);
            counting |= at == first;
        }
        ptrace(PTRACE_DETACH, thread, nullptr, nullptr);
        _exit(0);
    }

    /// The text at that address is ours too: we were forked.
    static void count(const unsigned char* code, executed& all) noexcept {
        ++all.instructions;
        bool locked = false;
        constexpr unsigned char prefixes[]{0x66, 0xf2, 0xf3, 0x2e, 0x36,
                                           0x3e, 0x26, 0x64, 0x65, 0xf0};
        for (; std::memchr(prefixes, *code, sizeof prefixes); ++code) locked |= *code == 0xf0;
        if ((*code & 0xf0) == 0x40) ++code;  // REX
        if (*code == 0x86 || *code == 0x87) locked |= code[1] < 0xc0;
        if (*code == 0x0f && code[1] == 0xae && code[2] == 0xf0) locked = true;
        all.locked += locked;
        all.clocks += *code == 0x0f && (code[1] == 0x31 || (code[1] == 0x01 && code[2] == 0xf9));
        all.system_calls += *code == 0x0f && code[1] == 0x05;
    }
#endif

    shared* shared_;
    pid_t tracer_ = -1;
};
