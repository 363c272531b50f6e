// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/token_info.hpp>

#include <chrono>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// What the console says and hears, as JSON. Pure functions, for any thread. Numbers are exact up to 2^53; a token is named
/// by the text of its id. Errors: std::bad_alloc.

namespace tokengate::detail {

/// Which tokens are wanted of /tokens.json: the oldest of those that match.
struct token_query {
    static constexpr std::size_t most = 10'000;

    std::string operation{};                ///< empty: of all
    token_state state = token_state::none;  ///< none: in any
    std::size_t limit = 1000;

    friend bool operator==(const token_query&, const token_query&) = default;
};

/// "waiting" → waiting; nothing for a name that no living token's state has.
[[nodiscard]] std::optional<token_state> living_state(std::string_view name);

struct console_facts {
    std::chrono::milliseconds now{0};  ///< since the epoch
    std::chrono::milliseconds up{0};   ///< since the console was made
    bool controls = false;
};

[[nodiscard]] std::string snapshot_json(const snapshot& now, const std::vector<token_info>& tokens,
                                        const console_facts& facts);
[[nodiscard]] std::string tokens_json(std::vector<token_info>&& tokens, const token_query& wanted);

/// {"ok": false, "error": …}
[[nodiscard]] std::string error_json(std::string_view error);

/// What a control is for: an operation, or (empty) all. Or, with `error`, what is wrong with the body.
struct control_body {
    std::string operation{};
    std::string error{};
};
[[nodiscard]] control_body parse_control(std::string_view body);

/// {"ok": true, "action": …, "operation": …, "changed": …}
[[nodiscard]] std::string control_json(std::string_view action, std::string_view operation,
                                       bool changed);

}  // namespace tokengate::detail
