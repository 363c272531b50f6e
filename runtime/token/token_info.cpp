// SPDX-License-Identifier: MIT
#include <tokengate/token_info.hpp>

namespace tokengate {

std::string token_id::text() const {
    return std::string(operation) + '_' + std::to_string(created_ns) + '_' +
           std::to_string(sequence);
}

std::string_view name_of(token_state state) noexcept {
    switch (state) {
        case token_state::created: return "created";
        case token_state::waiting: return "waiting";
        case token_state::admitted: return "admitted";
        case token_state::executing: return "executing";
        case token_state::completed: return "completed";
        case token_state::failed: return "failed";
        case token_state::killed: return "killed";
        case token_state::timeout: return "timeout";
        case token_state::none: break;
    }
    return "none";
}

std::string_view name_of(health grade) noexcept {
    switch (grade) {
        case health::problematic: return "problematic";
        case health::at_risk: return "at risk";
        case health::healthy: return "healthy";
        case health::excellent: return "excellent";
        case health::unknown: break;
    }
    return "unknown";
}

}  // namespace tokengate
