// SPDX-License-Identifier: MIT
#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// A sample's options. The sample declares each option by reading it:
///
///     support::command_line line(argc, argv, "waves", "Doubling waves of mixed work.");
///     const auto waves = line.number("--waves", 1, 20, "how many waves (default: 15)");
///     const auto cores = line.cores();
///     line.finish();
///     run(waves.value_or(15), cores);
///
/// It accepts `--name value` and `--name=value`; if an option is repeated, the last value counts.
/// If the help was requested, finish() prints it and exits with 0. If an argument is unknown,
/// incomplete or out of range, finish() prints a message and exits with 2.

namespace support {

class command_line {
public:
    command_line(int argc, char** argv, std::string program, std::string about);

    std::optional<unsigned> number(std::string_view name, unsigned least, unsigned most,
                                   std::string_view help);
    /// One of `choices`; the first is the default.
    std::string choice(std::string_view name, std::initializer_list<std::string_view> choices,
                       std::string_view help);

    std::string text(std::string_view name, std::string fallback, std::string_view help);
    /// The mandatory argument without a name. Call it after the calls for all named options.
    std::string operand(std::string_view name, std::string_view help);

    // Options that all samples have.
    std::optional<unsigned> cores();
    std::optional<std::string> json_file();

    void finish();

private:
    std::optional<std::string> take(const std::string& name);
    void describe(std::string usage, std::string_view help);
    void refuse(std::string why);

    std::vector<std::string> left_;
    std::string program_;
    std::string help_;
    std::string refused_;
    bool help_wanted_ = false;
};

}  // namespace support
