// SPDX-License-Identifier: MIT
#pragma once

#include "token/trace_ring.hpp"

#include <cstdint>
#include <span>
#include <string>

/// Trace rings as JSON in the Chrome trace event format, for ui.perfetto.dev and chrome://tracing.
///
///     const trace_row rows[] = {{"core 0", &first}, {"control loop", &second}};
///     std::string json = trace_json(rows, event_loop::steady_ns());
///
/// Each ring is a row, in the given order. Each segment in which a token's body runs is a slice,
/// named like its operation. The slice of a child in place lies within its awaiter's slice. Each
/// spawn is an arrow from the spawner's slice to the child's first one. A token without a slice
/// (rejected, held by a pause, or ended without having run) is an instant.
///
/// If a ring has overwritten the beginning of a segment, the segment has no slice. If it has
/// overwritten either end of an arrow, there is no arrow. A slice that still runs lasts until now.
///
/// Times are µs with ns as fraction, from the first event.
///
/// Thread safety: any thread; no executor is stopped for it. Errors: std::bad_alloc.

namespace tokengate::detail {

struct shared_state;

struct trace_row {
    std::string name;        ///< printable ASCII
    const trace_ring* ring;  ///< null: an empty row
};

[[nodiscard]] std::string trace_json(std::span<const trace_row> rows, std::uint64_t now_ns);
[[nodiscard]] std::string trace_json(const shared_state& runtime);

}  // namespace tokengate::detail
