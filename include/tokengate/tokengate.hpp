// SPDX-License-Identifier: MIT
#pragma once

/// TokenGate: a coroutine runtime whose work stays where it was put. This header brings all of it.

#include <tokengate/anchor.hpp>
#include <tokengate/error.hpp>
#include <tokengate/gate.hpp>
#include <tokengate/operation.hpp>
#include <tokengate/options.hpp>
#include <tokengate/runtime.hpp>
#include <tokengate/task.hpp>
#include <tokengate/scope.hpp>
#include <tokengate/stop.hpp>
#include <tokengate/task_token.hpp>
#include <tokengate/this_token.hpp>
#include <tokengate/time.hpp>
#include <tokengate/token.hpp>
#include <tokengate/token_info.hpp>
#include <tokengate/when_all.hpp>
#include <tokengate/when_any.hpp>
