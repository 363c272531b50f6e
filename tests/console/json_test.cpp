// SPDX-License-Identifier: MIT
#include "console/json.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace tg = tokengate;
using namespace std::chrono_literals;
using nlohmann::json;
using tg::detail::parse_control;
using tg::detail::snapshot_json;
using tg::detail::tokens_json;

namespace {

tg::token_info token(std::uint64_t sequence, std::chrono::nanoseconds age,
                     const char* operation = "parse",
                     tg::token_state state = tg::token_state::executing) {
    tg::token_info made;
    made.id = {operation, 1000, sequence};
    made.state = state;
    made.age = age;
    return made;
}

std::vector<tg::token_info> some() {
    return {token(1, 5ns), token(2, 9ns), token(3, 7ns, "store"),
            token(4, 1ns, "store", tg::token_state::waiting), token(5, 9ns, "store")};
}

std::vector<std::string> ids(const std::string& text) {
    std::vector<std::string> found;
    const json all = json::parse(text);
    for (const json& each : all["tokens"]) found.push_back(each["id"]);
    return found;
}

}  // namespace

TEST_CASE("tokens come oldest first, and what did not fit is counted") {
    const json all = json::parse(tokens_json(some(), {}));
    CHECK(ids(all.dump()) == std::vector<std::string>{"parse_1000_2", "store_1000_5",
                                                      "store_1000_3", "parse_1000_1",
                                                      "store_1000_4"});
    CHECK(all["total"] == 5);
    CHECK(all["more"] == 0);
    const json two = json::parse(tokens_json(some(), {.limit = 2}));
    CHECK(ids(two.dump()) == std::vector<std::string>{"parse_1000_2", "store_1000_5"});
    CHECK(two["total"] == 5);
    CHECK(two["more"] == 3);
    CHECK(json::parse(tokens_json({}, {}))["tokens"] == json::array());
}

TEST_CASE("tokens are chosen by operation and state") {
    CHECK(ids(tokens_json(some(), {.operation = "store"})).size() == 3);
    CHECK(ids(tokens_json(some(), {.operation = "store", .state = tg::token_state::waiting})) ==
          std::vector<std::string>{"store_1000_4"});
    CHECK(ids(tokens_json(some(), {.operation = "sto"})).empty());
}

TEST_CASE("a token's places, awaiter and domain are null where there are none") {
    std::vector<tg::token_info> one{token(7, 3ns)};
    json written = json::parse(tokens_json(std::vector(one), {}))["tokens"][0];
    CHECK(written["core"].is_null());
    CHECK(written["awaited_by"].is_null());
    CHECK(written["domain"].is_null());
    one[0].core = 3;
    one[0].awaited_by_sequence = ~std::uint64_t{0};
    one[0].domain = {"lead", 8, 9};
    written = json::parse(tokens_json(std::vector(one), {}))["tokens"][0];
    CHECK(written["core"] == 3);
    CHECK(written["awaited_by"] == "18446744073709551615");  // exact: a number would not be
    CHECK(written["domain"] == "lead_8_9");
}

TEST_CASE("a snapshot counts states and domains") {
    std::vector<tg::token_info> tokens = some();
    tokens[0].domain = tokens[1].domain = {"lead", 1, 100};
    tokens[1].core = 2;
    tokens[2].domain = {"lead", 1, 101};
    tg::snapshot now;
    now.busy_ns = {1, 2};
    now.cores = {{.executor = 0, .core = 0, .queued = 4},
                 {.executor = 1, .core = tg::control_core}};
    now.operations.emplace_back();
    now.operations[0].operation = "parse";
    now.operations[0].grade = tg::health::at_risk;
    now.operations[0].run_p99 = 3ms;
    now.operations[0].expired = 8;
    now.retries = 9;
    now.operations[0].blocked = "not \xff UTF-8";
    const json written =
        json::parse(snapshot_json(now, tokens, {.now = 5ms, .up = 6ms, .controls = true}));
    CHECK(written["tokens"] ==
          json({{"created", 0}, {"waiting", 1}, {"admitted", 0}, {"executing", 4}}));
    CHECK(written["live_domains"] ==
          json::array({{{"lead", "lead_1_100"}, {"core", 2}, {"tokens", 2}},
                       {{"lead", "lead_1_101"}, {"core", nullptr}, {"tokens", 1}}}));
    CHECK(written["live_domains_more"] == 0);
    CHECK(written["cores"][0]["queued"] == 4);
    CHECK(written["cores"][1]["core"].is_null());
    CHECK(written["operations"][0]["grade"] == "at risk");
    CHECK(written["operations"][0]["run_p99_ns"] == 3'000'000);
    CHECK(written["operations"][0]["expired"] == 8);
    CHECK(written["retries"] == 9);
    CHECK(written["operations"][0]["blocked"].get<std::string>().starts_with("not "));
    CHECK(written["time_ms"] == 5);
    CHECK(written["uptime_ms"] == 6);
    CHECK(written["controls"] == true);
}

TEST_CASE("of many domains the largest are listed") {
    std::vector<tg::token_info> tokens;
    for (std::uint64_t i = 0; i < 500; ++i) {
        tokens.push_back(token(i, 1ns));
        tokens.back().domain = {"lead", 1, 1000 + i / 2 % 250};
    }
    tokens.push_back(token(900, 1ns));
    tokens.back().domain = {"lead", 1, 1249};
    const json written = json::parse(snapshot_json({}, tokens, {}));
    CHECK(written["live_domains"].size() == 200);
    CHECK(written["live_domains"][0]["lead"] == "lead_1_1249");
    CHECK(written["live_domains_more"] == 50);
}

TEST_CASE("a control's body names an operation, or all, and nothing else") {
    CHECK(parse_control(R"({"operation": "parse"})").operation == "parse");
    CHECK(parse_control(R"({"operation": "parse"})").error.empty());
    CHECK(parse_control(R"({"operation": null})").operation.empty());
    CHECK(parse_control(R"({"operation": null})").error.empty());
    for (const char* wrong :
         {"", "{", "7", "[]", "{}", R"({"operation": 1})", R"({"operation": ""})",
          R"({"operation": null, "also": 1})", R"({"operation": null}{})"}) {
        CAPTURE(wrong);
        CHECK_FALSE(parse_control(wrong).error.empty());
    }
}

TEST_CASE("states that a living token can have, by name") {
    CHECK(tg::detail::living_state("waiting") == tg::token_state::waiting);
    CHECK_FALSE(tg::detail::living_state("completed"));
    CHECK_FALSE(tg::detail::living_state(""));
}
