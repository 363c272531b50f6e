// SPDX-License-Identifier: MIT
#pragma once

/// TokenGate: a coroutine runtime whose work stays where it was put. This header brings all of it.

#include <tokengate/anchor.hpp>
#include <tokengate/error.hpp>
#include <tokengate/operation.hpp>
#include <tokengate/options.hpp>
#include <tokengate/runtime.hpp>
#include <tokengate/task.hpp>
#include <tokengate/this_token.hpp>
#include <tokengate/token.hpp>
#include <tokengate/token_info.hpp>
#include <tokengate/when_all.hpp>
