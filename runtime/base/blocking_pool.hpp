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

/// Threads for calls that can only block (getaddrinfo, a foreign library): as many as there is work for, up to a limit.
///
///     struct lookup : blocking_job { … };  lookup work;  work.call = [](blocking_job* self) noexcept { … };
///     blocking_pool pool(16, 10s);
///     if (!pool.submit(work)) …                            // no thread could be made: `work` is still the caller's
///
/// A job belongs to the pool from a submit that says true until `call` is entered, or until it has been withdrawn;
/// `call` may end its life, nobody touches it afterwards. Jobs start in the order of their submits. The queue links
/// through the jobs: it never allocates, and is as long as there are jobs (at most one for each token there is).
///
/// Any thread may call anything, jobs included. The destructor runs whatever was submitted before and joins; it is not
/// for a job to call, and no foreign submit may be under way. No thread exists before the first job; one that had
/// nothing to do for `keep_idle` leaves. The threads block every signal, are named "tokengate-block", and may run on
/// the CPUs of the thread that made the pool, not only on the one to which a submitter is pinned.

namespace tokengate::detail {

class blocking_pool {
public:
    blocking_pool(unsigned most_threads, std::chrono::nanoseconds keep_idle);
    ~blocking_pool();
    blocking_pool(const blocking_pool&) = delete;
    blocking_pool& operator=(const blocking_pool&) = delete;

    /// False: there is no thread and none could be made now; nothing was queued, and the next submit tries again.
    /// While at least one thread exists it is true, and that thread will come to the job.
    [[nodiscard]] bool submit(blocking_job& job) noexcept;

    /// True: the job is the caller's again, `call` will not be entered. False: it has been, or is about to be. Only while
    /// the job lives.
    [[nodiscard]] bool withdraw(blocking_job& job) noexcept;

    [[nodiscard]] std::size_t waiting() const noexcept;  ///< jobs that no thread has begun
    [[nodiscard]] unsigned threads() const noexcept;
    [[nodiscard]] unsigned idle()
        const noexcept;  ///< threads that run no job, those just made included

private:
    bool make_thread() noexcept;
    void work() noexcept;
    void unlink(blocking_job& job) noexcept;

    const unsigned most_threads_;
    const std::chrono::nanoseconds keep_idle_;
    std::vector<unsigned long> cpus_;  // affinity mask for the threads; empty if unknown

    mutable std::mutex mutex_;  // guards everything below
    std::condition_variable
        changed_;  // idle threads: a job, or stopping_; the destructor: the last thread has left
    blocking_job* head_ = nullptr;
    blocking_job** end_ = &head_;  // the null pointer at which the next job is linked
    std::size_t waiting_ = 0;
    unsigned threads_ = 0;
    unsigned idle_ = 0;
    bool stopping_ = false;
    std::optional<pthread_t>
        left_;  // the thread that left last: the next to leave, or the destructor, joins it
};

}  // namespace tokengate::detail
