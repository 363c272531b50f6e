// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <string_view>

namespace tokengate::detail {

inline bool is_printable(char each) noexcept { return each >= ' ' && each <= '~'; }

inline void append_in_hex(std::string& out, char each) {
    constexpr char digits[] = "0123456789abcdef";
    const auto byte = static_cast<unsigned char>(each);
    out += "\\x";
    out += digits[byte >> 4];
    out += digits[byte & 15];
}

/// Quotes a user's text for a message. Unescaped, a NUL would end what(), and a newline would forge
/// a line of a log.
inline std::string quoted(std::string_view text) {
    std::string out = "\"";
    for (const char each : text) {
        if (!is_printable(each)) {
            append_in_hex(out, each);
            continue;
        }
        if (each == '"' || each == '\\') out += '\\';
        out += each;
    }
    return out += '"';
}

/// Escapes unprintable characters in the same way, and changes nothing else, so that the text stays
/// readable.
inline std::string on_one_line(std::string_view text) {
    std::string out;
    for (const char each : text)
        is_printable(each) ? static_cast<void>(out += each) : append_in_hex(out, each);
    return out;
}

}  // namespace tokengate::detail
