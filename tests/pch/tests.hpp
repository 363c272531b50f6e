// SPDX-License-Identifier: MIT
#pragma once

/// What nearly every test file includes, compiled once a build. Each file includes what it needs all the same.

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
