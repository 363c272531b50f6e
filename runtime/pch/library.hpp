// SPDX-License-Identifier: MIT
#ifndef TOKENGATE_LIBRARY_PCH
#define TOKENGATE_LIBRARY_PCH

/// What most of the library's sources include, compiled once a build. Each source includes what it needs all the same; CI's build
/// with clang looks, for it has no precompiled headers. No private header: whoever edits one need not compile all again.

#include <tokengate/tokengate.hpp>

#include <liburing.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#endif
