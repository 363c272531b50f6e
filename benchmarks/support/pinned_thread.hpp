// SPDX-License-Identifier: MIT
#pragma once

#include <pthread.h>
#include <sched.h>
#include <ctime>

#include <atomic>
#include <cerrno>
#include <exception>
#include <system_error>
#include <thread>
#include <utility>

/// A thread on one CPU, whose CPU time can be asked for while it runs, and whose exception reaches whoever joins it.
///
///     pinned_thread server(0, [&] { echo.run(); });
///     const double before = server.cpu_seconds();
///     …
///     const double spent = server.cpu_seconds() - before;     // user and kernel; soft interrupts that it ran included
///     server.join();
///
/// It is on its CPU before `body` begins. cpu_seconds() only before join(); the maker calls both.

class pinned_thread {
public:
    template <class Body>
    pinned_thread(int cpu, Body body)
        : thread_([this, cpu, body = std::move(body)]() mutable {
              try {
                  pin(cpu);
                  body();
              } catch (...) {
                  error_ = std::current_exception();
              }
              done_.wait(
                  false,
                  std::memory_order_acquire);  // CPU time can be read only of a thread that lives
          }) {}
    pinned_thread(const pinned_thread&) = delete;
    pinned_thread& operator=(const pinned_thread&) = delete;
    ~pinned_thread() { end(); }

    [[nodiscard]] double cpu_seconds() {
        clockid_t clock{};
        timespec spent{};
        if (const int error = pthread_getcpuclockid(thread_.native_handle(), &clock))
            throw std::system_error(error, std::generic_category(), "pthread_getcpuclockid");
        if (clock_gettime(clock, &spent) != 0)
            throw std::system_error(errno, std::generic_category(), "clock_gettime");
        return static_cast<double>(spent.tv_sec) + static_cast<double>(spent.tv_nsec) * 1e-9;
    }

    /// Throws what `body` threw.
    void join() {
        end();
        if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
    }

    static void pin(int cpu) {
        cpu_set_t only;
        CPU_ZERO(&only);
        CPU_SET(cpu, &only);
        if (const int error = pthread_setaffinity_np(pthread_self(), sizeof only, &only))
            throw std::system_error(error, std::generic_category(), "pthread_setaffinity_np");
    }

private:
    void end() noexcept {
        if (!thread_.joinable()) return;
        done_.store(true, std::memory_order_release);
        done_.notify_one();
        thread_.join();
    }

    std::exception_ptr error_;
    std::atomic<bool> done_{false};  // release by end(), acquire by the thread's last wait
    std::thread thread_;             // last: it uses the others
};
