// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/detail/blocking_job.hpp>

#include <pthread.h>

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <optional>
#include <vector>

/// Threads for calls that can only block (getaddrinfo, a foreign library): as many as there is work
/// for, up to a limit.
///
///     struct lookup : blocking_job { … };
///     lookup work;
///     work.call = [](blocking_job* self) noexcept { … };
///     blocking_pool pool(16, 10s);
///     if (!pool.submit(work)) …        // no thread could be made: `work` is still the caller's
///
/// A job belongs to the pool from a submit that returns true until `call` is entered, or until the
/// job has been withdrawn. `call` may end the job's life: the pool does not touch the job
/// afterwards. Jobs start in the order of their submits. The queue links through the jobs. It never
/// allocates, and is as long as there are jobs (at most one for each token).
///
/// Any thread may call any function, and so may a job. The destructor runs all jobs submitted
/// before and joins the threads. A job must not call it, and no submit from another thread may be
/// under way. No thread exists before the first job. A thread that had nothing to do for
/// `keep_idle` leaves. The threads block every signal and are named "tokengate-block". They may run
/// on the CPUs of the thread that made the pool, not only on the one to which a submitter is
/// pinned.

namespace tokengate::detail {

class blocking_pool {
public:
    blocking_pool(unsigned most_threads, std::chrono::nanoseconds keep_idle);
    ~blocking_pool();
    blocking_pool(const blocking_pool&) = delete;
    blocking_pool& operator=(const blocking_pool&) = delete;

    /// False: there is no thread, and none could be made now. Nothing was queued, and the next
    /// submit tries again. While at least one thread exists, the result is true, and a thread will
    /// run the job.
    [[nodiscard]] bool submit(blocking_job& job) noexcept;

    /// True: the job is the caller's again, and `call` will not be entered. False: `call` has been
    /// entered, or is about to be. Call it only while the job lives.
    [[nodiscard]] bool withdraw(blocking_job& job) noexcept;

    [[nodiscard]] std::size_t waiting() const noexcept;  ///< jobs that no thread has begun
    [[nodiscard]] unsigned threads() const noexcept;
    /// Threads that run no job, including those just made.
    [[nodiscard]] unsigned idle() const noexcept;

private:
    bool make_thread() noexcept;
    void work() noexcept;
    void unlink(blocking_job& job) noexcept;

    const unsigned most_threads_;
    const std::chrono::nanoseconds keep_idle_;
    std::vector<unsigned long> cpus_;  // affinity mask for the threads; empty if unknown

    mutable std::mutex mutex_;  // guards everything below
    // Wakes idle threads (for a job, or stopping_) and the destructor (the last thread has left).
    std::condition_variable changed_;
    blocking_job* head_ = nullptr;
    blocking_job** end_ = &head_;  // the null pointer to which the next job is linked
    std::size_t waiting_ = 0;
    unsigned threads_ = 0;
    unsigned idle_ = 0;
    bool stopping_ = false;
    // The thread that left last. The next one to leave, or the destructor, joins it.
    std::optional<pthread_t> left_;
};

}  // namespace tokengate::detail
