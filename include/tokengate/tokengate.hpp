// SPDX-License-Identifier: MIT
#pragma once

/// TokenGate is a coroutine runtime whose work stays on the core where it was placed. This header
/// includes all others except console.hpp, which belongs to a library of its own.

#include <tokengate/anchor.hpp>
#include <tokengate/blocking.hpp>
#include <tokengate/channel.hpp>
#include <tokengate/endpoint.hpp>
#include <tokengate/error.hpp>
#include <tokengate/event.hpp>
#include <tokengate/file.hpp>
#include <tokengate/file_system.hpp>
#include <tokengate/gate.hpp>
#include <tokengate/latch.hpp>
#include <tokengate/listener.hpp>
#include <tokengate/local.hpp>
#include <tokengate/mutex.hpp>
#include <tokengate/operation.hpp>
#include <tokengate/options.hpp>
#include <tokengate/readable.hpp>
#include <tokengate/registered_buffer.hpp>
#include <tokengate/resolve.hpp>
#include <tokengate/runtime.hpp>
#include <tokengate/runtime_options.hpp>
#include <tokengate/scope.hpp>
#include <tokengate/semaphore.hpp>
#include <tokengate/signal.hpp>
#include <tokengate/stall.hpp>
#include <tokengate/stop.hpp>
#include <tokengate/stream.hpp>
#include <tokengate/task.hpp>
#include <tokengate/task_token.hpp>
#include <tokengate/tcp.hpp>
#include <tokengate/this_token.hpp>
#include <tokengate/time.hpp>
#include <tokengate/time_span.hpp>
#include <tokengate/token.hpp>
#include <tokengate/token_info.hpp>
#include <tokengate/udp.hpp>
#include <tokengate/when_all.hpp>
#include <tokengate/when_any.hpp>
