// SPDX-License-Identifier: MIT
#ifndef TOKENGATE_TESTS_PCH
#define TOKENGATE_TESTS_PCH

/// What nearly every test file includes, compiled once a build. Each file includes what it needs all the same. No pragma once:
/// the compilers warn of it in a file that is compiled by itself.

#include <tokengate/tokengate.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#endif
