// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/token_info.hpp>

#include <chrono>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// The console's requests and answers as JSON. A reader gets numbers exactly up to 2^53. A token is
/// named by the text of its id.
///
/// Thread safety: pure functions, for any thread. Errors: std::bad_alloc.

namespace tokengate::detail {

/// The query of /tokens.json: it selects the oldest of the tokens that match.
struct token_query {
    static constexpr std::size_t most = 10'000;

    std::string operation{};                ///< empty: all operations
    token_state state = token_state::none;  ///< none: any state
    std::size_t limit = 1000;

    friend bool operator==(const token_query&, const token_query&) = default;
};

/// "waiting" → waiting; empty if no live token can have a state of that name.
[[nodiscard]] std::optional<token_state> living_state(std::string_view name);

struct console_facts {
    std::chrono::milliseconds now{0};  ///< since the epoch
    std::chrono::milliseconds up{0};   ///< since the console was made
    bool controls = false;
};

[[nodiscard]] std::string snapshot_json(const snapshot& now, const std::vector<token_info>& tokens,
                                        const console_facts& facts);
[[nodiscard]] std::string tokens_json(std::vector<token_info>&& tokens, const token_query& wanted);

/// The text {"ok": false, "error": …}.
[[nodiscard]] std::string error_json(std::string_view error);

/// The parsed body of a control: the operation to which it applies (empty: all), or an `error`.
struct control_body {
    std::string operation{};
    std::string error{};
};
[[nodiscard]] control_body parse_control(std::string_view body);

/// The text {"ok": true, "action": …, "operation": …, "changed": …}.
[[nodiscard]] std::string control_json(std::string_view action, std::string_view operation,
                                       bool changed);

}  // namespace tokengate::detail
