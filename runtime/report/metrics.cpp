// SPDX-License-Identifier: MIT
#include "report/metrics.hpp"

#include "executor/shared.hpp"
#include "gate/guard.hpp"
#include "lifecycle/runtime_core.hpp"
#include "report/health.hpp"
#include "token/context.hpp"

#include <tokengate/runtime.hpp>

#include <array>
#include <charconv>
#include <concepts>
#include <cstddef>
#include <functional>
#include <map>
#include <string_view>
#include <utility>
#include <vector>

namespace tokengate {

namespace detail {

namespace {

/// Upper bounds of the buckets: 1, 2, 5, 10 … µs to 100 s, in ns.
constexpr auto bounds = [] {
    std::array<std::uint64_t, 25> made{};
    std::uint64_t decade = 1'000;
    for (std::size_t i = 0; i < made.size(); ++i) {
        constexpr std::array<std::uint64_t, 3> steps{1, 2, 5};
        made[i] = decade * steps[i % 3];
        if (i % 3 == 2) decade *= 10;
    }
    return made;
}();
static_assert(bounds.front() == 1'000 && bounds.back() == 100'000'000'000);

constexpr double seconds(std::uint64_t ns) { return static_cast<double>(ns) / 1e9; }

template <class Number>
void append(std::string& text, Number value) {
    std::array<char, 32> digits;
    std::to_chars_result written{};
    if constexpr (std::floating_point<Number>)
        written = std::to_chars(digits.data(), digits.data() + digits.size(), value,
                                std::chars_format::general);
    else
        written = std::to_chars(digits.data(), digits.data() + digits.size(), value);
    text.append(digits.data(), written.ptr);
}

/// name="value". Backslashes, quotes and newlines of the value are escaped.
std::string label(std::string_view name, std::string_view value) {
    std::string text(name);
    text += "=\"";
    for (const char c : value) {
        if (c == '\\' || c == '"') text += '\\';
        if (c == '\n')
            text += "\\n";
        else
            text += c;
    }
    return text += '"';
}

/// Writes families of samples. The format requires each family in one piece.
class exposition {
public:
    void family(const char* name, const char* type, const char* help) {
        name_ = name;
        text_.append("# HELP ").append(name).append(" ").append(help);
        text_.append("\n# TYPE ").append(name).append(" ").append(type).append("\n");
    }

    /// The family's only sample, or one of several with different labels.
    template <class Number>
    void sample(Number value, std::string_view labels = {}, std::string_view more = {}) {
        line("", labels, more, value);
    }

    void distribution(const histogram_sum& of, std::string_view labels) {
        of.up_to(bounds, [&](std::size_t i, std::uint64_t count) {
            line("_bucket", labels, upper[i], count);
        });
        line("_bucket", labels, "le=\"+Inf\"", of.count());
        line("_sum", labels, {}, seconds(of.total()));
        line("_count", labels, {}, of.count());
    }

    std::string take() && { return std::move(text_); }

private:
    template <class Number>
    void line(std::string_view suffix, std::string_view labels, std::string_view more,
              Number value) {
        text_.append(name_).append(suffix);
        if (!labels.empty() || !more.empty()) {
            text_.append("{").append(labels);
            if (!labels.empty() && !more.empty()) text_ += ',';
            text_.append(more).append("}");
        }
        text_ += ' ';
        append(text_, value);
        text_ += '\n';
    }

    const std::array<std::string, bounds.size()> upper = [] {
        std::array<std::string, bounds.size()> made;
        for (std::size_t i = 0; i < made.size(); ++i) {
            made[i] = "le=\"";
            append(made[i], seconds(bounds[i]));
            made[i] += '"';
        }
        return made;
    }();
    std::string text_;
    std::string_view name_;
};

/// Executors that share a core make one row. So do operations of the same name, defined one after
/// the other. Otherwise a sample would appear twice, which the format forbids.
struct core_row {
    std::string labels;
    std::vector<const executor*> of;
};

struct operation_row {
    std::string labels;
    std::vector<const operation_stats*> of;
};

std::vector<core_row> rows_by_core(const shared_state& runtime) {
    std::vector<core_row> rows(runtime.loads.layout().cores + 1);
    for (const auto& each : runtime.executors) {
        const unsigned core = runtime.core_of(each->position());
        core_row& row = core == control_core ? rows.back() : rows[core];
        if (row.of.empty())
            row.labels = label("core", core == control_core ? "control" : std::to_string(core));
        row.of.push_back(each.get());
    }
    return rows;
}

std::vector<operation_row> rows_by_operation(const shared_state& runtime,
                                             const std::vector<core_row>& cores) {
    std::map<std::string_view, std::vector<std::uint32_t>> indices;
    for (const operation_record* each : known_operations())
        indices[each->name].push_back(each->index);
    std::vector<operation_row> rows;
    for (const auto& [name, known] : indices)
        for (const core_row& core : cores) {
            operation_row row;
            for (const executor* each : core.of)
                for (const std::uint32_t index : known)
                    if (const operation_stats* found = each->known_stats_of(index))
                        row.of.push_back(found);
            // Tokens rejected outside of an executor count for the control loop, which would have
            // admitted them.
            if (&core == &cores.back())
                for (const std::uint32_t index : known)
                    if (const operation_stats* found = runtime.places.refused()->find(index))
                        row.of.push_back(found);
            if (row.of.empty()) continue;
            row.labels = label("operation", name) + ',' + core.labels;
            rows.push_back(std::move(row));
        }
    return rows;
}

template <class Of, class Field>
auto sum(const std::vector<Of>& of, Field field) {
    auto total = field(*of.front());
    for (std::size_t i = 1; i < of.size(); ++i) total += field(*of[i]);
    return total;
}

void write_operations(exposition& out, const shared_state& runtime,
                      const std::vector<core_row>& cores) {
    const std::vector<operation_row> rows = rows_by_operation(runtime, cores);
    const auto counter = [&](const operation_row& row,
                             relaxed<std::uint64_t> operation_stats::* which,
                             std::string_view more = {}) {
        out.sample(sum(row.of, [&](const operation_stats& each) { return (each.*which).load(); }),
                   row.labels, more);
    };
    const auto counters = [&](const char* name, const char* help,
                              relaxed<std::uint64_t> operation_stats::* which) {
        out.family(name, "counter", help);
        for (const operation_row& row : rows) counter(row, which);
    };
    const auto histograms = [&](const char* name, const char* help,
                                histogram operation_stats::* which) {
        out.family(name, "histogram", help);
        for (const operation_row& row : rows) {
            histogram_sum all;
            for (const operation_stats* each : row.of) all.add(each->*which);
            out.distribution(all, row.labels);
        }
    };
    counters("tokengate_operation_admitted_total",
             "Tokens handed to the gate, by the core that did so.", &operation_stats::admitted);
    counters("tokengate_operation_started_total", "Tokens whose body has begun.",
             &operation_stats::started);
    out.family("tokengate_operation_ended_total", "counter",
               "Tokens that have ended, by what became of them.");
    for (const operation_row& row : rows) {
        counter(row, &operation_stats::completed, R"(outcome="completed")");
        counter(row, &operation_stats::failed, R"(outcome="failed")");
        counter(row, &operation_stats::killed, R"(outcome="killed")");
        counter(row, &operation_stats::timed_out, R"(outcome="timeout")");
        counter(row, &operation_stats::expired, R"(outcome="expired")");
    }
    counters("tokengate_operation_refused_total", "Tokens that the gate refused.",
             &operation_stats::refused);
    counters("tokengate_operation_retries_total", "Attempts after the first one.",
             &operation_stats::retries);
    histograms("tokengate_operation_queue_wait_seconds",
               "Time from a token's admission to its start.", &operation_stats::queue_wait);
    histograms("tokengate_operation_run_time_seconds",
               "Time from a token's start to its end, waits included.", &operation_stats::run_time);
    out.family("tokengate_operation_uncounted_total", "counter",
               "Events of operations that were not counted because there was no memory.");
    for (const core_row& row : cores)
        out.sample(sum(row.of, [](const executor& each) { return each.stats->lost(); }),
                   row.labels);
}

void write_cores(exposition& out, const shared_state& runtime, const std::vector<core_row>& cores) {
    out.family("tokengate_core_busy_seconds_total", "counter",
               "Time that executors spent in turns that ran something.");
    for (const core_row& row : cores)
        out.sample(seconds(sum(row.of, [](const executor& each) { return each.busy_ns(); })),
                   row.labels);
    out.family("tokengate_core_parked_executors", "gauge",
               "Executors asleep because they have nothing to do.");
    for (const core_row& row : cores) {
        // The gate's map of parked executors does not contain the control loop.
        if (runtime.is_control(row.of.front()->position())) continue;
        out.sample(sum(row.of,
                       [&](const executor& each) {
                           const unsigned at = each.position();
                           return static_cast<unsigned>(runtime.at_gate.find_parked(at, at + 1) ==
                                                        at);
                       }),
                   row.labels);
    }
    if (!runtime.options.metrics) return;
    out.family("tokengate_core_wake_latency_seconds", "histogram",
               "Time from the moment somebody wakes a parked executor until it runs.");
    for (const core_row& row : cores) {
        histogram_sum all;
        for (const executor* each : row.of) all.add(*each->loop.wake_latency());
        out.distribution(all, row.labels);
    }
}

void write_gate(exposition& out, gate& at_gate, const snapshot& now) {
    constexpr std::array<std::pair<const char*, weight>, 3> classes{
        {{"light", weight::light}, {"medium", weight::medium}, {"heavy", weight::heavy}}};
    constexpr std::array<std::pair<const char*, storage>, 4> tiers{{{"slow", storage::slow},
                                                                    {"moderate", storage::moderate},
                                                                    {"fast", storage::fast},
                                                                    {"insane", storage::insane}}};
    out.family("tokengate_gate_waiting_tokens", "gauge",
               "Tokens that wait at the gate for a core of their class.");
    for (const auto& [name, which] : classes)
        out.sample(at_gate.waiting(which), label("class", name));
    out.family("tokengate_gate_held_tokens", "gauge",
               "Tokens that a pause or a drain holds at the gate.");
    out.sample(now.held);
    out.family("tokengate_gate_paused", "gauge", "1 while everything is held at the gate.");
    out.sample(static_cast<unsigned>(now.paused));
    out.family("tokengate_storage_permits_in_use", "gauge",
               "Tokens that hold a permit of their storage tier.");
    for (const auto& [name, which] : tiers) out.sample(at_gate.in_use(which), label("tier", name));
    out.family("tokengate_storage_permits_limit", "gauge", "Permits that a storage tier has.");
    for (const auto& [name, which] : tiers) out.sample(at_gate.limit(which), label("tier", name));
    out.family("tokengate_storage_waiting_tokens", "gauge",
               "Tokens that wait for a permit of their storage tier.");
    for (const auto& [name, which] : tiers)
        out.sample(at_gate.waiting_for_permit(which), label("tier", name));
}

void write_guards(exposition& out, const shared_state& runtime) {
    // Operations with a breaker or a quarantine that have been used in this runtime.
    std::map<std::string_view, bool> blocked;
    for (const operation_record* each : known_operations())
        if (const guard_desk* desk = runtime.guards.find(each->index))
            blocked[each->name] |= !desk->blocked().empty();
    if (blocked.empty()) return;
    out.family("tokengate_operation_blocked", "gauge",
               "1 while a breaker or a quarantine keeps an operation out.");
    for (const auto& [name, is] : blocked)
        out.sample(static_cast<unsigned>(is), label("operation", name));
}

void write_totals(exposition& out, const shared_state& runtime, const snapshot& now) {
    const auto one = [&](const char* name, const char* type, const char* help,
                         std::uint64_t value) {
        out.family(name, type, help);
        out.sample(value);
    };
    one("tokengate_tokens_admitted_total", "counter", "Tokens handed to the gate.", now.admitted);
    one("tokengate_tokens_ended_total", "counter", "Tokens that have ended.", now.ended);
    one("tokengate_domains", "gauge", "Seed domains alive.", now.domains);
    one("tokengate_pins", "gauge", "Sticky keys in flight.", now.pins);
    one("tokengate_redirections_total", "counter",
        "Sticky tokens that an existing pin sent to its core.", now.redirections);
    one("tokengate_sticky_bypassed_total", "counter",
        "Sticky operations called inside a conducted chain.", now.sticky_bypassed);
    one("tokengate_cores", "gauge", "Cores that this runtime uses.", runtime.loads.layout().cores);
    one("tokengate_executors", "gauge", "Executors of this runtime, without the control loop.",
        runtime.positions());
    const frame_pool_statistics frames = frame_pool::statistics();
    one("tokengate_frame_pool_live_slots", "gauge",
        "Coroutine frames and small objects that exist, of all runtimes of the process.",
        frames.live_slots);
    one("tokengate_frame_pool_mapped_bytes", "gauge",
        "Memory of the frame pools, of all runtimes of the process.", frames.mapped_bytes);
}

}  // namespace

void operation_totals::add(const operation_stats& from) noexcept {
    admitted += from.admitted.load();
    started += from.started.load();
    completed += from.completed.load();
    failed += from.failed.load();
    killed += from.killed.load();
    timed_out += from.timed_out.load();
    expired += from.expired.load();
    refused += from.refused.load();
    retries += from.retries.load();
    queue_wait.add(from.queue_wait);
    run_time.add(from.run_time);
}

void operation_totals::add(const shared_state& runtime, std::uint32_t index) noexcept {
    for (const auto& each : runtime.executors)
        if (const operation_stats* found = each->known_stats_of(index)) add(*found);
    if (const stats_table* outside = runtime.places.refused())
        if (const operation_stats* found = outside->find(index)) add(*found);
}

std::string metrics_text(shared_state& runtime, const snapshot& now) {
    const std::vector<core_row> cores = rows_by_core(runtime);
    exposition out;
    write_totals(out, runtime, now);
    write_gate(out, runtime.at_gate, now);
    write_guards(out, runtime);
    write_cores(out, runtime, cores);
    if (runtime.options.metrics) write_operations(out, runtime, cores);
    return std::move(out).take();
}

}  // namespace detail

std::string runtime::metrics() const {
    return detail::metrics_text(*core_, detail::counts_of(*core_));
}

}  // namespace tokengate
