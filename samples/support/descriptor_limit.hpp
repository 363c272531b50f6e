// SPDX-License-Identifier: MIT
#pragma once

#include <sys/resource.h>

#include <algorithm>
#include <limits>

/// Raises the process's limit of open files and connections as far as it may.
///
///     const unsigned most = support::raise_descriptor_limit();

namespace support {

/// Raises the soft limit (usually 1024, because of select(2)) to the hard one. Returns the limit in
/// force afterwards.
inline unsigned raise_descriptor_limit() {
    rlimit limit{};
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 1024;
    const rlimit raised{limit.rlim_max, limit.rlim_max};
    const rlim_t now = setrlimit(RLIMIT_NOFILE, &raised) == 0 ? limit.rlim_max : limit.rlim_cur;
    return static_cast<unsigned>(std::min<rlim_t>(now, std::numeric_limits<unsigned>::max()));
}

}  // namespace support
