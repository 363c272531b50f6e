// SPDX-License-Identifier: MIT
#pragma once

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <iterator>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

/// Tests that change what a whole process may do, or that watch its stderr, run in a child of their own.
///
///     const auto child = in_child([] { refuse(SYS_io_uring_setup, EPERM); return what_a_runtime_throws(); });
///     CHECK(child.ended);  CHECK(child.said == "…");  CHECK(child.complained == "");     // its stderr
///
/// Call it while the process has one thread only. A child that does not end is killed by its alarm.

namespace tokengate::test {

struct child_result {
    bool ended;              ///< by itself, without a signal
    std::string said;        ///< what the body returned, or "threw " and the text of what it threw
    std::string complained;  ///< stderr
};

/// The body returns std::string.
template <class Body>
child_result in_child(Body body) {
    const auto read_all = [](int descriptor) {
        std::string text;
        char piece[4096];
        ::lseek(descriptor, 0, SEEK_SET);
        for (ssize_t n; (n = ::read(descriptor, piece, sizeof piece)) > 0;)
            text.append(piece, static_cast<std::size_t>(n));
        ::close(descriptor);
        return text;
    };
    const int said = ::memfd_create("said", 0);
    const int complained = ::memfd_create("complained", 0);
    std::fflush(nullptr);
    const pid_t child = ::fork();
    if (child == 0) {
        ::alarm(60);
        for (const int fatal : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTERM})
            std::signal(fatal, SIG_DFL);  // doctest's
        ::dup2(complained, STDERR_FILENO);
        std::string text;
        try {
            text = body();
        } catch (const std::exception& thrown) {
            text = std::string("threw ") + thrown.what();
        }
        std::fflush(nullptr);
        ::_exit(::write(said, text.data(), text.size()) == static_cast<ssize_t>(text.size()) ? 0
                                                                                             : 1);
    }
    int status = -1;
    while (child > 0 && ::waitpid(child, &status, 0) < 0 && errno == EINTR) {}
    std::string text = read_all(said);
    return {child > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0, std::move(text),
            read_all(complained)};
}

/// From here on this thread, and those it starts, get `error` from a system call; if a second argument is given, only
/// from calls with that one.
inline void refuse(long system_call, int error, std::optional<std::uint32_t> second_argument = {}) {
    const auto load = [](std::size_t offset) {
        return sock_filter{BPF_LD | BPF_W | BPF_ABS, 0, 0, static_cast<std::uint32_t>(offset)};
    };
    const auto equals = [](std::uint32_t value, std::uint8_t skip_unless) {
        return sock_filter{BPF_JMP | BPF_JEQ | BPF_K, 0, skip_unless, value};
    };
    constexpr bool little = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__;
    std::vector<sock_filter> filter{
        load(offsetof(seccomp_data, nr)),
        equals(static_cast<std::uint32_t>(system_call), second_argument ? 3 : 1)};
    if (second_argument) {
        filter.push_back(load(offsetof(seccomp_data, args) + sizeof(std::uint64_t) +
                              (little ? 0 : sizeof(std::uint32_t))));
        filter.push_back(equals(*second_argument, 1));
    }
    filter.push_back({BPF_RET | BPF_K, 0, 0,
                      SECCOMP_RET_ERRNO | static_cast<std::uint32_t>(error)});
    filter.push_back({BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW});
    const sock_fprog program{static_cast<unsigned short>(filter.size()), filter.data()};
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) != 0)
        throw std::system_error(errno, std::system_category(), "seccomp");
}

inline std::size_t open_descriptors() {
    using entries = std::filesystem::directory_iterator;
    return static_cast<std::size_t>(std::distance(entries("/proc/self/fd"), entries{}));
}

}  // namespace tokengate::test
