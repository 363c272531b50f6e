// SPDX-License-Identifier: MIT
#include "json.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <iterator>
#include <nlohmann/json.hpp>
#include <unordered_map>
#include <utility>

namespace tokengate::detail {

namespace {

using json = nlohmann::ordered_json;

constexpr std::array living{token_state::created, token_state::waiting, token_state::admitted,
                            token_state::executing};
constexpr std::size_t most_domains = 200;

/// The text of `value`. Bytes that are not UTF-8 are replaced: the texts may have any bytes.
std::string written(const json& value) {
    return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

json core_json(unsigned core) { return core == control_core ? json(nullptr) : json(core); }
json id_json(const token_id& id) { return id.operation.empty() ? json(nullptr) : json(id.text()); }

json operation_json(const operation_health& of) {
    return {{"operation", of.operation},
            {"grade", name_of(of.grade)},
            {"failure_rate", of.failure_rate},
            {"admitted", of.admitted},
            {"started", of.started},
            {"completed", of.completed},
            {"failed", of.failed},
            {"killed", of.killed},
            {"timed_out", of.timed_out},
            {"expired", of.expired},
            {"refused", of.refused},
            {"retries", of.retries},
            {"queue_p50_ns", of.queue_p50.count()},
            {"queue_p99_ns", of.queue_p99.count()},
            {"run_p50_ns", of.run_p50.count()},
            {"run_p99_ns", of.run_p99.count()},
            {"paused", of.paused},
            {"blocked", of.blocked.empty() ? json(nullptr) : json(of.blocked)}};
}

struct domain_seen {
    token_id lead;
    unsigned core = control_core;
    std::size_t tokens = 0;
};

/// The domains of the tokens, those with the most tokens first.
std::vector<domain_seen> domains_of(const std::vector<token_info>& tokens) {
    std::unordered_map<std::uint64_t, domain_seen> by_lead;
    for (const token_info& each : tokens) {
        if (each.domain.operation.empty()) continue;
        domain_seen& found = by_lead[each.domain.sequence];
        found.lead = each.domain;
        ++found.tokens;
        if (each.core != control_core) found.core = each.core;
    }
    std::vector<domain_seen> all;
    all.reserve(by_lead.size());
    for (const auto& [sequence, domain] : by_lead) all.push_back(domain);
    std::sort(all.begin(), all.end(), [](const domain_seen& a, const domain_seen& b) {
        return std::pair(b.tokens, a.lead.sequence) < std::pair(a.tokens, b.lead.sequence);
    });
    return all;
}

}  // namespace

std::optional<token_state> living_state(std::string_view name) {
    for (const token_state each : living)
        if (name == name_of(each)) return each;
    return {};
}

std::string snapshot_json(const snapshot& now, const std::vector<token_info>& tokens,
                          const console_facts& facts) {
    json states = json::object();
    for (const token_state each : living)
        states[std::string(name_of(each))] =
            std::count_if(tokens.begin(), tokens.end(),
                          [&](const token_info& one) { return one.state == each; });
    json cores = json::array();
    for (const core_snapshot& each : now.cores)
        cores.push_back({{"executor", each.executor},
                         {"core", core_json(each.core)},
                         {"queued", each.queued},
                         {"busy_ns", each.busy_ns},
                         {"parked", each.parked}});
    json operations = json::array();
    for (const operation_health& each : now.operations) operations.push_back(operation_json(each));
    json domains = json::array();
    const std::vector<domain_seen> seen = domains_of(tokens);
    for (std::size_t i = 0; i < std::min(seen.size(), most_domains); ++i)
        domains.push_back({{"lead", seen[i].lead.text()},
                           {"core", core_json(seen[i].core)},
                           {"tokens", seen[i].tokens}});
    return written({{"version", TOKENGATE_VERSION},
                    {"time_ms", facts.now.count()},
                    {"uptime_ms", facts.up.count()},
                    {"controls", facts.controls},
                    {"paused", now.paused},
                    {"admitted", now.admitted},
                    {"ended", now.ended},
                    {"waiting", now.waiting},
                    {"waiting_for_permit", now.waiting_for_permit},
                    {"held", now.held},
                    {"domains", now.domains},
                    {"pins", now.pins},
                    {"redirections", now.redirections},
                    {"sticky_bypassed", now.sticky_bypassed},
                    {"retries", now.retries},
                    {"tokens", std::move(states)},
                    {"busy_ns", now.busy_ns},
                    {"cores", std::move(cores)},
                    {"operations", std::move(operations)},
                    {"live_domains", std::move(domains)},
                    {"live_domains_more", seen.size() - std::min(seen.size(), most_domains)}});
}

std::string tokens_json(std::vector<token_info>&& tokens, const token_query& wanted) {
    std::erase_if(tokens, [&](const token_info& each) {
        return (!wanted.operation.empty() && each.id.operation != wanted.operation) ||
               (wanted.state != token_state::none && each.state != wanted.state);
    });
    const std::size_t shown = std::min(wanted.limit, tokens.size());
    const auto last = tokens.begin() + static_cast<std::ptrdiff_t>(shown);
    std::partial_sort(tokens.begin(), last, tokens.end(),
                      [](const token_info& a, const token_info& b) {
                          return std::pair(b.age, a.id.sequence) < std::pair(a.age, b.id.sequence);
                      });
    json listed = json::array();
    for (auto each = tokens.begin(); each != last; ++each)
        listed.push_back({{"id", each->id.text()},
                          {"operation", each->id.operation},
                          {"state", name_of(each->state)},
                          {"core", core_json(each->core)},
                          {"age_ns", each->age.count()},
                          {"awaited_by", each->awaited_by_sequence == 0
                                             ? json(nullptr)
                                             : json(std::to_string(each->awaited_by_sequence))},
                          {"domain", id_json(each->domain)}});
    return written(
        {{"tokens", std::move(listed)}, {"total", tokens.size()}, {"more", tokens.size() - shown}});
}

std::string error_json(std::string_view error) {
    return written({{"ok", false}, {"error", error}});
}

control_body parse_control(std::string_view body) {
    constexpr const char* shape = R"(the body must be {"operation": NAME} or {"operation": null})";
    const json parsed = json::parse(body, nullptr, false);
    if (parsed.is_discarded()) return {.error = std::string("no JSON: ") + shape};
    if (!parsed.is_object() || parsed.size() != 1 || !parsed.contains("operation"))
        return {.error = shape};
    const json& operation = parsed["operation"];
    if (operation.is_null()) return {};
    if (!operation.is_string()) return {.error = shape};
    const auto& name = operation.get_ref<const std::string&>();
    if (name.empty()) return {.error = "an operation's name is not empty; null means all"};
    return {.operation = name};
}

std::string control_json(std::string_view action, std::string_view operation, bool changed) {
    return written({{"ok", true},
                    {"action", action},
                    {"operation", operation.empty() ? json(nullptr) : json(operation)},
                    {"changed", changed}});
}

}  // namespace tokengate::detail
