// SPDX-License-Identifier: MIT
#include "loop/ring.hpp"

#include "support/child.hpp"

#include <tokengate/detail/frame_pool.hpp>
#include <tokengate/error.hpp>
#include <tokengate/operation.hpp>
#include <tokengate/runtime.hpp>
#include <tokengate/when_all.hpp>

#include <doctest/doctest.h>

#include <linux/io_uring.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <semaphore>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace tg = tokengate;
using tg::detail::ring;
using tg::test::in_child;
using tg::test::open_descriptors;
using tg::test::refuse;

namespace {

const tg::operation twice{{.name = "ring_test_twice", .weight = tg::weight::heavy},
                          [](int n) { return 2 * n; }};

/// Tokens over two cores and back, several times, so that loops park and wake each other. "works", or what went wrong.
std::string work_of_a_runtime(tg::runtime_options options = {.cores = 2,
                                                             .spin = std::chrono::nanoseconds(0)}) {
    try {
        tg::runtime runtime(std::move(options));
        const int sum = runtime.run([]() -> tg::task<int> {
            int total = 0;
            for (int round = 0; round < 50; ++round) {
                std::vector<tg::token<int>> tokens;
                for (int i = 0; i < 20; ++i) tokens.push_back(twice(i));
                for (const int n : co_await tg::when_all(std::move(tokens))) total += n;
            }
            co_return total;
        });
        return sum == 50 * 20 * 19 ? "works" : "wrong sum";
    } catch (const tg::ring_unavailable& refused) {
        return std::string("code ") + std::to_string(refused.code()) + ": " + refused.what();
    }
}

bool has(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

/// What is said where a system call gives an error: by a ring, and by a runtime, all descriptors closed again after it.
struct refusal {
    std::string ring;
    std::string runtime;
};
refusal refused(long system_call, int error) {
    const auto child = in_child([&] {
        refuse(system_call, error);
        const std::size_t descriptors = open_descriptors();
        std::string said;
        try {
            ring made(8);
            said = "made";
        } catch (const tg::ring_unavailable& unavailable) {
            said = std::string("code ") + std::to_string(unavailable.code()) + ": " +
                   unavailable.what();
        }
        said += '\n' + work_of_a_runtime();
        return said + (open_descriptors() == descriptors ? "" : " (descriptors leaked)");
    });
    CHECK(child.ended);
    CHECK(child.complained == "");
    const std::size_t line = child.said.find('\n');
    return {child.said.substr(0, line),
            line == std::string::npos ? "" : child.said.substr(line + 1)};
}

/// Stands between a thread and io_uring_setup: gives EINVAL to setups whose flags touch `refused`, lets others pass.
class setup_warden {
public:
    explicit setup_warden(std::uint32_t refused) : refused_(refused) {
        thread_ = std::thread([this] {
            serve();
        });  // before the filter, which is for this thread and its children
        sock_filter filter[] = {
            {BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(seccomp_data, nr)},
            {BPF_JMP | BPF_JEQ | BPF_K, 0, 1, static_cast<std::uint32_t>(SYS_io_uring_setup)},
            {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_USER_NOTIF},
            {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW},
        };
        const sock_fprog program{4, filter};
        ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        listener_ = static_cast<int>(::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
                                               SECCOMP_FILTER_FLAG_NEW_LISTENER, &program));
        ready_.release();
    }
    ~setup_warden() { thread_.detach(); }  // it ends with the process

    [[nodiscard]] bool stands() const noexcept { return listener_ >= 0; }

    std::atomic<int> refusals{0}, granted{0};
    std::atomic<std::uint32_t> granted_flags{0};

private:
    void serve() {
        ready_.acquire();
        for (;;) {
            seccomp_notif asked{};
            seccomp_notif_resp answer{};
            if (::ioctl(listener_, SECCOMP_IOCTL_NOTIF_RECV, &asked) != 0) {
                if (errno == EINTR) continue;
                return;
            }
            // The parameters lie in this process; read as from another one, since no other rule says that we may.
            io_uring_params parameters{};
            iovec here{&parameters, sizeof parameters};
            iovec there{reinterpret_cast<void*>(asked.data.args[1]), sizeof parameters};
            static_cast<void>(::process_vm_readv(::getpid(), &here, 1, &there, 1, 0));
            answer.id = asked.id;
            if (parameters.flags & refused_) {
                ++refusals;
                answer.error = -EINVAL;
            } else {
                ++granted;
                granted_flags = parameters.flags;
                answer.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
            }
            static_cast<void>(::ioctl(listener_, SECCOMP_IOCTL_NOTIF_SEND, &answer));
        }
    }

    const std::uint32_t refused_;
    int listener_ = -1;
    std::binary_semaphore ready_{0};
    std::thread thread_;
};

void limit(decltype(RLIMIT_NOFILE) what, rlim_t to, rlim_t at_most) {
    const rlimit both{to, at_most};
    if (::setrlimit(what, &both) != 0)
        throw std::system_error(errno, std::system_category(), "setrlimit");
}

}  // namespace

TEST_SUITE("ring") {
    TEST_CASE("a ring takes entries and gives completions") {
        const std::size_t descriptors = open_descriptors();
        {
            ring made(8);
            CHECK(made.descriptor() >= 0);
            CHECK_FALSE(made.wants_enter());
            for (std::uint64_t i = 1; i <= 3; ++i) {
                io_uring_sqe* entry = made.entry();
                REQUIRE(entry);
                io_uring_prep_nop(entry);
                entry->user_data = i;
            }
            CHECK(made.wants_enter());
            made.wait({});
            made.enter();
            std::vector<std::uint64_t> done;
            made.for_each_completion([&](const io_uring_cqe& each) {
                done.push_back(each.user_data);
            });
            CHECK(done == std::vector<std::uint64_t>{1, 2, 3});
            CHECK_FALSE(made.wants_enter());
            CHECK_FALSE(made.has_completions());
        }
        CHECK(open_descriptors() == descriptors);
    }

    TEST_CASE("waiting with a time limit ends without a completion") {
        ring made(8);
        const auto began = std::chrono::steady_clock::now();
        made.wait(std::chrono::milliseconds(2));
        CHECK(std::chrono::steady_clock::now() - began >= std::chrono::milliseconds(2));
        CHECK_FALSE(made.has_completions());
        made.wait(std::chrono::nanoseconds(0));
    }

    TEST_CASE(
        "a full submission queue is submitted to make room; a full completion queue loses "
        "nothing") {
        constexpr std::uint64_t operations = 100'000;
        ring made(8);
        std::uint64_t sum = 0, count = 0;
        const auto reap = [&] {
            made.enter();
            made.for_each_completion([&](const io_uring_cqe& each) {
                sum += each.user_data;
                ++count;
            });
        };
        for (std::uint64_t i = 1; i <= operations; ++i) {
            io_uring_sqe* entry;
            while (!(entry = made.entry()))
                reap();  // the kernel takes no more until it can place its completions
            io_uring_prep_nop(entry);
            entry->user_data = i;
            if (i % 1000 == 0) reap();  // 60 completion queues full
        }
        while (count < operations) reap();
        CHECK(count == operations);
        CHECK(sum == operations * (operations + 1) / 2);
    }

    TEST_CASE("no ring: a seccomp filter that answers EPERM") {
        const refusal said = refused(SYS_io_uring_setup, EPERM);
        for (const std::string& text : {said.ring, said.runtime}) {
            CAPTURE(text);
            CHECK(has(text, "code " + std::to_string(EPERM) + ": ring_unavailable: "));
            CHECK(has(text, "Operation not permitted"));
            // The sysctl gives the same number; it is looked at first.
            const bool by_sysctl = has(text, "kernel.io_uring_disabled is ");
            CHECK((by_sysctl || (has(text, "seccomp") && has(text, "allow io_uring_setup"))));
        }
    }

    TEST_CASE("no ring: a seccomp filter that answers ENOSYS") {
        const refusal said = refused(SYS_io_uring_setup, ENOSYS);
        for (const std::string& text : {said.ring, said.runtime}) {
            CAPTURE(text);
            CHECK(has(text, "code " + std::to_string(ENOSYS) + ": ring_unavailable: "));
            CHECK(has(text, "older than 5.1"));
            CHECK(has(text, "seccomp filter hides it"));
            CHECK(has(text, "allow io_uring_setup, io_uring_enter and io_uring_register"));
        }
    }

    TEST_CASE("no ring: memory, descriptors, anything else: never a bare number") {
        const refusal memory = refused(SYS_io_uring_setup, ENOMEM);
        CHECK(has(memory.runtime, "RLIMIT_MEMLOCK"));
        CHECK(has(memory.runtime, "ulimit -l"));
        const refusal descriptors = refused(SYS_io_uring_setup, EMFILE);
        CHECK(has(descriptors.runtime, "ulimit -n"));
        const refusal size = refused(SYS_io_uring_setup, EINVAL);
        CHECK(has(size.runtime, "ring_entries"));
        const refusal odd = refused(SYS_io_uring_setup, EIO);
        CHECK(has(odd.runtime,
                  "code " + std::to_string(EIO) + ": ring_unavailable: io_uring_setup"));
        CHECK(has(odd.runtime, "Input/output error"));
        const refusal event = refused(SYS_eventfd2, EMFILE);
        CHECK(event.ring == "made");
        CHECK(has(event.runtime, "code " + std::to_string(EMFILE) + ": ring_unavailable: eventfd"));
        CHECK(has(event.runtime, "ulimit -n"));
    }

    TEST_CASE("kernel.io_uring_disabled is named, with what to set it to") {
        for (const char level : {'1', '2'}) {
            const auto child = in_child([&]() -> std::string {
                // The file that says so, in a mount namespace of our own; that takes root.
                const char* const shown = "/proc/sys/kernel/io_uring_disabled";
                std::string ours = std::filesystem::temp_directory_path() / "ring_test_XXXXXX";
                const int file = ::mkstemp(ours.data());
                const bool mounted =
                    ::write(file, &level, 1) == 1 && ::unshare(CLONE_NEWNS) == 0 &&
                    ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
                    ::mount(ours.c_str(), shown, nullptr, MS_BIND, nullptr) == 0;
                ::unlink(ours.c_str());
                if (!mounted) return "cannot";
                refuse(SYS_io_uring_setup, EPERM);
                return work_of_a_runtime();
            });
            CHECK(child.ended);
            if (child.said == "cannot") {
                MESSAGE("skipped: no private mounts here");
                return;
            }
            CAPTURE(child.said);
            CHECK(has(child.said, std::string("The sysctl kernel.io_uring_disabled is ") + level));
            CHECK(has(child.said, "set it to 0"));
        }
    }

    TEST_CASE("setup flags that the kernel refuses are done without") {
        constexpr std::uint32_t newest = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
        const std::pair<std::uint32_t, std::uint32_t> refused_and_left[] = {
            {0, newest | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
                    IORING_SETUP_SUBMIT_ALL},
            {newest,
             IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL},
            {~std::uint32_t{0}, 0},
        };
        for (const auto& [refused, left] : refused_and_left) {
            CAPTURE(refused);
            const auto child = in_child([&, refused = refused]() -> std::string {
                setup_warden warden(refused);
                if (!warden.stands()) return "cannot";
                std::string said = work_of_a_runtime();
                return said + ' ' + std::to_string(warden.granted_flags) + ' ' +
                       std::to_string(warden.granted);
            });
            CHECK(child.ended);
            if (child.said == "cannot") {
                MESSAGE("skipped: no seccomp notifications here");
                return;
            }
            CHECK(child.said ==
                  "works " + std::to_string(left) + " 3");  // two cores and the control loop
            CHECK(child.complained == "");
        }
    }

    TEST_CASE("without MSG_RING loops wake each other by eventfd") {
        const auto child = in_child([] {
            refuse(SYS_io_uring_register, EPERM);
            return work_of_a_runtime() + (ring(8).has_msg_ring() ? " msg_ring" : " eventfd");
        });
        CHECK(child.ended);
        CHECK(child.said == "works eventfd");
    }

    TEST_CASE("RLIMIT_MEMLOCK of 64 KiB: it works, or says what to raise") {
        const auto child = in_child([] {
            limit(RLIMIT_MEMLOCK, 64 * 1024, 64 * 1024);
            return work_of_a_runtime();
        });
        CHECK(child.ended);
        CAPTURE(child.said);
        CHECK((child.said == "works" || has(child.said, "RLIMIT_MEMLOCK")));
    }

    TEST_CASE(
        "too few descriptors: an error that says so, whichever of them is missing, and all are "
        "closed again") {
#ifdef TOKENGATE_ASAN
        MESSAGE("skipped: UndefinedBehaviorSanitizer needs descriptors itself");
        return;
#endif
        for (rlim_t allowed = 4; allowed < 28; ++allowed) {
            CAPTURE(allowed);
            const auto child = in_child([&] {
                const std::size_t descriptors = open_descriptors();
                rlimit before{};
                ::getrlimit(RLIMIT_NOFILE, &before);
                limit(RLIMIT_NOFILE, allowed, before.rlim_max);
                std::string said = work_of_a_runtime({.cores = 4});
                limit(RLIMIT_NOFILE, before.rlim_cur, before.rlim_max);  // to be able to count
                return said + (open_descriptors() == descriptors ? "" : " (descriptors leaked)");
            });
            CHECK(child.ended);
            CHECK(child.complained == "");
            CHECK((child.said == "works" ||
                   (has(child.said, "ring_unavailable: ") && has(child.said, "ulimit -n") &&
                    !has(child.said, "leaked"))));
        }
    }

    TEST_CASE(
        "descriptors are back to the start after runtimes that worked and runtimes that did not") {
        work_of_a_runtime();
        const std::size_t descriptors = open_descriptors();
        for (int i = 0; i < 5; ++i) CHECK(work_of_a_runtime({.cores = 4}) == "works");
        CHECK_THROWS_AS(tg::runtime({.cores = 0}), tg::configuration_error);
        CHECK(open_descriptors() == descriptors);
    }
}
