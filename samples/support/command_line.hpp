// SPDX-License-Identifier: MIT
#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// A sample's options, declared where they are read:
///
///     support::command_line line(argc, argv, "waves", "Doubling waves of mixed work.");
///     const unsigned waves = line.number("--waves", 1, 20, "how many waves (default: 15)").value_or(15);
///     const auto cores = line.cores();
///     line.finish();
///
/// Both `--name value` and `--name=value`; the last one counts. finish() prints the help and exits with 0 where it was
/// asked for, and exits with 2 and a message where an argument is unknown, incomplete or out of range.

namespace support {

class command_line {
public:
    command_line(int argc, char** argv, std::string program, std::string about);

    std::optional<unsigned> number(std::string_view name, unsigned least, unsigned most,
                                   std::string_view help);
    /// The first choice is the default.
    std::string choice(std::string_view name, std::initializer_list<std::string_view> choices,
                       std::string_view help);

    std::string text(std::string_view name, std::string fallback, std::string_view help);
    /// What stands without a name; after all that have one. It must be given.
    std::string operand(std::string_view name, std::string_view help);

    // What every sample takes.
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
