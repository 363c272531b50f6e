// SPDX-License-Identifier: MIT
#include "report/trace.hpp"

#include "base/quoted.hpp"
#include "executor/shared.hpp"
#include "lifecycle/runtime_core.hpp"

#include <tokengate/detail/token_record.hpp>
#include <tokengate/runtime.hpp>
#include <tokengate/token_info.hpp>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace tokengate::detail {

namespace {

constexpr std::uint64_t never = std::numeric_limits<std::uint64_t>::max();

/// An item to draw: a slice, the point where an arrow leaves, or an instant.
struct mark {
    enum class shape : std::uint8_t { slice, departure, instant } drawn_as;
    trace_event event;
    std::uint64_t duration_ns = 0;
    std::string_view outcome{};  ///< the token's, if it ended in this slice
    bool earliest = false;       ///< the first known slice of its token
};

/// The facts about a token that the other rows need.
struct journey {
    std::uint64_t spawned_ns = never;
    std::uint64_t admitted_ns = never;
    std::uint64_t started_ns = never;
    /// The oldest event of the ring of the thread where it runs; 0 if no event was overwritten.
    std::uint64_t known_since_ns = 0;
    bool leaves_a_slice = false;

    /// A token never changes its thread. So if that thread's ring goes back to the time of the
    /// spawn, its first slice is the true start.
    [[nodiscard]] bool starts_as_known() const noexcept {
        return started_ns != never && known_since_ns <= spawned_ns && spawned_ns <= started_ns;
    }
    [[nodiscard]] bool is_arrow() const noexcept { return leaves_a_slice && starts_as_known(); }
};

using journeys = std::unordered_map<std::uint64_t, journey>;

/// One thread's events, in their order, made into marks.
class row_reader {
public:
    row_reader(const trace_reading& from, journeys& all) : from_(from), all_(all) {
        std::uint64_t latest = 0;
        for (trace_event each : from.events) {
            // Slices nest only if time does not go backwards.
            latest = each.ns = std::max(each.ns, latest);
            take(each);
        }
    }

    /// Slices that still run last until `now_ns`.
    std::vector<mark> finish(std::uint64_t now_ns) && {
        for (const std::size_t each : open_) marks_[each].outcome = "running";
        close_above(0, now_ns);
        return std::move(marks_);
    }

private:
    void take(const trace_event& event) {
        switch (event.kind) {
            case trace_kind::spawned: {
                journey& child = all_[event.sequence];
                if (child.spawned_ns != never) break;  // only the first spawn of a token counts
                child.spawned_ns = event.ns;
                child.leaves_a_slice = !open_.empty();
                if (child.leaves_a_slice) marks_.push_back({mark::shape::departure, event});
                break;
            }
            case trace_kind::admitted: all_[event.sequence].admitted_ns = event.ns; break;
            case trace_kind::segment_begin:
                close_above(0, event.ns);
                open(event);
                break;
            case trace_kind::in_place_begin: open(event); break;
            case trace_kind::continued:
                // It continues in its open slice. If it had been suspended, it begins a new slice.
                if (const std::size_t depth = depth_of(event.sequence); depth != 0) {
                    close_above(depth, event.ns);
                } else {
                    close_above(0, event.ns);
                    open(event);
                }
                break;
            case trace_kind::ended:
                if (const std::size_t depth = depth_of(event.sequence); depth != 0) {
                    marks_[open_[depth - 1]].outcome =
                        name_of(static_cast<token_state>(event.argument));
                    close_above(depth - 1, event.ns);
                } else {
                    marks_.push_back({mark::shape::instant, event});
                }
                break;
            case trace_kind::segment_end: close_above(0, event.ns); break;
            case trace_kind::paused:
            case trace_kind::refused: marks_.push_back({mark::shape::instant, event}); break;
        }
    }

    void open(const trace_event& event) {
        open_.push_back(marks_.size());
        journey& token = all_[event.sequence];
        mark& slice = marks_.emplace_back(mark{mark::shape::slice, event});
        slice.earliest = token.started_ns == never;
        if (!slice.earliest) return;
        token.started_ns = event.ns;
        token.known_since_ns = from_.lost == 0 ? 0 : from_.events[0].ns;
    }

    [[nodiscard]] std::size_t depth_of(std::uint64_t sequence) const noexcept {
        std::size_t depth = open_.size();
        while (depth != 0 && marks_[open_[depth - 1]].event.sequence != sequence) --depth;
        return depth;
    }

    void close_above(std::size_t depth, std::uint64_t ns) noexcept {
        for (; open_.size() > depth; open_.pop_back()) {
            mark& slice = marks_[open_.back()];
            slice.duration_ns = ns - slice.event.ns;
        }
    }

    const trace_reading& from_;
    journeys& all_;
    std::vector<mark> marks_;
    std::vector<std::size_t> open_;  // the open slices of the current segment, outermost first
};

/// Builds the JSON document.
class document {
public:
    explicit document(std::uint64_t origin_ns) : origin_ns_(origin_ns) {}

    void process() { metadata("process_name", 0, "\"name\":\"tokengate\""); }

    void row(unsigned thread, const std::string& name) {
        metadata("thread_name", thread, "\"name\":" + quoted(name));
        metadata("thread_sort_index", thread, "\"sort_index\":" + std::to_string(thread));
    }

    void draw(unsigned thread, const mark& drawn, const journeys& all) {
        const trace_event& event = drawn.event;
        switch (drawn.drawn_as) {
            case mark::shape::slice: {
                const journey& token = all.at(event.sequence);
                const bool starts = drawn.earliest && token.starts_as_known();
                begin("X", event.operation->name, "token", thread, event.ns);
                out_ += ",\"dur\":";
                microseconds(drawn.duration_ns);
                out_ += ",\"args\":{\"token\":" + id_of(event);
                if (starts) {
                    waited("waited_us", token.spawned_ns, event.ns);
                    waited("queued_us", token.admitted_ns, event.ns);
                }
                if (!drawn.outcome.empty()) out_ += ",\"outcome\":" + quoted(drawn.outcome);
                out_ += "}}";
                if (starts && token.is_arrow()) arrow("f", thread, event);
                break;
            }
            case mark::shape::departure:
                if (all.at(event.sequence).is_arrow()) arrow("s", thread, event);
                break;
            case mark::shape::instant: {
                const bool ended = event.kind == trace_kind::ended;
                const std::string_view what =
                    ended ? name_of(static_cast<token_state>(event.argument))
                    : event.kind == trace_kind::paused ? "paused"
                                                       : "refused";
                begin("i", std::string(event.operation->name) + ' ' + std::string(what), "token",
                      thread, event.ns);
                out_ += ",\"s\":\"t\",\"args\":{";
                // The event of an end lacks the token's creation time, so the sequence names it.
                out_ += ended ? "\"sequence\":" + quoted(std::to_string(event.sequence))
                              : "\"token\":" + id_of(event);
                out_ += "}}";
                break;
            }
        }
    }

    std::string finish() && { return std::move(out_ += "\n]}\n"); }

private:
    static constexpr unsigned process_number = 1;

    void begin(const char* phase, std::string_view name, const char* category, unsigned thread,
               std::uint64_t ns) {
        out_ += first_ ? "\n{\"ph\":\"" : ",\n{\"ph\":\"";
        first_ = false;
        out_ += phase;
        out_ += "\",\"name\":" + quoted(name) + ",\"cat\":\"" + category;
        out_ += "\",\"pid\":" + std::to_string(process_number) +
                ",\"tid\":" + std::to_string(thread) + ",\"ts\":";
        microseconds(ns - origin_ns_);
    }

    void metadata(const char* what, unsigned thread, const std::string& argument) {
        begin("M", what, "__metadata", thread, origin_ns_);
        out_ += ",\"args\":{" + argument + "}}";
    }

    /// Written directly behind the slice at which it arrives: a viewer that reads in order then
    /// binds it to that slice.
    void arrow(const char* phase, unsigned thread, const trace_event& event) {
        begin(phase, "spawn", "spawn", thread, event.ns);
        out_ += ",\"id\":\"" + std::to_string(event.sequence) +
                (*phase == 'f' ? "\",\"bp\":\"e\"}" : "\"}");
    }

    void waited(const char* what, std::uint64_t since_ns, std::uint64_t until_ns) {
        if (since_ns > until_ns) return;  // also if `since_ns` is `never`, that is, unknown
        out_ += std::string(",\"") + what + "\":";
        microseconds(until_ns - since_ns);
    }

    void microseconds(std::uint64_t ns) {
        const std::string fraction = std::to_string(ns % 1000);
        out_ += std::to_string(ns / 1000) + '.';
        out_.append(3 - fraction.size(), '0');
        out_ += fraction;
    }

    static std::string id_of(const trace_event& event) {
        return quoted(token_id{event.operation->name, event.argument, event.sequence}.text());
    }

    const std::uint64_t origin_ns_;
    std::string out_ = "{\"displayTimeUnit\":\"ns\",\"traceEvents\":[";
    bool first_ = true;
};

}  // namespace

std::string trace_json(std::span<const trace_row> rows, std::uint64_t now_ns) {
    std::vector<trace_reading> readings;
    for (const trace_row& each : rows)
        readings.push_back(each.ring ? each.ring->read(now_ns) : trace_reading{});

    std::uint64_t first = now_ns;
    std::uint64_t last = now_ns;
    for (const trace_reading& each : readings) {
        for (const trace_event& event : each.events) {
            first = std::min(first, event.ns);
            last =
                std::max(last, event.ns);  // an event noted during this reading is later than now
        }
    }

    journeys all;
    std::vector<row_reader> readers;
    for (const trace_reading& each : readings) readers.emplace_back(each, all);

    document out(first);
    out.process();
    unsigned thread = 0;
    for (const trace_row& each : rows) out.row(++thread, each.name);
    thread = 0;
    for (row_reader& each : readers) {
        ++thread;
        for (const mark& drawn : std::move(each).finish(last)) out.draw(thread, drawn, all);
    }
    return std::move(out).finish();
}

std::string trace_json(const shared_state& runtime) {
    const unsigned workers = runtime.loads.layout().workers_per_core;
    std::vector<trace_row> rows;
    for (const auto& each : runtime.executors) {
        const unsigned position = each->position();
        std::string name = "control loop";
        if (!runtime.is_control(position)) {
            name = "core " + std::to_string(position / workers);
            if (workers > 1) name += " worker " + std::to_string(position % workers);
        }
        rows.push_back({std::move(name), each->trace.get()});
    }
    return trace_json(rows, event_loop::steady_ns());
}

}  // namespace tokengate::detail

namespace tokengate {

std::string runtime::trace() const { return detail::trace_json(*core_); }

}  // namespace tokengate
