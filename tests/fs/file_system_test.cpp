// SPDX-License-Identifier: MIT

#include <tokengate/file_system.hpp>

#include "support/files.hpp"

#include <tokengate/runtime.hpp>

#include <doctest/doctest.h>

#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace tg = tokengate;
using tg::test::read_file;
using tg::test::scratch;
using tg::test::thrown_by;
using tg::test::write_file;

TEST_SUITE("fs") {
    TEST_CASE("names: made, renamed, linked, listed, removed") {
        const scratch here;
        tg::runtime runtime{{.cores = 1}};
        runtime.run([&]() -> tg::task<> {
            co_await tg::fs::make_directory(here / "d");
            co_await write_file(here / "d/a", "abc");
            co_await tg::fs::rename(here / "d/a", here / "d/b");
            co_await tg::fs::link(here / "d/b", here / "d/c");
            co_await tg::fs::symlink("c", here / "d/s");
            co_await tg::fs::make_directory(here / "d/sub", 0700);
            const std::string text = co_await read_file(here / "d/s");
            CHECK(text == "abc");

            std::vector<tg::fs::entry> all = co_await tg::fs::list_directory(here / "d");
            std::sort(all.begin(), all.end(),
                      [](const auto& a, const auto& b) { return a.name < b.name; });
            REQUIRE(all.size() == 4);
            CHECK(all[0].name == "b");
            CHECK(all[1].name == "c");
            CHECK(all[1].type == tg::fs::type::regular);
            CHECK(all[2].name == "s");
            CHECK(all[2].type == tg::fs::type::symlink);
            CHECK(all[3].name == "sub");
            CHECK(all[3].type == tg::fs::type::directory);

            const tg::fs::status followed = co_await tg::fs::stat(here / "d/s");
            CHECK(followed.type == tg::fs::type::regular);
            CHECK(followed.size == 3);
            CHECK(followed.links == 2);
            const tg::fs::status link = co_await tg::fs::stat_link(here / "d/s");
            CHECK(link.type == tg::fs::type::symlink);
            CHECK(link.inode != followed.inode);

            struct ::stat expected{};
            REQUIRE(::stat((here / "d/b").c_str(), &expected) == 0);
            CHECK(followed.inode == expected.st_ino);
            CHECK(followed.device == expected.st_dev);
            CHECK(followed.owner == expected.st_uid);
            CHECK(followed.group == expected.st_gid);
            CHECK(followed.permissions == (expected.st_mode & 07777U));
            CHECK(followed.allocated == static_cast<std::uint64_t>(expected.st_blocks) * 512);
            const auto modified = std::chrono::seconds(expected.st_mtim.tv_sec) +
                                  std::chrono::nanoseconds(expected.st_mtim.tv_nsec);
            CHECK(followed.modified.time_since_epoch() == modified);

            for (const char* name : {"d/b", "d/c", "d/s"}) co_await tg::fs::remove(here / name);
            co_await tg::fs::remove_directory(here / "d/sub");
            all = co_await tg::fs::list_directory(here / "d");
            CHECK(all.empty());
            co_await tg::fs::remove_directory(here / "d");
            CHECK(!std::filesystem::exists(here / "d"));
        });
    }

    TEST_CASE("errors name both paths") {
        const scratch here;
        tg::runtime runtime{{.cores = 1}};
        const std::string a = here / "a", b = here / "b";
        const std::string none = " failed: No such file or directory";
        CHECK(thrown_by(runtime, [&]() -> tg::task<> { co_await tg::fs::remove(a); }) ==
              "removal of " + a + none);
        CHECK(thrown_by(runtime, [&]() -> tg::task<> { co_await tg::fs::remove_directory(a); }) ==
              "removal of directory " + a + none);
        CHECK(thrown_by(runtime, [&]() -> tg::task<> { co_await tg::fs::rename(a, b); }) ==
              "rename of " + a + " to " + b + none);
        CHECK(thrown_by(runtime, [&]() -> tg::task<> { co_await tg::fs::link(a, b); }) ==
              "link of " + a + " as " + b + none);
        CHECK(thrown_by(runtime, [&]() -> tg::task<> {
                  co_await tg::fs::symlink("x", here.path());
              }) == "symbolic link to x as " + here.path() + " failed: File exists");
        CHECK(thrown_by(runtime, [&]() -> tg::task<> {
                  co_await tg::fs::make_directory(here.path());
              }) == "making of directory " + here.path() + " failed: File exists");
        CHECK(thrown_by(runtime, [&]() -> tg::task<> { co_await tg::fs::stat(a); }) ==
              "stat of " + a + none);
        CHECK(thrown_by(runtime, [&]() -> tg::task<> { co_await tg::fs::list_directory(a); }) ==
              "listing of directory " + a + none);
    }
}
