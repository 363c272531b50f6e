// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/file_system.hpp>

#include <sys/stat.h>
#include <cerrno>
#include <string>
#include <system_error>

/// What file.cpp and file_system.cpp share.

namespace tokengate::detail {

/// "open of /data/x failed: No such file or directory".
[[noreturn]] inline void throw_failed(int code, const std::string& deed) {
    throw std::system_error(code, std::system_category(), deed + " failed");
}

/// The kernel would take such a path for a shorter one, and so would who reads what().
inline void refuse_nul(const std::string& path, const char* verb) {
    if (path.find('\0') != std::string::npos)
        throw_failed(EINVAL, std::string(verb) + ' ' + path.c_str() + "\\0...");
}

inline constexpr unsigned status_mask = STATX_BASIC_STATS | STATX_BTIME;
[[nodiscard]] fs::status status_from(const struct statx& found) noexcept;

}  // namespace tokengate::detail
