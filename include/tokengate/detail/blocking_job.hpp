// SPDX-License-Identifier: MIT
#pragma once

namespace tokengate::detail {

/// A job for a thread of the pool; see runtime/base/blocking_pool.hpp. The object that embeds a job
/// keeps it alive from submit until `call` is entered or the job has been withdrawn.
struct blocking_job {
    blocking_job* next = nullptr;  // the pool's, while the job is queued
    // The pool's: the pointer to this job in the queue. Null while the job is not queued.
    blocking_job** link = nullptr;
    void (*call)(blocking_job*) noexcept = nullptr;
};

}  // namespace tokengate::detail
