// SPDX-License-Identifier: MIT
#include "report/metrics.hpp"

#include "executor/shared.hpp"
#include "support/manual_event.hpp"
#include "support/waiting.hpp"

#include <tokengate/gate.hpp>
#include <tokengate/operation.hpp>
#include <tokengate/runtime.hpp>
#include <tokengate/this_token.hpp>
#include <tokengate/when_all.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <future>
#include <map>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace tg = tokengate;
using namespace tokengate::detail;
using tg::test::manual_event;
using tg::test::wait_until;

namespace {

const tg::operation odd_name{{.name = R"(metrics_test "quoted" \ {x="y"},)"},
                             [](int n) { return n; }};
const tg::operation adds{{.name = "metrics_test_adds", .weight = tg::weight::heavy},
                         [](std::atomic<int>* to) { ++*to; }};
const tg::operation fails{{.name = "metrics_test_fails"},
                          [] { throw std::runtime_error("it is to fail"); }};
const tg::operation guarded_fails{
    {.name = "metrics_test_guarded", .breaker = {.failure_rate = 0.5, .min_runs = 2}},
    [] { throw std::runtime_error("it is to fail"); }};
const tg::operation slow_waits{{.name = "metrics_test_slow_waits", .storage = tg::storage::slow},
                               [](manual_event* event) -> tg::task<> { co_await *event; }};

std::atomic<int> were_watched, had_notes;
const tg::operation looks_at_itself{
    {.name = "metrics_test_looks_at_itself", .weight = tg::weight::light}, [] {
        token_record& self = *this_core->current;
        if (!(self.flags & watched)) return;  // then it has none, whatever lies there
        ++were_watched;
        had_notes += promise_base::of(self).notes() != nullptr;
    }};

shared_state& core_of(tg::runtime& runtime) {
    return *runtime.run([]() -> tg::task<shared_state*> { co_return this_core->runtime; });
}

std::uint32_t index_of(std::string_view name) {
    for (const operation_record* each : known_operations())
        if (each->name == name) return each->index;
    FAIL("no such operation");
    return 0;
}

operation_totals total_of(const shared_state& runtime, std::uint32_t index) {
    operation_totals totals;
    totals.add(runtime, index);
    return totals;
}

bool is_name(std::string_view text) {
    return !text.empty() &&
           text.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") ==
               std::string_view::npos &&
           text.find_first_of("0123456789") != 0;
}

/// What the text says, read as strictly as its format is written: a family's HELP, its TYPE, then its samples.
class parsed {
public:
    explicit parsed(const std::string& text) {
        REQUIRE(text.ends_with('\n'));
        std::string_view left = text;
        while (!left.empty()) {
            const std::string_view line = left.substr(0, left.find('\n'));
            left.remove_prefix(line.size() + 1);
            CAPTURE(line);
            read(line);
        }
        CHECK_FALSE(family_is_open_);
    }

    [[nodiscard]] bool has(const std::string& sample) const { return values_.contains(sample); }
    [[nodiscard]] double operator[](const std::string& sample) const {
        CAPTURE(sample);
        REQUIRE(has(sample));
        return values_.at(sample);
    }
    [[nodiscard]] const std::map<std::string, double>& values() const { return values_; }
    [[nodiscard]] const std::map<std::string, std::string>& types() const { return types_; }

private:
    void read(std::string_view line) {
        if (line.starts_with("# HELP ")) {
            CHECK_FALSE(family_is_open_);
            line.remove_prefix(7);
            family_ = line.substr(0, line.find(' '));
            REQUIRE(is_name(family_));
            CHECK(family_.starts_with("tokengate_"));
            CHECK_FALSE(types_.contains(family_));
            CHECK(line.size() > family_.size() + 10);
            CHECK(line.ends_with('.'));
            family_is_open_ = true;
        } else if (line.starts_with("# TYPE ")) {
            CHECK(family_is_open_);
            line.remove_prefix(7);
            REQUIRE(line.starts_with(family_ + ' '));
            const std::string type(line.substr(family_.size() + 1));
            CHECK((type == "counter" || type == "gauge" || type == "histogram"));
            CHECK((type == "counter") == family_.ends_with("_total"));
            types_[family_] = type;
            family_is_open_ = false;
        } else {
            read_sample(line);
        }
    }

    void read_sample(std::string_view line) {
        CHECK_FALSE(family_is_open_);
        const std::size_t name_ends = line.find_first_of("{ ");
        REQUIRE(name_ends != line.npos);
        const std::string_view name = line.substr(0, name_ends);
        REQUIRE(is_name(name));
        REQUIRE(name.starts_with(family_));
        const std::string_view suffix = name.substr(family_.size());
        if (types_[family_] == "histogram")
            CHECK((suffix == "_bucket" || suffix == "_sum" || suffix == "_count"));
        else
            CHECK(suffix == "");
        std::size_t at = name_ends;
        if (line[at] == '{') {
            do at = read_label(line, at + 1);
            while (line[at] == ',');
            REQUIRE(line[at] == '}');
            ++at;
        }
        REQUIRE(line.substr(at, 1) == " ");
        const std::string number(line.substr(at + 1));
        char* end = nullptr;
        const double value = std::strtod(number.c_str(), &end);
        CHECK((!number.empty() && *end == '\0'));
        CHECK(value >= 0);
        CHECK(values_.emplace(line.substr(0, at), value).second);  // none appears twice
    }

    /// name="value" at `at`; returns what follows it.
    static std::size_t read_label(std::string_view line, std::size_t at) {
        const std::size_t equals = line.find('=', at);
        REQUIRE(equals != line.npos);
        CHECK(is_name(line.substr(at, equals - at)));
        REQUIRE(line.substr(equals + 1, 1) == "\"");
        for (at = equals + 2; at < line.size() && line[at] != '"'; ++at) {
            if (line[at] != '\\') continue;
            ++at;
            REQUIRE(at < line.size());
            CHECK((line[at] == '\\' || line[at] == '"' || line[at] == 'n'));
        }
        REQUIRE(at + 1 < line.size());
        return at + 1;
    }

    std::string family_;
    bool family_is_open_ = false;  // HELP seen, TYPE not yet
    std::map<std::string, double> values_;
    std::map<std::string, std::string> types_;
};

/// A value with the labels that tell it apart from its own and `more`.
std::string of(const std::string& metric, const std::string& operation, const std::string& core,
               const std::string& more = {}) {
    return metric + "{operation=\"" + operation + "\",core=\"" + core + '"' +
           (more.empty() ? "" : ',' + more) + '}';
}

}  // namespace

TEST_SUITE("metrics") {
    TEST_CASE(
        "without runtime_options::metrics: what the snapshot has, the gate, the cores, and no "
        "operation") {
        manual_event release;
        tg::runtime runtime{
            {.cores = 2, .workers_per_core = 2, .storage = {.slow = 2, .fast = 33}}};
        runtime.start();
        std::vector<std::future<void>> held;
        for (int i = 0; i < 3; ++i) held.push_back(runtime.submit(slow_waits(&release)));
        const auto executing = [&] {
            int count = 0;
            for (const tg::token_info& each : runtime.tokens())
                count += each.state == tg::token_state::executing;
            return count;
        };
        // One that awaits something else than tokens keeps its permit, so the third waits.
        const std::string waiting = "tokengate_storage_waiting_tokens{tier=\"slow\"}";
        wait_until([&] { return executing() == 2 && parsed(runtime.metrics())[waiting] == 1; });
        const parsed now(runtime.metrics());
        CHECK(now["tokengate_gate_held_tokens"] == 0);
        CHECK(now["tokengate_gate_paused"] == 0);
        CHECK(now["tokengate_tokens_admitted_total"] == 3);
        CHECK(now["tokengate_tokens_ended_total"] == 0);
        CHECK(now["tokengate_storage_permits_in_use{tier=\"slow\"}"] == 2);
        CHECK(now["tokengate_storage_permits_limit{tier=\"slow\"}"] == 2);
        CHECK(now["tokengate_storage_permits_limit{tier=\"fast\"}"] == 33);
        CHECK(now["tokengate_storage_permits_in_use{tier=\"fast\"}"] == 0);
        for (const char* name : {"light", "medium", "heavy"})
            CHECK(now["tokengate_gate_waiting_tokens{class=\"" + std::string(name) + "\"}"] == 0);
        CHECK(now["tokengate_cores"] == 2);
        CHECK(now["tokengate_executors"] == 4);
        CHECK(now["tokengate_pins"] == 0);
        CHECK(now["tokengate_domains"] == 0);
        CHECK(now["tokengate_redirections_total"] == 0);
        CHECK(now["tokengate_sticky_bypassed_total"] == 0);
        CHECK(now["tokengate_frame_pool_live_slots"] >= 3);
        CHECK(now["tokengate_frame_pool_mapped_bytes"] >= 256 * 1024);
        CHECK(now["tokengate_core_busy_seconds_total{core=\"0\"}"] < 1e9);
        CHECK_FALSE(now.has(
            "tokengate_core_busy_seconds_total{core=\"2\"}"));  // executors of a core are one
        for (const auto& [name, type] : now.types()) {
            CHECK(type != "histogram");
            CHECK_FALSE(name.starts_with("tokengate_operation_"));
        }
        wait_until([&] {  // nothing to do: all executors sleep
            const parsed later(runtime.metrics());
            return later["tokengate_core_parked_executors{core=\"0\"}"] == 2 &&
                   later["tokengate_core_parked_executors{core=\"1\"}"] == 2;
        });
        release.set();
        CHECK(runtime.stop().complete());
        const parsed after(runtime.metrics());  // also of one that has stopped
        CHECK(after["tokengate_tokens_ended_total"] == 3);
        CHECK(after["tokengate_core_busy_seconds_total{core=\"control\"}"] > 0);
        CHECK(after["tokengate_storage_permits_in_use{tier=\"slow\"}"] == 0);
    }

    TEST_CASE("what is held, and what is kept out") {
        tg::runtime runtime{{.cores = 1}};
        runtime.start();
        const auto now = [&](const char* name) { return parsed(runtime.metrics())[name]; };
        runtime.gate().pause();
        std::atomic<int> sum{0};
        std::future<void> held = runtime.submit(adds(&sum));
        wait_until([&] { return now("tokengate_gate_held_tokens") == 1; });
        CHECK(now("tokengate_gate_paused") == 1);
        runtime.gate().resume();
        held.get();
        CHECK(now("tokengate_gate_held_tokens") == 0);
        CHECK(now("tokengate_gate_paused") == 0);

        constexpr const char* blocked =
            "tokengate_operation_blocked{operation=\"metrics_test_guarded\"}";
        CHECK_THROWS_AS(runtime.submit(guarded_fails()).get(), std::runtime_error);
        CHECK(now(blocked) == 0);
        CHECK_THROWS_AS(runtime.submit(guarded_fails()).get(), std::runtime_error);
        CHECK(now(blocked) == 1);
        CHECK(runtime.gate().release("metrics_test_guarded"));
        CHECK(now(blocked) == 0);
    }

    TEST_CASE("operations: counts and histograms by name and core, outcomes told apart") {
        tg::runtime runtime{{.cores = 2, .metrics = true}};
        shared_state& core = core_of(runtime);
        const std::uint32_t index = index_of("metrics_test_adds");
        for (unsigned position = 0; position < 2; ++position) {  // nothing runs there
            operation_stats* stats = core.executors[position]->stats->of(index);
            REQUIRE(stats);
            stats->admitted.add(10 * position + 9);
            stats->started.add(10 * position + 8);
            stats->completed.add(10 * position + 1);
            stats->failed.add(10 * position + 2);
            stats->killed.add(10 * position + 3);
            stats->timed_out.add(10 * position + 4);
            stats->refused.add(10 * position + 5);
            stats->expired.add(10 * position + 6);
            stats->retries.add(10 * position + 6);
        }
        histogram& waits = core.executors[1]->stats->of(index)->queue_wait;
        waits.record(900);              // up to 1 µs
        waits.record(30'000);           // up to 50 µs
        waits.record(40'000);           // …
        waits.record(200'000'000'000);  // beyond 100 s
        core.executors[0]->stats->of(index)->run_time.record(3'000'000);

        const parsed now(runtime.metrics());
        const std::string name = "metrics_test_adds";
        CHECK(now[of("tokengate_operation_admitted_total", name, "0")] == 9);
        CHECK(now[of("tokengate_operation_admitted_total", name, "1")] == 19);
        CHECK(now[of("tokengate_operation_started_total", name, "1")] == 18);
        CHECK(now[of("tokengate_operation_ended_total", name, "0", R"(outcome="completed")")] == 1);
        CHECK(now[of("tokengate_operation_ended_total", name, "1", R"(outcome="completed")")] ==
              11);
        CHECK(now[of("tokengate_operation_ended_total", name, "1", R"(outcome="failed")")] == 12);
        CHECK(now[of("tokengate_operation_ended_total", name, "1", R"(outcome="killed")")] == 13);
        CHECK(now[of("tokengate_operation_ended_total", name, "1", R"(outcome="timeout")")] == 14);
        CHECK(now[of("tokengate_operation_ended_total", name, "1", R"(outcome="expired")")] == 16);
        CHECK(now[of("tokengate_operation_refused_total", name, "1")] == 15);
        CHECK(now[of("tokengate_operation_retries_total", name, "1")] == 16);
        CHECK_FALSE(now.has(of("tokengate_operation_admitted_total", name,
                               "control")));  // it was never there
        const auto bucket = [&](const char* le) {
            return now[of("tokengate_operation_queue_wait_seconds_bucket", name, "1",
                          "le=\"" + std::string(le) + '"')];
        };
        CHECK(bucket("1e-06") == 1);
        CHECK(bucket("2e-05") == 1);
        CHECK(bucket("5e-05") == 3);
        CHECK(bucket("0.001") == 3);
        CHECK(bucket("1") == 3);
        CHECK(bucket("100") == 3);
        CHECK(bucket("+Inf") == 4);
        CHECK(now[of("tokengate_operation_queue_wait_seconds_count", name, "1")] == 4);
        CHECK(now[of("tokengate_operation_queue_wait_seconds_sum", name, "1")] ==
              doctest::Approx(200.0000709).epsilon(1e-12));
        CHECK(now[of("tokengate_operation_run_time_seconds_sum", name, "0")] ==
              doctest::Approx(0.003).epsilon(1e-12));
        CHECK(now[of("tokengate_operation_queue_wait_seconds_count", name, "0")] == 0);
        CHECK(now["tokengate_operation_uncounted_total{core=\"0\"}"] == 0);

        const operation_totals totals = total_of(core, index);
        CHECK(totals.admitted == 28);
        CHECK(totals.started == 26);
        CHECK(totals.completed == 12);
        CHECK(totals.failed == 14);
        CHECK(totals.killed == 16);
        CHECK(totals.timed_out == 18);
        CHECK(totals.refused == 20);
        CHECK(totals.expired == 22);
        CHECK(totals.retries == 22);
        CHECK(totals.queue_wait.count() == 4);
        CHECK(totals.queue_wait.max() == 200'000'000'000);
        CHECK(totals.run_time.count() == 1);
        CHECK(totals.run_time.quantile(0.5) == 3'000'000);
        CHECK(total_of(core, index_of("metrics_test_fails")).admitted == 0);
    }

    TEST_CASE("a histogram's buckets are cumulative, and its last is its count") {
        tg::runtime runtime{{.cores = 1, .metrics = true}};
        shared_state& core = core_of(runtime);
        histogram& times = core.executors[0]->stats->of(index_of("metrics_test_adds"))->run_time;
        for (std::uint64_t ns = 1; ns < std::uint64_t{1} << 40; ns *= 3) times.record(ns);
        const std::string text = runtime.metrics();
        const parsed now(text);
        const std::string start =
            R"(tokengate_operation_run_time_seconds_bucket{operation="metrics_test_adds",core="0",le=")";
        double before = 0, last_bound = 0;
        int buckets = 0;
        for (std::size_t at = text.find(start); at != text.npos;
             at = text.find(start, at + 1), ++buckets) {
            const std::string sample = text.substr(at, text.find(' ', at) - at);
            const double bound = std::strtod(sample.c_str() + start.size(), nullptr);
            CHECK(bound > last_bound);
            CHECK(now[sample] >= before);
            before = now[sample];
            last_bound = bound;
        }
        CHECK(buckets == 26);
        CHECK(before ==
              now[of("tokengate_operation_run_time_seconds_count", "metrics_test_adds", "0")]);
        CHECK(before == 26);  // 3^0 … 3^25
    }

    TEST_CASE("executors of one core are one sample") {
        tg::runtime runtime{{.cores = 1, .workers_per_core = 3, .metrics = true}};
        shared_state& core = core_of(runtime);
        const std::uint32_t index = index_of("metrics_test_adds");
        for (unsigned position = 0; position < 3; ++position) {
            core.executors[position]->stats->of(index)->completed.add(position + 1);
            core.executors[position]->stats->of(index)->run_time.record(1000);
        }
        const parsed now(runtime.metrics());
        CHECK(now[of("tokengate_operation_ended_total", "metrics_test_adds", "0",
                     R"(outcome="completed")")] == 6);
        CHECK(now[of("tokengate_operation_run_time_seconds_count", "metrics_test_adds", "0")] == 3);
    }

    TEST_CASE("operations of one name, defined one after the other, are one sample") {
        std::set<std::uint32_t> indices;
        const auto note = [&](const operation_record* each) {
            if (std::string_view(each->name) == "metrics_test_redefined")
                indices.insert(each->index);
        };
        {
            const tg::operation first{
                {.name = "metrics_test_redefined", .weight = tg::weight::light}, [] {}};
        }
        const tg::operation second{{.name = "metrics_test_redefined", .weight = tg::weight::heavy},
                                   [] {}};
        for (const operation_record* each : known_operations()) note(each);
        REQUIRE(indices.size() == 2);
        tg::runtime runtime{{.cores = 1, .metrics = true}};
        shared_state& core = core_of(runtime);
        for (const std::uint32_t index : indices)
            core.executors[0]->stats->of(index)->started.add(3);
        const parsed now(runtime.metrics());
        CHECK(now[of("tokengate_operation_started_total", "metrics_test_redefined", "0")] == 6);
    }

    TEST_CASE("a core that has been in one turn for long is busy all the while") {
        static tg::runtime* seen;
        static const tg::operation computes{
            {.name = "metrics_test_computes"}, [] {
                std::uint64_t busy = 0;
                do {
                    const std::uint64_t before =
                        std::exchange(busy, seen->snapshot().busy_ns[tg::this_token::executor()]);
                    CHECK(before <= busy);
                } while (busy < 50'000'000);
            }};
        tg::runtime runtime{{.cores = 1}};
        seen = &runtime;
        runtime.start();
        runtime.submit(computes()).get();
        CHECK(runtime.snapshot().busy_ns[0] >= 50'000'000);
    }

    TEST_CASE("names with quotes and backslashes are escaped") {
        tg::runtime runtime{{.cores = 1, .metrics = true}};
        shared_state& core = core_of(runtime);
        const std::uint32_t index = index_of(R"(metrics_test "quoted" \ {x="y"},)");
        core.executors[0]->stats->of(index)->completed.add(4);
        core.executors[0]->stats->of(index)->run_time.record(5);
        const parsed now(runtime.metrics());
        CHECK(now[of("tokengate_operation_ended_total", R"(metrics_test \"quoted\" \\ {x=\"y\"},)",
                     "0", R"(outcome="completed")")] == 4);
    }

    TEST_CASE("how fast a core wakes is measured") {
        tg::runtime runtime{{.cores = 1, .metrics = true}};
        runtime.start();
        std::atomic<int> ran{0};
        const auto wakes = [&] {
            return parsed(
                runtime.metrics())["tokengate_core_wake_latency_seconds_count{core=\"0\"}"];
        };
        const auto parked = [&] {
            return parsed(runtime.metrics())["tokengate_core_parked_executors{core=\"0\"}"] == 1;
        };
        for (int round = 1; round <= 3; ++round) {
            wait_until(parked);
            runtime.submit(adds(&ran)).get();
        }
        // A core that has published that it parks may yet find the token before it sleeps; not each time.
        while (wakes() == 0) {
            wait_until(parked);
            runtime.submit(adds(&ran)).get();
        }
        const parsed now(runtime.metrics());
        CHECK(now["tokengate_core_wake_latency_seconds_sum{core=\"0\"}"] > 0);
        CHECK(now["tokengate_core_wake_latency_seconds_sum{core=\"0\"}"] < 1000);
        CHECK(now["tokengate_core_wake_latency_seconds_count{core=\"0\"}"] <= ran);
        CHECK(now["tokengate_core_wake_latency_seconds_bucket{core=\"0\",le=\"+Inf\"}"] == wakes());
        CHECK(now.has("tokengate_core_wake_latency_seconds_count{core=\"control\"}"));
    }

    TEST_CASE("it may be asked for by any thread while tokens run, and never goes back") {
        tg::runtime runtime{{.cores = 2, .metrics = true}};
        runtime.start();
        std::atomic<bool> done{false};
        std::vector<std::thread> askers;
        for (int i = 0; i < 2; ++i)
            askers.emplace_back([&] {
                double ended = 0;
                do {
                    const std::string text = runtime.metrics();
                    const std::string wanted = "\ntokengate_tokens_ended_total ";
                    const std::size_t at = text.find(wanted);
                    const double now =
                        at == text.npos ? -1
                                        : std::strtod(text.c_str() + at + wanted.size(), nullptr);
                    CHECK(now >= ended);
                    ended = now;
                } while (!done);
            });
        std::atomic<int> ran{0};
        std::vector<std::future<void>> all;
        for (int i = 0; i < 2000; ++i) all.push_back(runtime.submit(adds(&ran)));
        for (auto& each : all) each.get();
        done = true;
        for (std::thread& each : askers) each.join();
        CHECK(runtime.stop().complete());
        CHECK(parsed(runtime.metrics())["tokengate_tokens_ended_total"] == 2000);
    }

    TEST_CASE("real tokens are counted by operation") {
        constexpr int good = 300, bad = 20;
        tg::runtime runtime{{.cores = 2, .timing = tg::timing::full, .metrics = true}};
        std::atomic<int> ran{0};
        const shared_state* core = runtime.run([&]() -> tg::task<const shared_state*> {
            for (int i = 0; i < good; ++i) co_await adds(&ran);
            for (int i = 0; i < bad; ++i) {
                try {
                    co_await fails();
                } catch (const std::runtime_error&) {}
            }
            co_await odd_name(1);
            co_return this_core->runtime;
        });
        CHECK(ran == good);
        const operation_totals added = total_of(*core, index_of("metrics_test_adds"));
        CHECK(added.admitted == good);
        CHECK(added.started == good);
        CHECK(added.completed == good);
        CHECK(added.failed == 0);
        CHECK(added.queue_wait.count() == good);
        CHECK(added.run_time.count() == good);
        const operation_totals failed = total_of(*core, index_of("metrics_test_fails"));
        CHECK(failed.started == bad);
        CHECK(failed.completed == 0);
        CHECK(failed.failed == bad);
        CHECK(total_of(*core, 0).completed == 1);  // the main coroutine
        const parsed now(runtime.metrics());
        double ended = 0;
        for (const auto& [sample, value] : now.values())
            if (sample.starts_with("tokengate_operation_ended_total")) ended += value;
        CHECK(ended == good + bad + 1 + 1);
        CHECK(now["tokengate_tokens_ended_total"] == ended);
    }

    constexpr int many = 16'000;

    operation_totals totals_of_many(tg::runtime & runtime) {
        were_watched = had_notes = 0;
        const shared_state* core = runtime.run([]() -> tg::task<const shared_state*> {
            std::vector<tg::token<void>> all;
            for (int i = 0; i < many; ++i) all.push_back(looks_at_itself());
            co_await tg::when_all(std::move(all));
            co_return this_core->runtime;
        });
        return total_of(*core, index_of("metrics_test_looks_at_itself"));
    }

    bool has_rows_of_operations(const tg::runtime& runtime) {
        return runtime.metrics().find("tokengate_operation_started_total{") != std::string::npos;
    }

    TEST_CASE("timing sampled, or metrics alone: all are counted, one in 16 is timed") {
        // Whether a token is timed is a hash of its sequence. Were it drawn by chance, the count's standard
        // deviation would be √(16,000 × 1/16 × 15/16), some 31; ten times that is not met by chance.
        constexpr int expected = many / 16;
        const int margin = static_cast<int>(10 * std::sqrt(many * (1.0 / 16) * (15.0 / 16)));
        REQUIRE(margin < expected / 2);
        for (const tg::timing timing : {tg::timing::off, tg::timing::sampled}) {
            CAPTURE(static_cast<int>(timing));
            tg::runtime runtime{
                {.cores = 2, .timing = timing, .metrics = timing == tg::timing::off}};
            const operation_totals totals = totals_of_many(runtime);
            CHECK(were_watched == many);
            CHECK(totals.admitted == many);
            CHECK(totals.started == many);
            CHECK(totals.completed == many);
            CHECK(had_notes > expected - margin);
            CHECK(had_notes < expected + margin);
            CHECK(totals.queue_wait.count() == static_cast<std::uint64_t>(had_notes));
            CHECK(totals.run_time.count() == static_cast<std::uint64_t>(had_notes));
            CHECK(has_rows_of_operations(runtime));
        }
    }

    TEST_CASE("timing full: all are counted, and all are timed") {
        tg::runtime runtime{{.cores = 2, .timing = tg::timing::full}};
        const operation_totals totals = totals_of_many(runtime);
        CHECK(were_watched == many);
        CHECK(had_notes == many);
        CHECK(totals.started == many);
        CHECK(totals.queue_wait.count() == many);
        CHECK(totals.run_time.count() == many);
        CHECK(has_rows_of_operations(runtime));
    }

    TEST_CASE("all off: nothing is counted, nothing is noted, nobody is watched") {
        tg::runtime runtime{{.cores = 2}};
        const operation_totals totals = totals_of_many(runtime);
        CHECK(were_watched == 0);
        CHECK(totals.admitted == 0);
        CHECK(totals.started == 0);
        CHECK(totals.queue_wait.count() == 0);
        CHECK(runtime.metrics().find("tokengate_operation_") == std::string::npos);
        CHECK(runtime.snapshot().ended == many + 1);
    }
}
