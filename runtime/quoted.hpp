// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <string_view>

namespace tokengate::detail {

/// What a user gave, for a message: a NUL would end what(), and a newline forge a line of a log.
inline std::string quoted(std::string_view text) {
    constexpr char digits[] = "0123456789abcdef";
    std::string out = "\"";
    for (const char each : text) {
        if (each >= ' ' && each <= '~') {
            if (each == '"' || each == '\\') out += '\\';
            out += each;
            continue;
        }
        const auto byte = static_cast<unsigned char>(each);
        out += "\\x";
        out += digits[byte >> 4];
        out += digits[byte & 15];
    }
    return out += '"';
}

}  // namespace tokengate::detail
