// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/file.hpp>
#include <tokengate/runtime.hpp>
#include <tokengate/task.hpp>

#include <doctest/doctest.h>
#include <stdlib.h>

#include <cstddef>
#include <exception>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// What tests of files share.

namespace tokengate::test {

/// A directory of its own for each test.
class scratch {
public:
    scratch() {
        std::string name = (std::filesystem::temp_directory_path() / "file_test_XXXXXX").string();
        REQUIRE(::mkdtemp(name.data()) != nullptr);
        path_ = name;
    }
    ~scratch() { std::filesystem::remove_all(path_); }
    scratch(const scratch&) = delete;
    scratch& operator=(const scratch&) = delete;

    std::string operator/(const std::string& name) const { return path_ + "/" + name; }
    [[nodiscard]] const std::string& path() const { return path_; }

private:
    std::string path_;
};

inline std::span<const std::byte> as_bytes(std::string_view text) {
    return std::as_bytes(std::span(text));
}
inline std::string text_of(std::span<const std::byte> all) {
    return {reinterpret_cast<const char*>(all.data()), all.size()};
}

/// Runs it as the main coroutine, and says what it threw.
template <class Body>
std::string thrown_by(runtime& runtime, Body body) {
    try {
        runtime.run(body);
    } catch (const std::exception& thrown) {
        return thrown.what();
    }
    return "nothing";
}

inline task<> write_file(std::string path, std::string_view text) {
    file::handle out =
        co_await file::open(std::move(path), file::write | file::create | file::truncate);
    co_await out.write_all(as_bytes(text));
    co_await out.close();
}

inline task<std::string> read_file(std::string path) {
    file::handle in = co_await file::open(std::move(path), file::read);
    const std::vector<std::byte> all = co_await in.read_all();
    co_return text_of(all);
}

}  // namespace tokengate::test
