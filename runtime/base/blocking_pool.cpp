// SPDX-License-Identifier: MIT
#include "base/blocking_pool.hpp"

#include <sched.h>
#include <signal.h>

#include <algorithm>
#include <cerrno>
#include <utility>

// Why no job is lost if an idle thread's time runs out while a job is handed over.
//
// A job is queued, and a thread gives up waiting, only under the mutex. So one of them is first:
//
//   * The job. The thread that gives up finds the job in the queue, and runs it instead of leaving.
//     It may have consumed the notification for another thread, or the other thread finds the queue
//     empty and continues to wait. Both are harmless, because a notification only makes a thread
//     scan the queue, and the thread decides under the mutex.
//   * The leaving. The thread is then in neither count, and the submit makes a thread or knows of
//     others.
//
// No thread sleeps or leaves while the queue has a job, and no job is queued while there is no
// thread. So a thread is always on its way to the oldest job, or busy with one that was submitted
// before it.

namespace tokengate::detail {

namespace {

std::vector<unsigned long> affinity_of_this_thread() {
    constexpr std::size_t most_words = 4096;  // 262,144 CPUs
    for (std::vector<unsigned long> mask(16); mask.size() <= most_words;
         mask.resize(2 * mask.size())) {
        auto* bits = reinterpret_cast<cpu_set_t*>(mask.data());
        if (::sched_getaffinity(0, mask.size() * sizeof mask[0], bits) == 0) return mask;
        // EINVAL: the machine may have more CPUs than the mask has bits.
        if (errno != EINVAL) break;
    }
    return {};
}

}  // namespace

blocking_pool::blocking_pool(unsigned most_threads, std::chrono::nanoseconds keep_idle)
    : most_threads_(most_threads),
      // Limited, so that now + keep_idle cannot overflow.
      keep_idle_(std::min<std::chrono::nanoseconds>(keep_idle, std::chrono::years(1))),
      cpus_(affinity_of_this_thread()) {}

blocking_pool::~blocking_pool() {
    std::unique_lock lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
    changed_.wait(lock, [this] { return threads_ == 0; });
    lock.unlock();
    // This thread joined the one that left before it, and so on: all have ended.
    if (left_) ::pthread_join(*left_, nullptr);
}

bool blocking_pool::submit(blocking_job& job) noexcept {
    const std::scoped_lock lock(mutex_);
    // Each waiting job has claimed an idle thread, which may not have woken yet.
    if (waiting_ >= idle_ && threads_ < most_threads_) make_thread();
    if (threads_ == 0) return false;

    job.next = nullptr;
    job.link = end_;
    *end_ = &job;
    end_ = &job.next;
    ++waiting_;
    // Under the mutex: once it is released, the job may end, and another thread may destroy the
    // pool.
    changed_.notify_one();
    return true;
}

// The thread that was notified for the job finds nothing, and continues to wait.
bool blocking_pool::withdraw(blocking_job& job) noexcept {
    const std::scoped_lock lock(mutex_);
    if (!job.link) return false;
    unlink(job);
    return true;
}

void blocking_pool::unlink(blocking_job& job) noexcept {
    *job.link = job.next;
    (job.next ? job.next->link : end_) = job.link;
    job.link = nullptr;
    --waiting_;
}

std::size_t blocking_pool::waiting() const noexcept {
    const std::scoped_lock lock(mutex_);
    return waiting_;
}

unsigned blocking_pool::threads() const noexcept {
    const std::scoped_lock lock(mutex_);
    return threads_;
}

unsigned blocking_pool::idle() const noexcept {
    const std::scoped_lock lock(mutex_);
    return idle_;
}

// Under the mutex, because the result decides whether the job can be queued. The new thread first
// takes the mutex. This is no std::thread: that can also fail by bad_alloc, and its handle would
// have to be kept somewhere until it is joined.
bool blocking_pool::make_thread() noexcept {
    sigset_t all, before;
    ::sigfillset(&all);
    // Inherited by the new thread, so there is no moment in which it could take a signal.
    ::pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_t made;
    const int error = ::pthread_create(
        &made, nullptr,
        [](void* self) -> void* {
            static_cast<blocking_pool*>(self)->work();
            return nullptr;
        },
        this);
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    if (error != 0) return false;
    ++threads_;
    ++idle_;
    return true;
}

void blocking_pool::work() noexcept {
    ::pthread_setname_np(::pthread_self(), "tokengate-block");
    // Fails if the mask has become invalid since. Then the thread keeps the submitter's mask.
    if (!cpus_.empty())
        ::sched_setaffinity(0, cpus_.size() * sizeof cpus_[0],
                            reinterpret_cast<const cpu_set_t*>(cpus_.data()));

    std::unique_lock lock(mutex_);
    while (changed_.wait_for(lock, keep_idle_, [this] { return head_ || stopping_; }) && head_) {
        blocking_job* job = head_;
        unlink(*job);
        --idle_;
        lock.unlock();
        job->call(job);
        lock.lock();
        ++idle_;
    }
    --idle_;
    --threads_;
    const std::optional<pthread_t> predecessor = std::exchange(left_, ::pthread_self());
    if (stopping_) changed_.notify_all();
    lock.unlock();
    // The predecessor has released the mutex and is ending, so this is short.
    if (predecessor) ::pthread_join(*predecessor, nullptr);
}

}  // namespace tokengate::detail
