// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/file_system.hpp>

#include <sys/stat.h>
#include <cerrno>
#include <string>
#include <system_error>

/// Helpers that file.cpp and file_system.cpp share.

namespace tokengate::detail {

/// Throws std::system_error: "open of /data/x failed: No such file or directory".
[[noreturn]] inline void throw_failed(int code, const std::string& deed) {
    throw std::system_error(code, std::system_category(), deed + " failed");
}

/// Rejects a path with a NUL: the kernel and a reader of what() would both take it for a shorter
/// one.
inline void refuse_nul(const std::string& path, const char* verb) {
    if (path.find('\0') != std::string::npos)
        throw_failed(EINVAL, std::string(verb) + ' ' + path.c_str() + "\\0...");
}

inline constexpr unsigned status_mask = STATX_BASIC_STATS | STATX_BTIME;
[[nodiscard]] fs::status status_from(const struct statx& found) noexcept;

}  // namespace tokengate::detail
