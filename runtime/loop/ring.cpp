// SPDX-License-Identifier: MIT
#include "loop/ring.hpp"

#include <tokengate/error.hpp>

#include <sys/resource.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <string>

namespace tokengate::detail {

namespace {

// Old headers lack these. A kernel that does not know a flag refuses it with EINVAL.
#ifndef IORING_SETUP_SINGLE_ISSUER
#define IORING_SETUP_SINGLE_ISSUER (1U << 12)
#endif
#ifndef IORING_SETUP_DEFER_TASKRUN
#define IORING_SETUP_DEFER_TASKRUN (1U << 13)
#endif

// Best first. DEFER_TASKRUN (6.1) keeps completions from interrupting running tokens. TASKRUN_FLAG
// (5.19) shows when the loop must enter for them. SUBMIT_ALL (5.18) keeps one bad entry from
// delaying the others.
constexpr unsigned flag_sets[] = {
    IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_COOP_TASKRUN |
        IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL,
    IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL,
    0,
};

std::string explain(int code, unsigned entries) {
    std::string text = "ring_unavailable: io_uring_setup(" + std::to_string(entries) +
                       ") failed: " + std::strerror(code);
    switch (code) {
        case EPERM: {
            std::string level;
            std::ifstream("/proc/sys/kernel/io_uring_disabled") >> level;
            if (level == "1" || level == "2")
                return text + ". The sysctl kernel.io_uring_disabled is " + level +
                       (level == "1" ? ": set it to 0, or give this process CAP_SYS_ADMIN or the "
                                       "group kernel.io_uring_group"
                                     : ": set it to 0 or 1");
            return text +
                   ". A seccomp filter or security module denies it (containers often do): allow "
                   "io_uring_setup, "
                   "io_uring_enter and io_uring_register in the container's seccomp profile";
        }
        case ENOSYS:
            return text +
                   ". The kernel has no io_uring (older than 5.1 or built without it), or a "
                   "seccomp filter hides it: "
                   "use a newer kernel, or allow io_uring_setup, io_uring_enter and "
                   "io_uring_register in the filter";
        case ENOMEM: {
            rlimit limit{};
            getrlimit(RLIMIT_MEMLOCK, &limit);
            return text + ". Locked memory is limited to " + std::to_string(limit.rlim_cur / 1024) +
                   " KiB (RLIMIT_MEMLOCK): raise `ulimit -l` (systemd: LimitMEMLOCK=), or make "
                   "ring_entries or the "
                   "number "
                   "of cores smaller";
        }
        case EMFILE:
        case ENFILE:
            return text +
                   ". No descriptor is left: raise `ulimit -n` (systemd: LimitNOFILE=); each "
                   "executor needs two";
        case EINVAL:
            return text +
                   ". The kernel takes no ring of that size: ring_entries must be from 1 to 32768";
        default: return text;
    }
}

}  // namespace

ring::ring(unsigned entries, bool changes_thread) {
    int result = -EINVAL;
    for (unsigned flags : flag_sets) {
        if (changes_thread && (flags & IORING_SETUP_SINGLE_ISSUER)) continue;
        io_uring_params parameters{};
        parameters.flags = flags;
        result = io_uring_queue_init_params(entries, &ring_, &parameters);
        if (result != -EINVAL) break;
    }
    if (result < 0) throw ring_unavailable(explain(-result, entries), -result);
    if (io_uring_probe* probe = io_uring_get_probe_ring(&ring_)) {
        has_msg_ring_ = io_uring_opcode_supported(probe, IORING_OP_MSG_RING) != 0;
        io_uring_free_probe(probe);
    }
}

ring::~ring() { io_uring_queue_exit(&ring_); }

io_uring_sqe* ring::entry() noexcept {
    io_uring_sqe* free = io_uring_get_sqe(&ring_);
    if (free) return free;
    submit();
    return io_uring_get_sqe(&ring_);
}

void ring::submit() noexcept {
    // After EINTR, EAGAIN or EBUSY the entries stay in the queue, and the next enter takes them.
    static_cast<void>(io_uring_submit(&ring_));
}

void ring::enter() noexcept { static_cast<void>(io_uring_submit_and_get_events(&ring_)); }

void ring::wait(std::optional<std::chrono::nanoseconds> timeout) noexcept {
    io_uring_cqe* first = nullptr;
    if (!timeout) {
        static_cast<void>(io_uring_submit_and_wait(&ring_, 1));
        return;
    }
    __kernel_timespec limit{timeout->count() / 1'000'000'000, timeout->count() % 1'000'000'000};
    static_cast<void>(io_uring_submit_and_wait_timeout(&ring_, &first, 1, &limit, nullptr));
}

}  // namespace tokengate::detail
