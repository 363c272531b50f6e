// SPDX-License-Identifier: MIT
#include "command_line.hpp"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <system_error>
#include <utility>

namespace support {

command_line::command_line(int argc, char** argv, std::string program, std::string about)
    : left_(argv + std::min(argc, 1), argv + argc),
      program_(std::move(program)),
      help_(std::move(about) + "\n\n") {
    help_wanted_ = std::erase(left_, "--help") + std::erase(left_, "-h") != 0;
    describe("--help", "this text");
}

std::optional<unsigned> command_line::number(std::string_view name, unsigned least, unsigned most,
                                             std::string_view help) {
    const std::string option(name);
    describe(option + " N", help);
    const std::optional<std::string> text = take(option);
    if (!text) return std::nullopt;
    unsigned value = 0;
    const char* end = text->data() + text->size();
    const auto [stopped, error] = std::from_chars(text->data(), end, value);
    if (error == std::errc{} && stopped == end && value >= least && value <= most) return value;
    refuse(option + " is '" + *text + "': a whole number from " + std::to_string(least) + " to " +
           std::to_string(most));
    return std::nullopt;
}

std::string command_line::choice(std::string_view name,
                                 std::initializer_list<std::string_view> choices,
                                 std::string_view help) {
    const std::string option(name);
    std::string all;
    for (const std::string_view each : choices) all.append(all.empty() ? "" : "|").append(each);
    describe(option + ' ' + all, help);
    std::string chosen = take(option).value_or(std::string(*choices.begin()));
    if (std::find(choices.begin(), choices.end(), chosen) == choices.end())
        refuse(option + " is '" + chosen + "': one of " + all);
    return chosen;
}

std::string command_line::text(std::string_view name, std::string fallback, std::string_view help) {
    const std::string option(name);
    describe(option + " TEXT",
             std::string(help) + (fallback.empty() ? "" : " (default: " + fallback + ")"));
    return take(option).value_or(std::move(fallback));
}

std::string command_line::operand(std::string_view name, std::string_view help) {
    describe(std::string(name), help);
    const auto found = std::find_if(left_.begin(), left_.end(),
                                    [](const auto& each) { return !each.starts_with("--"); });
    if (found == left_.end()) {
        refuse(std::string(name) + " is missing: " + std::string(help));
        return {};
    }
    std::string value = std::move(*found);
    left_.erase(found);
    return value;
}

std::optional<unsigned> command_line::cores() {
    return number("--cores", 1, 1023, "pinned executors (default: every CPU this process may use)");
}

std::optional<std::string> command_line::json_file() {
    describe("--json FILE", "write the figures there");
    std::optional<std::string> path = take("--json");
    // Checked now instead of after minutes of work.
    if (path && !std::ofstream(*path, std::ios::app))
        refuse("--json is '" + *path + "', which cannot be written");
    return path;
}

void command_line::finish() {
    if (help_wanted_) {
        std::printf("%s: %s", program_.c_str(), help_.c_str());
        std::exit(0);
    }
    if (!left_.empty()) refuse("unknown argument '" + left_.front() + "'");
    if (refused_.empty()) return;
    std::fprintf(stderr, "%s: %s (see %s --help)\n", program_.c_str(), refused_.c_str(),
                 program_.c_str());
    std::exit(2);
}

std::optional<std::string> command_line::take(const std::string& name) {
    std::optional<std::string> found;
    for (auto at = left_.begin(); at != left_.end();) {
        if (*at == name) {
            at = left_.erase(at);
            if (at == left_.end() || at->starts_with("--")) {
                refuse(name + " wants a value");
                return std::nullopt;
            }
            found = std::move(*at);
        } else if (at->starts_with(name + '=')) {
            found = at->substr(name.size() + 1);
        } else {
            ++at;
            continue;
        }
        at = left_.erase(at);
    }
    return found;
}

void command_line::describe(std::string usage, std::string_view help) {
    usage.resize(std::max<std::size_t>(usage.size() + 2, 28), ' ');
    help_ += "  " + usage + std::string(help) + '\n';
}

void command_line::refuse(std::string why) {
    if (refused_.empty()) refused_ = std::move(why);
}

}  // namespace support
