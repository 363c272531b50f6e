// SPDX-License-Identifier: MIT
#pragma once

#include <charconv>
#include <cmath>
#include <concepts>
#include <fstream>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

/// A JSON object of numbers and lists of such objects, in the order of the calls:
///
///     support::write_json(file, support::json().add("tokens", 40).add("failed", 0));
///
/// Names are literals without characters to escape. NaN and infinity, which JSON lacks, become
/// null.

namespace support {

class json {
public:
    template <class Number>
        requires std::integral<Number> || std::floating_point<Number>
    json& add(std::string_view name, Number value) {
        if constexpr (std::floating_point<Number>)
            if (!std::isfinite(value)) return field(name, "null");
        char digits[std::numeric_limits<double>::max_digits10 + 16];
        return field(name, std::string_view(
                               digits, std::to_chars(digits, digits + sizeof digits, value).ptr));
    }

    json& add(std::string_view name, const std::vector<json>& list) {
        std::string items;
        for (const json& each : list) items.append(items.empty() ? "" : ",").append(each.text());
        return field(name, '[' + items + ']');
    }

    [[nodiscard]] std::string text() const { return '{' + fields_ + '}'; }

private:
    json& field(std::string_view name, std::string_view value) {
        fields_.append(fields_.empty() ? "\"" : ",\"").append(name).append("\":").append(value);
        return *this;
    }

    std::string fields_;
};

/// Does nothing without a file. Throws std::runtime_error if the file cannot be written.
inline void write_json(const std::optional<std::string>& file, const json& object) {
    if (!file) return;
    std::ofstream out(*file, std::ios::trunc);
    out << object.text() << '\n';
    if (!out.flush()) throw std::runtime_error("could not write " + *file);
}

}  // namespace support
