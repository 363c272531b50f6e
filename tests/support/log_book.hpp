// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/token_info.hpp>

#include <chrono>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

/// What an observer has heard, by token.
///
///     log_book book;
///     tg::runtime runtime{{.observer = book.observer()}};
///     … CHECK(book.legal());  CHECK(book.ways("store") == log_book::counts{{"created waiting admitted killed", 1}});
///
/// Thread-safe but for `steps`, which is for when nothing moves. Must outlive the runtime.

namespace tokengate::test {

struct log_book {
    using counts = std::map<std::string, int>;

    std::mutex mutex;
    std::map<std::uint64_t, std::vector<token_step>> steps;

    auto observer() {
        return [this](const token_step& step) {
            const std::scoped_lock lock(mutex);
            steps[step.id.sequence].push_back(step);
        };
    }
    /// The states that the tokens of an operation have gone through, each as one text.
    counts ways(std::string_view operation) {
        const std::scoped_lock lock(mutex);
        counts found;
        for (const auto& [sequence, taken] : steps)
            if (taken.front().id.operation == operation) ++found[way_of(taken)];
        return found;
    }
    /// Whether only legal steps were taken, in time, and each token ended once.
    bool legal() {
        const std::scoped_lock lock(mutex);
        for (const auto& [sequence, taken] : steps)
            if (!is_legal(taken)) return false;
        return true;
    }

private:
    static std::string way_of(const std::vector<token_step>& taken) {
        std::string way;
        for (const token_step& step : taken)
            way += std::string(way.empty() ? "" : " ") + std::string(name_of(step.state));
        return way;
    }
    static bool is_legal(const std::vector<token_step>& taken) {
        token_state before = token_state::none;
        std::chrono::nanoseconds at{0};
        for (const token_step& step : taken) {
            const bool in_turn = step.state <= token_state::executing &&
                                 static_cast<int>(step.state) == static_cast<int>(before) + 1;
            const bool ends =
                step.state == token_state::completed ? before == token_state::executing
                : step.state > token_state::completed
                    ? before >= token_state::waiting && before <= token_state::executing
                    : false;
            if (!(in_turn || ends) || step.at < at) return false;
            before = step.state;
            at = step.at;
        }
        return before >= token_state::completed;
    }
};

}  // namespace tokengate::test
