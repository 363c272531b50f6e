// SPDX-License-Identifier: MIT
#pragma once

namespace tokengate::detail {

/// What a pool's thread is to do; see runtime/base/blocking_pool.hpp. Whoever embeds it keeps it from submit until `call` is
/// entered or it has been withdrawn.
struct blocking_job {
    blocking_job* next = nullptr;  // the pool's, while the job is queued
    blocking_job** link =
        nullptr;  // the pool's: the pointer to this job in the queue; null while it is not queued
    void (*call)(blocking_job*) noexcept = nullptr;
};

}  // namespace tokengate::detail
