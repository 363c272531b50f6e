// SPDX-License-Identifier: MIT
#pragma once

#include "token/trace_ring.hpp"

#include <cstdint>
#include <span>
#include <string>

/// Trace rings as JSON in the Chrome trace event format, which ui.perfetto.dev and chrome://tracing show.
///
///     const trace_row rows[] = {{"core 0", &first}, {"control loop", &second}};
///     std::string json = trace_json(rows, event_loop::steady_ns());
///
/// A row a ring, in this order. A stretch in which a token's body runs is a slice, named like its operation; a child that
/// runs inside its awaiter's stretch lies within the awaiter's slice. Each spawn is an arrow from the spawner's slice to
/// the child's first one. What has no slice (a token that was refused, paused, or ended without having run) is an
/// instant.
///
/// Where a ring has forgotten the beginning of a stretch, there is no slice of it; where it has forgotten either end of an
/// arrow, there is no arrow. What still runs lasts until now.
///
/// Any thread; nothing is stopped for it. Times are µs with ns as fraction, from the first event. Throws std::bad_alloc.

namespace tokengate::detail {

struct shared_state;

struct trace_row {
    std::string name;        ///< printable ASCII
    const trace_ring* ring;  ///< null: an empty row
};

[[nodiscard]] std::string trace_json(std::span<const trace_row> rows, std::uint64_t now_ns);
[[nodiscard]] std::string trace_json(const shared_state& runtime);

}  // namespace tokengate::detail
