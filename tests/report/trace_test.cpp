// SPDX-License-Identifier: MIT
#include "report/trace.hpp"

#include <tokengate/detail/token_record.hpp>
#include <tokengate/error.hpp>
#include <tokengate/operation.hpp>
#include <tokengate/runtime.hpp>
#include <tokengate/this_token.hpp>
#include <tokengate/time.hpp>
#include <tokengate/when_all.hpp>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace tg = tokengate;
using tg::token_state;
using tg::detail::operation_record;
using tg::detail::trace_json;
using tg::detail::trace_kind;
using tg::detail::trace_ring;
using tg::detail::trace_row;
using namespace std::chrono_literals;

namespace {

const operation_record parse{"parse", tg::weight::medium, tg::storage::none, 0, 0, {}};
const operation_record store{"store", tg::weight::medium, tg::storage::none, 0, 0, {}};
const operation_record odd{R"(a "b" \c)", tg::weight::medium, tg::storage::none, 0, 0, {}};

struct slice {
    std::string name;
    std::string token;
    std::int64_t begin;  // ns
    std::int64_t end;
    std::string outcome;
    friend bool operator==(const slice&, const slice&) = default;
};

struct arrow_end {
    std::size_t row;
    std::int64_t at;
    friend bool operator==(const arrow_end&, const arrow_end&) = default;
};

/// A trace as somebody who looks at it sees it.
struct picture {
    std::vector<std::string> rows;
    std::vector<std::vector<slice>> slices;  // by row, in the order of the text
    std::map<std::string, arrow_end> departures;
    std::map<std::string, arrow_end> arrivals;
    std::vector<std::string> instants;
    nlohmann::json json;
};

picture look_at(const std::string& text) {
    if (const char* folder =
            std::getenv("TOKENGATE_TRACE_DIR")) {  // trace_check.py wants to see it too
        static int number = 0;
        std::ofstream(std::string(folder) + '/' + std::to_string(number++) + ".json") << text;
    }
    picture seen;
    seen.json = nlohmann::json::parse(text);
    const auto ns = [](const nlohmann::json& us) { return std::llround(us.get<double>() * 1000); };
    for (const auto& event : seen.json.at("traceEvents")) {
        const std::string phase = event.at("ph");
        const auto row = event.at("tid").get<std::size_t>() - 1;
        if (event.at("name") == "thread_name") {
            REQUIRE(row == seen.rows.size());
            seen.rows.push_back(event.at("args").at("name"));
            seen.slices.emplace_back();
        } else if (phase == "X") {
            const auto& arguments = event.at("args");
            seen.slices.at(row).push_back({event.at("name"), arguments.at("token"),
                                           ns(event.at("ts")),
                                           ns(event.at("ts")) + ns(event.at("dur")),
                                           arguments.value("outcome", std::string())});
        } else if (phase == "s") {
            CHECK(seen.departures.try_emplace(event.at("id"), arrow_end{row, ns(event.at("ts"))})
                      .second);
        } else if (phase == "f") {
            CHECK(event.at("bp") == "e");
            CHECK(seen.arrivals.try_emplace(event.at("id"), arrow_end{row, ns(event.at("ts"))})
                      .second);
        } else if (phase == "i") {
            seen.instants.push_back(event.at("name"));
        }
    }
    return seen;
}

/// Slices of a row, in their order, lie beside or within each other.
bool all_nest(const std::vector<slice>& row) {
    std::vector<std::int64_t> ends;
    std::int64_t before = 0;
    for (const slice& each : row) {
        if (each.begin < before) return false;
        before = each.begin;
        while (!ends.empty() && ends.back() <= each.begin) ends.pop_back();
        if (!ends.empty() && ends.back() < each.end) return false;
        ends.push_back(each.end);
    }
    return true;
}

bool has_one_around(const std::vector<slice>& row, std::int64_t at) {
    return std::ranges::any_of(row, [at](const slice& each) {
        return each.begin <= at && at <= each.end;
    });
}

bool has_one_from(const std::vector<slice>& row, std::int64_t at) {
    return std::ranges::any_of(row, [at](const slice& each) { return each.begin == at; });
}

/// Events by hand: tokens are numbers, made at the number times ten.
struct thread_of_events {
    trace_ring ring;

    explicit thread_of_events(std::size_t size = 64) : ring(size) {}
    thread_of_events& spawned(std::uint64_t ns, std::uint64_t child, std::uint64_t by) {
        return note(trace_kind::spawned, ns, child, by);
    }
    thread_of_events& admitted(std::uint64_t ns, std::uint64_t token, std::uint64_t position) {
        return note(trace_kind::admitted, ns, token, position);
    }
    thread_of_events& begins(std::uint64_t ns, std::uint64_t token,
                             const operation_record& of = parse) {
        return note(trace_kind::segment_begin, ns, token, token * 10, of);
    }
    thread_of_events& in_place(std::uint64_t ns, std::uint64_t token,
                               const operation_record& of = store) {
        return note(trace_kind::in_place_begin, ns, token, token * 10, of);
    }
    thread_of_events& goes_on(std::uint64_t ns, std::uint64_t token,
                              const operation_record& of = parse) {
        return note(trace_kind::continued, ns, token, token * 10, of);
    }
    thread_of_events& ended(std::uint64_t ns, std::uint64_t token,
                            token_state how = token_state::completed) {
        return note(trace_kind::ended, ns, token, static_cast<std::uint64_t>(how));
    }
    thread_of_events& leaves(std::uint64_t ns) { return note(trace_kind::segment_end, ns, 0, 0); }

    thread_of_events& note(trace_kind kind, std::uint64_t ns, std::uint64_t token,
                           std::uint64_t argument, const operation_record& of = parse) {
        ring.note(kind, token, &of, argument, ns);
        return *this;
    }
};

picture drawn(const std::deque<thread_of_events>& threads, std::uint64_t now = 100'000) {
    std::vector<trace_row> rows;
    for (const auto& each : threads)
        rows.push_back({"core " + std::to_string(rows.size()), &each.ring});
    return look_at(trace_json(rows, now));
}

using rows = std::vector<std::vector<slice>>;

}  // namespace

TEST_CASE("A trace has a row for every thread, in their order, with or without events") {
    thread_of_events second;
    second.begins(1000, 1).ended(2000, 1).leaves(2000);
    const trace_row given[] = {
        {"core 0", nullptr}, {"core 1", &second.ring}, {"control loop", nullptr}};
    const picture seen = look_at(trace_json(given, 5000));
    CHECK(seen.rows == std::vector<std::string>{"core 0", "core 1", "control loop"});
    CHECK(seen.slices[0].empty());
    CHECK(seen.slices[1].size() == 1);
    std::vector<int> order;
    for (const auto& event : seen.json["traceEvents"])
        if (event["name"] == "thread_sort_index") order.push_back(event["args"]["sort_index"]);
    CHECK(order.size() == 3);
    CHECK(std::ranges::is_sorted(order));

    CHECK(look_at(trace_json({}, 5000)).rows.empty());
}

TEST_CASE(
    "Each stretch in which a body runs is a slice, and the last one says how the token ended") {
    std::deque<thread_of_events> threads(1);
    threads[0].begins(1'001, 7).leaves(3'001);
    threads[0].begins(4'000, 8, store).ended(4'500, 8, token_state::failed).leaves(4'600);
    threads[0].begins(5'001, 7).ended(6'503, 7).leaves(6'600);
    const picture seen = drawn(threads);
    CHECK(seen.slices == rows{{{"parse", "parse_70_7", 0, 2'000, ""},
                               {"store", "store_80_8", 2'999, 3'499, "failed"},
                               {"parse", "parse_70_7", 4'000, 5'502, "completed"}}});
}

TEST_CASE("A child that runs in place lies within its awaiter's slice, which goes on") {
    std::deque<thread_of_events> threads(1);
    threads[0].begins(0, 1).spawned(100, 2, 1).in_place(100, 2).spawned(200, 3, 2).in_place(200, 3,
                                                                                            odd);
    threads[0].ended(300, 3).goes_on(300, 2, store).ended(400, 2).goes_on(400, 1);
    threads[0].ended(500, 1).leaves(500);
    const picture seen = drawn(threads);
    CHECK(seen.slices == rows{{{"parse", "parse_10_1", 0, 500, "completed"},
                               {"store", "store_20_2", 100, 400, "completed"},
                               {R"(a "b" \c)", R"(a "b" \c_30_3)", 200, 300, "completed"}}});
    CHECK(seen.departures == std::map<std::string, arrow_end>{{"2", {0, 100}}, {"3", {0, 200}}});
    CHECK(seen.arrivals == seen.departures);
}

TEST_CASE(
    "A child that suspends in place takes its awaiters along; after its end they go on beside it, "
    "not around it") {
    std::deque<thread_of_events> threads(1);
    threads[0].begins(0, 1).in_place(100, 2).leaves(200);
    threads[0]
        .begins(1'000, 2, store)
        .ended(1'300, 2)
        .goes_on(1'300, 1)
        .ended(1'400, 1)
        .leaves(1'450);
    CHECK(drawn(threads).slices == rows{{{"parse", "parse_10_1", 0, 200, ""},
                                         {"store", "store_20_2", 100, 200, ""},
                                         {"store", "store_20_2", 1'000, 1'300, "completed"},
                                         {"parse", "parse_10_1", 1'300, 1'400, "completed"}}});
}

TEST_CASE("A spawn is an arrow from the spawner's slice to the child's first one") {
    // The child's row is read before the spawner's.
    std::deque<thread_of_events> threads(2);
    threads[1].begins(1'000, 1).spawned(1'200, 2, 1).admitted(1'300, 2, 0).leaves(1'500);
    threads[0].begins(2'000, 2).leaves(2'100).begins(3'000, 2).ended(3'100, 2).leaves(3'100);
    const picture seen = drawn(threads);
    CHECK(seen.departures == std::map<std::string, arrow_end>{{"2", {1, 200}}});
    CHECK(seen.arrivals == std::map<std::string, arrow_end>{{"2", {0, 1'000}}});
    int waits = 0;
    for (const auto& event : seen.json["traceEvents"]) {
        if (event["ph"] != "X" || !event["args"].contains("waited_us")) continue;
        ++waits;
        CHECK(event["ts"].get<double>() == doctest::Approx(1.0));
        CHECK(event["args"]["waited_us"].get<double>() == doctest::Approx(0.8));
        CHECK(event["args"]["queued_us"].get<double>() == doctest::Approx(0.7));
    }
    CHECK(waits == 1);
}

TEST_CASE("An arrow without a beginning or an end is not drawn") {
    std::deque<thread_of_events> threads(2);
    SUBCASE("not started yet") {
        threads[0].begins(0, 1).spawned(100, 2, 1).ended(200, 1).leaves(200);
    }
    SUBCASE("spawned by no token") {
        threads[0].spawned(100, 2, 0);
        threads[1].begins(200, 2).ended(300, 2).leaves(300);
    }
    SUBCASE("spawned in a slice whose beginning is forgotten") {
        threads[1].begins(30'000, 2).ended(30'100, 2).leaves(30'100);
        threads[0].begins(1'000, 1);
        for (std::uint64_t ns = 0; ns < 40; ++ns) threads[0].admitted(1'000 + ns, 99, 0);
        threads[0].spawned(2'000, 2, 1);
        for (std::uint64_t ns = 0; ns < 40; ++ns) threads[0].admitted(2'000 + ns, 99, 0);
        threads[0].leaves(2'100);
    }
    SUBCASE("to a token whose start is forgotten, and which is seen later") {
        threads[0].begins(0, 1).spawned(100, 2, 1).leaves(200);
        threads[1].begins(300, 2).leaves(400);
        for (std::uint64_t ns = 0; ns < 80; ++ns) threads[1].admitted(1'000 + ns, 99, 0);
        threads[1].begins(2'000, 2).leaves(2'100);
        CHECK(drawn(threads).slices[1].size() == 1);
    }
    const picture seen = drawn(threads);
    CHECK(seen.departures.empty());
    CHECK(seen.arrivals.empty());
}

TEST_CASE("A ring that has gone round shows whole stretches only") {
    std::deque<thread_of_events> threads;
    threads.emplace_back(16);
    threads[0].begins(0, 1).in_place(10, 2);
    for (std::uint64_t ns = 0; ns < 10; ++ns) threads[0].admitted(20 + ns, 99, 0);
    threads[0].ended(50, 2).goes_on(50, 1).ended(60, 1).leaves(60);
    SUBCASE("the outer one's beginning is forgotten") {
        CHECK(drawn(threads).slices == rows{{{"store", "store_20_2", 0, 40, "completed"},
                                             {"parse", "parse_10_1", 40, 50, "completed"}}});
    }
    SUBCASE("both are") {
        threads[0].admitted(70, 99, 0);
        const picture seen = drawn(threads);
        CHECK(seen.slices == rows{{{"parse", "parse_10_1", 30, 40, "completed"}}});
        CHECK(seen.instants == std::vector<std::string>{"parse completed"});
    }
}

TEST_CASE("What still runs lasts until now, and says so") {
    std::deque<thread_of_events> threads(1);
    threads[0].begins(1'000, 1).in_place(2'000, 2);
    CHECK(drawn(threads, 9'000).slices == rows{{{"parse", "parse_10_1", 0, 8'000, "running"},
                                                {"store", "store_20_2", 1'000, 8'000, "running"}}});
    // Noted after the clock was read: nothing ends before it begins.
    CHECK(drawn(threads, 1'500).slices == rows{{{"parse", "parse_10_1", 0, 1'000, "running"},
                                                {"store", "store_20_2", 1'000, 1'000, "running"}}});
}

TEST_CASE("A time that goes backwards makes no slice longer or negative") {
    std::deque<thread_of_events> threads(1);
    threads[0]
        .begins(2'000, 1)
        .in_place(1'500, 2)
        .ended(2'500, 2)
        .goes_on(2'400, 1)
        .ended(3'000, 1)
        .leaves(2'900);
    CHECK(drawn(threads).slices == rows{{{"parse", "parse_10_1", 500, 1'500, "completed"},
                                         {"store", "store_20_2", 500, 1'000, "completed"}}});
}

TEST_CASE("What has no slice is an instant: refused, paused, ended without having run") {
    std::deque<thread_of_events> threads(1);
    threads[0].note(trace_kind::refused, 100, 1, 10);
    threads[0].note(trace_kind::paused, 200, 2, 20, odd);
    threads[0].ended(300, 3, token_state::failed);
    const picture seen = drawn(threads);
    CHECK(seen.instants ==
          std::vector<std::string>{"parse refused", R"(a "b" \c paused)", "parse failed"});
    CHECK(seen.slices[0].empty());
}

// ---- with a runtime -----------------------------------------------------------------------------------------------------

namespace {

const tg::operation child{{.name = "trace_test_child"}, [](int n) -> tg::task<int> {
                              if (n % 2 == 0) co_await tg::sleep_for(1ms);
                              co_return n;
                          }};
const tg::operation lead{
    {.name = "trace_test_lead"}, tg::lead{"trace_test_child"}, [](int n) -> tg::task<int> {
        int sum = 0;
        for (int i = 0; i < n; ++i) sum += co_await child(i);
        co_return sum;
    }};
const tg::operation parent{{.name = "trace_test_parent"}, [](int n) -> tg::task<int> {
                               int sum = co_await child(0);
                               sum += co_await child(1);
                               auto [one, other] = co_await tg::when_all(child(n), child(n + 1));
                               co_return sum + one + other;
                           }};

}  // namespace

TEST_CASE("A runtime without a trace has rows and nothing in them") {
    tg::runtime runtime{{.cores = 2}};
    runtime.run([]() -> tg::task<> { co_await child(1); });
    const picture seen = look_at(runtime.trace());
    CHECK(seen.rows == std::vector<std::string>{"core 0", "core 1", "control loop"});
    CHECK(seen.slices == rows(3));

    tg::runtime workers{{.cores = 1, .workers_per_core = 2}};
    CHECK(look_at(workers.trace()).rows ==
          std::vector<std::string>{"core 0 worker 0", "core 0 worker 1", "control loop"});
}

TEST_CASE("A trace that no memory would hold is refused") {
    CHECK_THROWS_AS((tg::runtime{{.cores = 1, .trace_events = trace_ring::most_events + 1}}),
                    tg::configuration_error);
}

TEST_CASE("A trace of a runtime: every token has its slices, every spawn its arrow") {
    constexpr int of_each = 20;
    constexpr int steps = 6;
    tg::runtime runtime{{.cores = 2, .trace_events = 65'536}};
    runtime.run([]() -> tg::task<> {
        for (int i = 0; i < of_each; ++i) {
            auto [one, other] = co_await tg::when_all(lead(steps), parent(i));
            CHECK(one + other > 0);
        }
    });
    const picture seen = look_at(runtime.trace());
    REQUIRE(seen.rows == std::vector<std::string>{"core 0", "core 1", "control loop"});

    std::map<std::string, std::set<std::string>> tokens;   // by operation
    std::map<std::string, std::set<std::size_t>> places;   // by token
    std::map<std::string, std::vector<std::string>> ends;  // by token
    for (std::size_t row = 0; row < seen.slices.size(); ++row) {
        CHECK(all_nest(seen.slices[row]));
        for (const slice& each : seen.slices[row]) {
            tokens[each.name].insert(each.token);
            places[each.token].insert(row);
            if (!each.outcome.empty()) ends[each.token].push_back(each.outcome);
        }
    }
    CHECK(tokens["trace_test_lead"].size() == of_each);
    CHECK(tokens["trace_test_parent"].size() == of_each);
    CHECK(tokens["trace_test_child"].size() == of_each * (steps + 4));
    CHECK(tokens["main"].size() == 1);
    for (const auto& [token, rows_of_it] : places) CHECK(rows_of_it.size() == 1);
    CHECK(ends.size() == places.size());
    for (const auto& [token, outcomes] : ends)
        CHECK(outcomes == std::vector<std::string>{"completed"});

    CHECK(seen.departures.size() == of_each * (2 + steps + 4));
    CHECK(seen.arrivals.size() == seen.departures.size());
    for (const auto& [token, from] : seen.departures) {
        REQUIRE(seen.arrivals.contains(token));
        const arrow_end to = seen.arrivals.at(token);
        CHECK(from.at <= to.at);
        CHECK(has_one_around(seen.slices[from.row], from.at));
        CHECK(has_one_from(seen.slices[to.row], to.at));
    }
}
