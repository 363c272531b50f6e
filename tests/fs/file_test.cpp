// SPDX-License-Identifier: MIT
#include <tokengate/file.hpp>

#include "support/child.hpp"
#include "support/files.hpp"
#include "support/leaks.hpp"
#include "support/manual_event.hpp"

#include <tokengate/error.hpp>
#include <tokengate/file_system.hpp>
#include <tokengate/operation.hpp>
#include <tokengate/runtime.hpp>
#include <tokengate/scope.hpp>
#include <tokengate/stop.hpp>
#include <tokengate/task_token.hpp>
#include <tokengate/this_token.hpp>
#include <tokengate/time.hpp>
#include <tokengate/when_all.hpp>

#include <doctest/doctest.h>

#include <fcntl.h>
#include <malloc.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <coroutine>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace tg = tokengate;
using tg::test::as_bytes;
using tg::test::in_child;
using tg::test::live_slots;
using tg::test::open_descriptors;
using tg::test::read_file;
using tg::test::scratch;
using tg::test::text_of;
using tg::test::thrown_by;
using tg::test::write_file;
using bytes = std::vector<std::byte>;

namespace {

bytes noise(std::size_t length, unsigned seed) {
    std::mt19937_64 random(seed);
    bytes all(length);
    for (std::size_t i = 0; i < length; i += 8) {
        const std::uint64_t word = random();
        std::memcpy(all.data() + i, &word, std::min<std::size_t>(8, length - i));
    }
    return all;
}

/// What is ready on this loop has run by then, as far as to its next wait.
tg::task<> some_turns() {
    for (int i = 0; i < 8; ++i) co_await tg::yield();
}

/// Opens under the soft limit of descriptors, and has 16 more when it has failed: UBSan needs some to look at what is
/// thrown.
class open_then_raise {
public:
    explicit open_then_raise(std::string path) : opening_(std::move(path), tg::file::read, 0) {}

    bool await_ready() const noexcept { return false; }
    bool await_suspend(std::coroutine_handle<> awaiting) {
        return opening_.await_suspend(awaiting);
    }
    tg::file::handle await_resume() {
        rlimit limit{};
        ::getrlimit(RLIMIT_NOFILE, &limit);
        const rlimit more{limit.rlim_cur + 16, limit.rlim_max};
        ::setrlimit(RLIMIT_NOFILE, &more);
        tg::file::handle opened = opening_.await_resume();
        ::setrlimit(RLIMIT_NOFILE, &limit);
        return opened;
    }

private:
    tg::detail::opening opening_;
};

/// Looks at the position when the close has been asked for and not been done.
class close_then_look {
public:
    explicit close_then_look(tg::file::handle& of) : of_(of), closing_(of.close()) {}

    bool await_ready() const noexcept { return false; }
    bool await_suspend(std::coroutine_handle<> awaiting) {
        const bool suspended = closing_.await_suspend(awaiting);
        try {
            static_cast<void>(of_.position());
        } catch (const std::system_error& error) {
            said_ = error.what();
        }
        return suspended;
    }
    void await_resume() { closing_.await_resume(); }
    [[nodiscard]] const std::string& said() const { return said_; }

private:
    tg::file::handle& of_;
    tg::detail::closing closing_;
    std::string said_;
};

/// Memory that this process has in use.
std::size_t resident_bytes() {
    std::size_t all = 0, resident = 0;
    std::ifstream("/proc/self/statm") >> all >> resident;
    return resident * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
}

static_assert(std::is_nothrow_move_constructible_v<tg::file::handle>);
static_assert(!std::is_copy_constructible_v<tg::file::handle>);

}  // namespace

TEST_SUITE("file") {
    TEST_CASE("what was written is read") {
        const scratch here;
        tg::runtime runtime{{.cores = 1}};
        runtime.run([&]() -> tg::task<> {
            const std::string path = here / "text";
            co_await write_file(path, "one two three");
            const std::string back = co_await read_file(path);
            CHECK(back == "one two three");

            tg::file::handle in = co_await tg::file::open(path, tg::file::read);
            CHECK(in.is_open());
            CHECK(in.path() == path);
            CHECK((::fcntl(in.descriptor(), F_GETFD) & FD_CLOEXEC) != 0);
            std::array<std::byte, 4> buffer{};
            std::size_t n = co_await in.read(buffer);
            CHECK(text_of(std::span(buffer).first(n)) == "one ");
            n = co_await in.read(buffer);
            CHECK(text_of(std::span(buffer).first(n)) == "two ");
            CHECK(in.position() == 8);
            n = co_await in.read_at(buffer, 1);
            CHECK(text_of(std::span(buffer).first(n)) == "ne t");
            CHECK(in.position() == 8);
            n = co_await in.read_all(buffer);
            CHECK(text_of(std::span(buffer).first(n)) == "thre");
            n = co_await in.read_all(buffer);
            CHECK(n == 1);
            n = co_await in.read_all(buffer);
            CHECK(n == 0);
            n = co_await in.read(buffer);
            CHECK(n == 0);
            CHECK(in.seek(4) == 4);
            const bytes rest = co_await in.read_all();
            CHECK(text_of(rest) == "two three");
            const bytes nothing = co_await in.read_all();
            CHECK(nothing.empty());
        });
    }

    TEST_CASE("a read and write handle; append; truncate; exclusive; mode") {
        const scratch here;
        tg::runtime runtime{{.cores = 1}};
        runtime.run([&]() -> tg::task<> {
            const std::string path = here / "f";
            using namespace tg::file;
            const mode_t mask = ::umask(0);
            {
                handle f = co_await tg::file::open(
                    path, tg::file::read | tg::file::write | create | exclusive, 0640);
                std::size_t n = co_await f.write(as_bytes("abcdef"));
                CHECK(n == 6);
                n = co_await f.write_at(as_bytes("XY"), 2);
                CHECK(n == 2);
                CHECK(f.position() == 6);
                f.seek(0);
                const bytes all = co_await f.read_all();
                CHECK(text_of(all) == "abXYef");
                const tg::fs::status status = co_await f.stat();
                CHECK(status.permissions == 0640);
            }
            ::umask(mask);
            {
                handle log = co_await tg::file::open(path, append);
                co_await log.write_all(as_bytes("gh"));
                handle other = co_await tg::file::open(path, append);
                co_await other.write_all(as_bytes("ij"));
                co_await log.write_all(as_bytes("kl"));
            }
            std::string text = co_await read_file(path);
            CHECK(text == "abXYefghijkl");
            {
                handle f = co_await tg::file::open(path, tg::file::write);
                co_await f.truncate(3);
                tg::fs::status status = co_await f.stat();
                CHECK(status.size == 3);
                co_await f.truncate(5);
                status = co_await f.stat();
                CHECK(status.size == 5);
            }
            text = co_await read_file(path);
            CHECK(text == std::string("abX\0\0", 5));
            handle f = co_await tg::file::open(path, tg::file::write | tg::file::truncate);
            text = co_await read_file(path);
            CHECK(text.empty());
        });
    }

    TEST_CASE("pieces: gathered, scattered, empty ones, none at all") {
        const scratch here;
        tg::runtime runtime{{.cores = 1}};
        runtime.run([&]() -> tg::task<> {
            const std::string path = here / "f";
            tg::file::handle f =
                co_await tg::file::open(path, tg::file::read | tg::file::write | tg::file::create);
            const std::vector<std::span<const std::byte>> out{as_bytes(""),  as_bytes("ab"),
                                                              as_bytes(""),  as_bytes("cdefg"),
                                                              as_bytes("h"), as_bytes("")};
            std::size_t n = co_await f.write(out);
            CHECK(n == 8);
            n = co_await f.write_all(out);
            CHECK(n == 8);
            n = co_await f.write_at(out, 16);
            CHECK(n == 8);
            n = co_await f.write_all_at(out, 24);
            CHECK(n == 8);
            std::string text = co_await read_file(path);
            CHECK(text == "abcdefghabcdefghabcdefghabcdefgh");

            bytes one(3), two(0), three(7);
            const std::array<std::span<std::byte>, 3> in{one, two, three};
            n = co_await f.read_at(in, 1);
            CHECK(n == 10);
            CHECK(text_of(one) == "bcd");
            CHECK(text_of(three) == "efghabc");
            n = co_await f.read_all_at(in, 27);
            CHECK(n == 5);
            CHECK(text_of(one) == "def");
            CHECK(text_of(std::span(three).first(2)) == "gh");
            f.seek(30);
            n = co_await f.read_all(in);
            CHECK(n == 2);
            n = co_await f.read(in);
            CHECK(n == 0);

            n = co_await f.write_all(std::span<const std::byte>());
            CHECK(n == 0);
            n = co_await f.write_all(tg::file::write_pieces());
            CHECK(n == 0);
            n = co_await f.read_all(tg::file::read_pieces());
            CHECK(n == 0);
            n = co_await f.read_all(std::span<std::byte>());
            CHECK(n == 0);

            // More pieces than the kernel takes at once.
            const std::string digits = "0123456789";
            std::vector<std::span<const std::byte>> many;
            for (std::size_t i = 0; i < 5000; ++i)
                many.push_back(as_bytes(digits).subspan(i % 10, 1));
            co_await f.truncate(0);
            f.seek(0);
            n = co_await f.write_all(many);
            CHECK(n == 5000);
            bytes back(5000);
            std::vector<std::span<std::byte>> places;
            for (std::byte& each : back) places.emplace_back(&each, 1);
            n = co_await f.read_all_at(places, 0);
            CHECK(n == 5000);
            bool right = true;
            for (std::size_t i = 0; i < 5000; ++i)
                right = right && back[i] == as_bytes(digits)[i % 10];
            CHECK(right);
        });
    }

    TEST_CASE("holes, allocation, sync") {
        const scratch here;
        tg::runtime runtime{{.cores = 1}};
        runtime.run([&]() -> tg::task<> {
            tg::file::handle f =
                co_await tg::file::open(here / "f",
                                        tg::file::read | tg::file::write | tg::file::create);
            constexpr std::uint64_t far = std::uint64_t{5} << 30;  // does not fit 32 bits
            co_await f.write_all_at(as_bytes("end"), far);
            tg::fs::status status = co_await f.stat();
            CHECK(status.size == far + 3);
            CHECK(status.allocated < std::uint64_t{1} << 20);
            bytes hole(4096, std::byte{1});
            const std::size_t n = co_await f.read_all_at(hole, far / 2);
            CHECK(n == hole.size());
            CHECK(std::all_of(hole.begin(), hole.end(),
                              [](std::byte b) { return b == std::byte{}; }));
            co_await f.truncate(0);
            co_await f.allocate(4096, 65536);
            status = co_await f.stat();
            CHECK(status.size == 4096 + 65536);
            CHECK(status.allocated >= 65536);
            co_await f.sync();
            co_await f.sync_data();
            co_await f.close();
            CHECK(!f.is_open());

            // A directory can be synced, so that a rename in it lasts.
            tg::file::handle directory = co_await tg::file::open(here.path(), tg::file::read);
            co_await directory.sync();
        });
    }

    TEST_CASE("64 MiB in odd pieces") {
        const scratch here;
        tg::runtime runtime{{.cores = 1}};
        runtime.run([&]() -> tg::task<> {
            const bytes all = noise((std::size_t{64} << 20) + 12345, 1);
            std::mt19937_64 random(2);
            {
                tg::file::handle f =
                    co_await tg::file::open(here / "f", tg::file::write | tg::file::create);
                for (std::size_t done = 0; done < all.size();) {
                    const std::size_t n =
                        std::min<std::size_t>(all.size() - done, 1 + random() % 3'000'001);
                    const std::size_t went = co_await f.write_all(std::span(all).subspan(done, n));
                    CHECK(went == n);
                    done += n;
                }
                co_await f.close();
            }
            tg::file::handle f = co_await tg::file::open(here / "f", tg::file::read);
            bytes back(all.size() + 100);
            std::size_t done = 0;
            for (std::size_t n = 1; n != 0; done += n) {
                const std::size_t most =
                    std::min<std::size_t>(back.size() - done, 1 + random() % 3'000'001);
                n = co_await f.read(std::span(back).subspan(done, most));
            }
            CHECK(done == all.size());
            back.resize(done);
            CHECK(back == all);
            f.seek(0);
            const bytes whole = co_await f.read_all();
            CHECK(whole == all);
            const std::size_t n = co_await f.read_all_at(back, 0);
            CHECK(n == all.size());
            CHECK(back == all);
        });
    }

    TEST_CASE("pieces of all: the loop has its turn in between") {
        const scratch here;
        tg::runtime runtime{{.cores = 1}};
        runtime.run([&]() -> tg::task<> {
            constexpr std::size_t mib = std::size_t{1} << 20;
            const bytes all = noise(12 * mib, 6);
            bytes back(all.size());
            tg::file::handle f =
                co_await tg::file::open(here / "f",
                                        tg::file::read | tg::file::write | tg::file::create);

            // Many that fit into one piece, some that do not, and one that is more than a piece.
            std::vector<std::span<const std::byte>> from;
            std::vector<std::span<std::byte>> into;
            std::size_t cut = 0;
            for (const std::size_t length :
                 {mib / 4, mib / 4, std::size_t{1}, mib / 2, mib / 2, 4 * mib, mib}) {
                from.push_back(std::span(all).subspan(cut, length));
                into.push_back(std::span(back).subspan(cut, length));
                cut += length;
            }
            from.push_back(std::span(all).subspan(cut));
            into.push_back(std::span(back).subspan(cut));

            // Where the file's position was seen meanwhile, by a token of the same loop.
            const auto writing = [](tg::file::handle& to,
                                    const std::vector<std::span<const std::byte>>& what,
                                    bool& ended) -> tg::task<> {
                co_await to.write_all(what);
                ended = true;
            };
            const auto reading = [](tg::file::handle& of,
                                    const std::vector<std::span<std::byte>>& where,
                                    bool& ended) -> tg::task<> {
                co_await of.read_all(where);
                ended = true;
            };
            const auto watching = [](tg::file::handle& file, std::size_t end,
                                     bool& ended) -> tg::task<unsigned> {
                unsigned seen = 0;
                std::uint64_t last = 0;
                while (!ended) {
                    const std::uint64_t now = file.position();
                    if (now != last && now < end) ++seen;
                    last = now;
                    co_await tg::yield();
                }
                co_return seen;
            };
            bool written = false, read = false;
            auto [nothing, seen] =
                co_await tg::when_all(tg::as_token(writing(f, from, written)),
                                      tg::as_token(watching(f, all.size(), written)));
            CHECK(seen >= 6);
            f.seek(0);
            auto [none, again] = co_await tg::when_all(tg::as_token(reading(f, into, read)),
                                                       tg::as_token(watching(f, all.size(), read)));
            CHECK(again >= 6);
            CHECK(back == all);
        });
    }

    TEST_CASE("all of a large file takes memory as it comes") {
        const scratch here;
        ::mallopt(M_PERTURB,
                  0);  // MALLOC_PERTURB_, which meson sets, touches all of what is allocated
        tg::runtime runtime{{.cores = 1}};
        runtime.run([&]() -> tg::task<> {
            constexpr std::uint64_t size = std::uint64_t{512} << 20;
            tg::file::handle f =
                co_await tg::file::open(here / "f",
                                        tg::file::read | tg::file::write | tg::file::create);
            co_await f.truncate(size);
            const auto reading = [](tg::file::handle& from) -> tg::task<bytes> {
                co_return co_await from.read_all();
            };
            const std::size_t before = resident_bytes();
            tg::token<bytes> token = tg::as_token(reading(f));
            token.admit();
            while (f.position() == 0) co_await tg::yield();
            const std::size_t taken = resident_bytes() - std::min(before, resident_bytes());
            CHECK(taken < size / 4);
            token.request_stop();
            bool stopped = false;
            try {
                co_await std::move(token);
            } catch (const tg::token_stopped&) {
                stopped = true;
            }
            CHECK(stopped);
        });
    }

    TEST_CASE("what does not know its size: /proc, a pipe") {
        tg::runtime runtime{{.cores = 1}};
        runtime.run([]() -> tg::task<> {
            tg::file::handle proc = co_await tg::file::open("/proc/self/status", tg::file::read);
            const bytes all = co_await proc.read_all();
            CHECK(text_of(all).starts_with("Name:"));

            int ends[2];
            REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
            tg::file::handle in(ends[0], "the pipe");
            tg::file::handle out(ends[1], "the pipe");
            const bytes much =
                noise(300'000, 3);  // more than a pipe holds, and than the first guess
            const auto reading = [](tg::file::handle& from) -> tg::task<bytes> {
                co_return co_await from.read_all();
            };
            const auto writing = [](tg::file::handle& to, const bytes& what) -> tg::task<> {
                co_await to.write_all(what);
                co_await to.close();
            };
            auto [back, nothing] =
                co_await tg::when_all(tg::as_token(reading(in)), tg::as_token(writing(out, much)));
            static_cast<void>(nothing);
            CHECK(back == much);

            // Short reads: each brings what is there, read_all waits for all.
            REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
            in = tg::file::handle(ends[0], "the pipe");
            out = tg::file::handle(ends[1], "the pipe");
            bytes buffer(10);
            const auto filling = [](tg::file::handle& from, bytes& into) -> tg::task<std::size_t> {
                co_return co_await from.read_all(into);
            };
            const auto dripping = [](tg::file::handle& to) -> tg::task<> {
                for (int i = 0; i < 10; ++i) {
                    co_await to.write(as_bytes("x"));
                    co_await some_turns();
                }
            };
            auto [filled, none] = co_await tg::when_all(tg::as_token(filling(in, buffer)),
                                                        tg::as_token(dripping(out)));
            static_cast<void>(none);
            CHECK(filled == 10);
            CHECK(text_of(buffer) == "xxxxxxxxxx");
        });
    }

    TEST_CASE("a handle: moved, empty, closed, closed twice") {
        const scratch here;
        tg::runtime runtime{{.cores = 1}};
        const std::string path = here / "f";
        runtime.run([&]() -> tg::task<> {
            co_await write_file(path, "abc");
            tg::file::handle f = co_await tg::file::open(path, tg::file::read);
            const int descriptor = f.descriptor();
            tg::file::handle g = std::move(f);
            CHECK(g.descriptor() == descriptor);
            CHECK(!f.is_open());
            bytes buffer(3);
            const std::size_t n = co_await g.read(buffer);
            CHECK(n == 3);
            tg::file::handle& same = g;
            g = std::move(same);
            CHECK(g.is_open());
            f = co_await tg::file::open(path, tg::file::read);
            g = std::move(f);
            const std::size_t again = co_await g.read(buffer);
            CHECK(again == 3);
            co_await g.close();
            CHECK(::fcntl(g.descriptor(), F_GETFD) == -1);
        });
        CHECK(thrown_by(runtime, []() -> tg::task<> {
                  tg::file::handle none;
                  bytes buffer(3);
                  co_await none.read(buffer);
              }) == "read from a file that is not open failed: Bad file descriptor");
        CHECK(thrown_by(runtime, [&]() -> tg::task<> {
                  tg::file::handle f = co_await tg::file::open(path, tg::file::read);
                  co_await f.close();
                  co_await f.sync();
              }) == "sync of " + path + " failed: Bad file descriptor");
        CHECK(thrown_by(runtime, [&]() -> tg::task<> {
                  tg::file::handle f = co_await tg::file::open(path, tg::file::read);
                  co_await f.close();
                  co_await f.close();
              }) == "close of " + path + " failed: Bad file descriptor");
    }

    TEST_CASE(
        "descriptors are closed by the destructor: on a loop, on a foreign thread, and with the "
        "runtime gone") {
        const scratch here;
        std::optional<tg::file::handle> left;
        std::optional<tg::file::handle> elsewhere;
        const std::size_t before = open_descriptors();
        const std::size_t frames = live_slots();
        {
            tg::runtime runtime{{.cores = 2}};
            runtime.run([&]() -> tg::task<> {
                const std::string path = here / "f";
                co_await write_file(path, "abc");
                const auto open_and_leave = [](std::string name) -> tg::task<> {
                    tg::file::handle f = co_await tg::file::open(std::move(name), tg::file::read);
                    bytes buffer(3);
                    co_await f.read(buffer);
                };
                for (unsigned i = 0; i < 2000; ++i)
                    co_await tg::as_token(open_and_leave(path), i % 2);
                left.emplace(co_await tg::file::open(path, tg::file::read));
                elsewhere.emplace(co_await tg::file::open(path, tg::file::read));
            });
            std::thread([&] { elsewhere.reset(); }).join();
        }
        CHECK(open_descriptors() == before + 1);
        left.reset();
        CHECK(open_descriptors() == before);
        CHECK(live_slots() == frames);
    }

    TEST_CASE("errors name the operation and the file") {
        const scratch here;
        tg::runtime runtime{{.cores = 1}};
        const std::string missing = here / "missing";
        const std::string path = here / "f";
        runtime.run([&] { return write_file(path, "abc"); });

        try {
            runtime.run([&]() -> tg::task<> {
                auto f = co_await tg::file::open(missing, tg::file::read);
            });
            FAIL("opened");
        } catch (const std::system_error& error) {
            CHECK(error.code() == std::errc::no_such_file_or_directory);
            CHECK(error.code().category() == std::system_category());
            CHECK(error.what() == "open of " + missing + " failed: No such file or directory");
        }
        using namespace tg::file;
        CHECK(thrown_by(runtime, [&]() -> tg::task<> {
                  auto f = co_await tg::file::open(here.path(), tg::file::write);
              }) == "open of " + here.path() + " failed: Is a directory");
        CHECK(thrown_by(runtime, [&]() -> tg::task<> {
                  auto f = co_await tg::file::open(here.path(), tg::file::read);
                  bytes buffer(3);
                  co_await f.read(buffer);
              }) == "read from " + here.path() + " failed: Is a directory");
        CHECK(thrown_by(runtime, [&]() -> tg::task<> {
                  auto f = co_await tg::file::open(path, tg::file::write | create | exclusive);
              }) == "open of " + path + " failed: File exists");
        CHECK(thrown_by(runtime, [&]() -> tg::task<> {
                  auto f = co_await tg::file::open(path, tg::file::read);
                  co_await f.write_all(as_bytes("x"));
              }) == "write to " + path + " failed: Bad file descriptor");
        CHECK(thrown_by(runtime, [&]() -> tg::task<> {
                  auto f = co_await tg::file::open(path, tg::file::read);
                  co_await f.read_all();
                  co_await f.truncate(1);
              }) == "truncation of " + path + " failed: Invalid argument");
        CHECK(thrown_by(runtime, [&]() -> tg::task<> {
                  auto f = co_await tg::file::open(path, tg::file::write);
                  co_await f.allocate(0, 0);
              }) == "allocation in " + path + " failed: Invalid argument");
        CHECK(thrown_by(runtime, [&]() -> tg::task<> {
                  auto f = co_await tg::file::open(path, tg::file::write);
                  co_await f.write_at(as_bytes("x"), ~std::uint64_t{0});
              }) == "write to " + path + " failed: Invalid argument");
        CHECK(thrown_by(runtime, [&]() -> tg::task<> {
                  auto f = co_await tg::file::open(std::string("a\0b", 3), tg::file::read);
              }) == R"(open of a\0... failed: Invalid argument)");
        CHECK(thrown_by(runtime,
                        [&]() -> tg::task<> { auto f = co_await tg::file::open(path, create); }) ==
              "configuration_error: open of " + path +
                  " names neither file::read nor file::write nor file::append");
        CHECK(thrown_by(runtime,
                        [&]() -> tg::task<> {
                            auto f =
                                co_await tg::file::open(path, tg::file::read | tg::file::truncate);
                        }) ==
              "configuration_error: open of " + path + " names file::truncate without file::write");
        CHECK(std::filesystem::file_size(path) == 3);
        CHECK(thrown_by(runtime,
                        [&]() -> tg::task<> {
                            auto f = co_await tg::file::open(path, tg::file::write | exclusive);
                        }) == "configuration_error: open of " + path +
                                  " names file::exclusive without file::create");
        CHECK(thrown_by(runtime, [&]() -> tg::task<> {
                  auto f = co_await tg::file::open("", tg::file::read);
              }) == "open of  failed: No such file or directory");
        if (::geteuid() == 0) {
            MESSAGE("permissions do not hold for root: EACCES is not tested");
        } else {
            REQUIRE(::chmod(path.c_str(), 0) == 0);
            CHECK(thrown_by(runtime, [&]() -> tg::task<> {
                      auto f = co_await tg::file::open(path, tg::file::read);
                  }) == "open of " + path + " failed: Permission denied");
        }
    }

    TEST_CASE("outside of a loop") {
        tg::file::handle none;
        bytes buffer(1);
        auto reading = none.read(buffer);
        CHECK_THROWS_AS(reading.await_suspend(std::noop_coroutine()), std::system_error);
        tg::file::handle null(::open("/dev/null", O_RDWR | O_CLOEXEC), "/dev/null");
        auto writing = null.write(buffer);
        CHECK_THROWS_AS(writing.await_suspend(std::noop_coroutine()), tg::wrong_thread);
        auto closes = null.close();
        CHECK_THROWS_AS(closes.await_suspend(std::noop_coroutine()), tg::wrong_thread);
        CHECK(null.is_open());
    }

    TEST_CASE("a device that is always full") {
        tg::runtime runtime{{.cores = 1}};
        const std::string full = "write to /dev/full failed: No space left on device";
        CHECK(thrown_by(runtime, []() -> tg::task<> {
                  tg::file::handle f = co_await tg::file::open("/dev/full", tg::file::write);
                  co_await f.write(as_bytes("x"));
              }) == full);
        CHECK(thrown_by(runtime, []() -> tg::task<> {
                  tg::file::handle f = co_await tg::file::open("/dev/full", tg::file::write);
                  const std::array<std::span<const std::byte>, 2> pieces{as_bytes("x"),
                                                                         as_bytes("y")};
                  co_await f.write_all(pieces);
              }) == full);
    }

    TEST_CASE("no room left on a file system") {
        const scratch here;
        if (::mount("file_test", here.path().c_str(), "tmpfs", 0, "size=1m") != 0) {
            MESSAGE("no tmpfs can be mounted: what was written before it was full is not tested");
            return;
        }
        tg::runtime runtime{{.cores = 1}};
        const std::string path = here / "f";
        std::uint64_t position = 0;
        const std::string text = thrown_by(runtime, [&]() -> tg::task<> {
            tg::file::handle f = co_await tg::file::open(path, tg::file::write | tg::file::create);
            const bytes all = noise(3 << 20, 4);
            try {
                co_await f.write_all(all);
            } catch (...) {
                position = f.position();
                throw;
            }
        });
        CHECK(text == "write to " + path + " failed: No space left on device");
        CHECK(position > 0);
        CHECK(position <= 1 << 20);
        CHECK(thrown_by(runtime, [&]() -> tg::task<> {
                  tg::file::handle f = co_await tg::file::open(path, tg::file::write);
                  co_await f.allocate(0, 2 << 20);
              }) == "allocation in " + path + " failed: No space left on device");
        CHECK(::umount2(here.path().c_str(), MNT_DETACH) == 0);
    }

    TEST_CASE("no descriptor left") {
        const scratch here;
        const std::string path = here / "f";
        const auto child = in_child([&] {
            tg::runtime runtime{{.cores = 1}};
            return runtime.run([&]() -> tg::task<std::string> {
                co_await write_file(path, "abc");
                rlimit limit{};
                ::getrlimit(RLIMIT_NOFILE, &limit);
                limit.rlim_cur = 64;
                ::setrlimit(RLIMIT_NOFILE, &limit);
                std::vector<tg::file::handle> all;
                std::string text;
                try {
                    for (int i = 0; i < 100; ++i) all.push_back(co_await open_then_raise(path));
                } catch (const std::system_error& error) {
                    text = error.what();
                }
                ::setrlimit(RLIMIT_NOFILE, &limit);
                all.clear();  // and then there are some again
                for (int i = 0; i < 100; ++i) {
                    const std::string again = co_await read_file(path);
                    if (again != "abc") text += " and then " + again;
                }
                co_return text;
            });
        });
        CHECK(child.ended);
        CHECK(child.said == "open of " + path + " failed: Too many open files");
        CHECK(child.complained == "");
    }

    TEST_CASE("a stop before: nothing is done") {
        const scratch here;
        tg::runtime runtime{{.cores = 1}};
        const std::string path = here / "f";
        runtime.run([&]() -> tg::task<> {
            co_await write_file(path, "abc");
            tg::file::handle f = co_await tg::file::open(path, tg::file::read | tg::file::write);
            std::atomic<bool> begun{false};
            const auto try_all = [](tg::file::handle& file, std::string name,
                                    std::atomic<bool>& running) -> tg::task<int> {
                running = true;
                while (!tg::this_token::stop_requested()) co_await tg::yield();
                bytes buffer(3, std::byte{'x'});
                int refused = 0;
                const auto expect = [&refused](std::string text, std::string_view end) {
                    CHECK(text.ends_with(end));
                    ++refused;
                };
                std::string said;
                try {
                    co_await file.read(buffer);
                } catch (const tg::token_stopped& e) {
                    said = e.what();
                }
                expect(std::exchange(said, ""),
                       "was asked to stop: it did not read from the file " + name);
                try {
                    co_await file.write_all(buffer);
                } catch (const tg::token_stopped& e) {
                    said = e.what();
                }
                expect(std::exchange(said, ""),
                       "was asked to stop: it did not write to the file " + name);
                try {
                    co_await file.read_all();
                } catch (const tg::token_stopped& e) {
                    said = e.what();
                }
                expect(std::exchange(said, ""),
                       "was asked to stop: it did not read from the file " + name);
                try {
                    co_await file.truncate(0);
                } catch (const tg::token_stopped& e) {
                    said = e.what();
                }
                expect(std::exchange(said, ""),
                       "was asked to stop: it did not truncate the file " + name);
                try {
                    co_await file.sync();
                } catch (const tg::token_stopped& e) {
                    said = e.what();
                }
                expect(std::exchange(said, ""),
                       "was asked to stop: it did not sync the file " + name);
                try {
                    auto other =
                        co_await tg::file::open(name + "2", tg::file::write | tg::file::create);
                } catch (const tg::token_stopped& e) {
                    said = e.what();
                }
                expect(std::exchange(said, ""),
                       "was asked to stop: it did not open the file " + name + "2");
                try {
                    co_await tg::fs::remove(name);
                } catch (const tg::token_stopped& e) {
                    said = e.what();
                }
                expect(std::exchange(said, ""), "was asked to stop: it did not remove a file");
                try {
                    co_await tg::fs::list_directory("/");
                } catch (const tg::token_stopped&) {
                    ++refused;
                }
                co_return refused;
            };
            tg::token<int> token = tg::as_token(try_all(f, path, begun));
            token.admit();
            while (!begun) co_await tg::yield();
            token.request_stop();
            const int refused = co_await std::move(token);
            CHECK(refused == 8);
            const std::string text = co_await read_file(path);
            CHECK(text == "abc");
            CHECK(f.is_open());
            CHECK(f.position() == 0);
            co_await f.close();
            CHECK(!std::filesystem::exists(path + "2"));
        });
    }

    TEST_CASE("a token that has been asked to stop closes all the same") {
        const scratch here;
        const std::size_t before = open_descriptors();
        {
            tg::runtime runtime{{.cores = 1}};
            runtime.run([&]() -> tg::task<> {
                const std::string path = here / "f";
                co_await write_file(path, "abc");
                const std::size_t others = open_descriptors();
                tg::file::handle f = co_await tg::file::open(path, tg::file::read);
                bool begun = false;  // on this loop, as all of it
                const auto cleaning_up = [](tg::file::handle& file, bool& runs) -> tg::task<> {
                    runs = true;
                    while (!tg::this_token::stop_requested()) co_await tg::yield();
                    co_await file.close();
                };
                tg::token<> token = tg::as_token(cleaning_up(f, begun));
                token.admit();
                while (!begun) co_await tg::yield();
                token.request_stop();
                co_await std::move(token);
                CHECK(!f.is_open());
                CHECK(open_descriptors() == others);
            });
        }
        CHECK(open_descriptors() == before);
    }

    TEST_CASE("the position of a file that is being closed is nobody's") {
        const scratch here;
        tg::runtime runtime{{.cores = 1}};
        runtime.run([&]() -> tg::task<> {
            const std::string path = here / "f";
            co_await write_file(path, "abc");
            tg::file::handle f = co_await tg::file::open(path, tg::file::read);
            close_then_look closing(f);
            co_await closing;
            CHECK(closing.said() == "seek in " + path + " failed: Bad file descriptor");
        });
    }

    TEST_CASE(
        "a stop during: a read that would wait for ever ends, and the file can be used again") {
        const scratch here;
        const std::string path = here / "fifo";
        REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
        const std::size_t frames = live_slots();
        const std::size_t before = open_descriptors();
        {
            tg::runtime runtime{{.cores = 2}};
            runtime.run([&]() -> tg::task<> {
                tg::file::handle f =
                    co_await tg::file::open(path, tg::file::read | tg::file::write);
                const auto one = [](tg::file::handle& file, bytes& into) -> tg::task<std::size_t> {
                    co_return co_await file.read(into);
                };
                const auto all = [](tg::file::handle& file, bytes& into) -> tg::task<std::size_t> {
                    co_return co_await file.read_all(into);
                };
                const auto pieces = [](tg::file::handle& file,
                                       bytes& into) -> tg::task<std::size_t> {
                    const std::array<std::span<std::byte>, 2> halves{std::span(into).first(5),
                                                                     std::span(into).subspan(5)};
                    co_return co_await file.read_all(halves);
                };
                const auto whole = [](tg::file::handle& file,
                                      bytes& into) -> tg::task<std::size_t> {
                    into = co_await file.read_all();
                    co_return into.size();
                };
                bytes buffer(10);
                for (unsigned round = 0; round < 40; ++round) {
                    const bool with_some =
                        round % 2 == 1 && round % 8 >= 2;  // of which the _all forms want more
                    if (with_some) co_await f.write_all(as_bytes("abc"));
                    tg::task<std::size_t> work = round % 8 < 2   ? one(f, buffer)
                                                 : round % 8 < 4 ? all(f, buffer)
                                                 : round % 8 < 6 ? pieces(f, buffer)
                                                                 : whole(f, buffer);
                    tg::token<std::size_t> token = tg::as_token(std::move(work), round / 8 % 2);
                    token.admit();
                    if (round >= 16) co_await some_turns();
                    if (with_some) {
                        // It has begun: what is there is gone.
                        for (int there = 3; there != 0; co_await tg::yield())
                            REQUIRE(::ioctl(f.descriptor(), FIONREAD, &there) == 0);
                    }
                    token.request_stop();
                    bool stopped = false;
                    try {
                        co_await std::move(token);
                    } catch (const tg::token_stopped&) {
                        stopped = true;
                    }
                    CHECK(stopped);
                }
                co_await f.write_all(as_bytes("0123456789"));
                const std::size_t n = co_await f.read_all(buffer);
                CHECK(n == 10);
                CHECK(text_of(buffer) == "0123456789");
            });
        }
        CHECK(open_descriptors() == before);
        CHECK(live_slots() == frames);
    }

    TEST_CASE("close while others read: refused, then done") {
        int ends[2];
        REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
        tg::runtime runtime{{.cores = 1}};
        runtime.run([&]() -> tg::task<> {
            tg::file::handle in(ends[0], "the pipe");
            tg::file::handle out(ends[1], "the pipe");
            bytes buffer(1);
            bool begun =
                false;  // on this loop, as all of it: who sees it set finds the reader waiting
            const auto reading = [](tg::file::handle& from, bytes& into,
                                    bool& reads) -> tg::task<> {
                reads = true;
                co_await from.read(into);
            };
            const auto body = [&](tg::scope& jobs) -> tg::task<> {
                co_await jobs.spawn(reading(in, buffer, begun));
                while (!begun) co_await tg::yield();
                std::string text;
                try {
                    co_await in.close();
                } catch (const std::system_error& error) {
                    text = error.what();
                }
                CHECK(text == "close of the pipe failed: Device or resource busy");
                co_await out.write(as_bytes("x"));
            };
            co_await tg::with_scope(body);
            co_await in.close();
        });
    }

    TEST_CASE("to destroy a handle that is in use ends the process with a text") {
        const auto child = in_child([]() -> std::string {
            int ends[2];
            if (::pipe2(ends, O_CLOEXEC) != 0) return "no pipe";
            tg::runtime runtime{{.cores = 1}};
            runtime.run([&]() -> tg::task<> {
                auto in = std::make_unique<tg::file::handle>(ends[0], "the pipe");
                bytes buffer(1);
                bool begun = false;
                const auto reading = [](tg::file::handle& from, bytes& into,
                                        bool& reads) -> tg::task<> {
                    reads = true;
                    co_await from.read(into);
                };
                const auto body = [&](tg::scope& jobs) -> tg::task<> {
                    co_await jobs.spawn(reading(*in, buffer, begun));
                    while (!begun) co_await tg::yield();
                    in.reset();
                };
                co_await tg::with_scope(body);
            });
            return "lived on";
        });
        CHECK(!child.ended);
        CHECK(child.complained.find(
                  "tokengate: the handle of the pipe was destroyed while operations on it were in "
                  "flight: let the token that owns it await them all first") != std::string::npos);
    }

    TEST_CASE(
        "many at once, by position: from one token, and from every core; a ring of 8 entries") {
        const scratch here;
        const std::size_t frames = live_slots();
        const std::size_t descriptors = open_descriptors();
        for (const unsigned entries : {256U, 8U}) {
            tg::runtime runtime{{.cores = 2, .ring_entries = entries}};
            runtime.run([&]() -> tg::task<> {
                constexpr std::size_t block = 512, blocks = 2048;
                const bytes all = noise(block * blocks, 5);
                tg::file::handle f =
                    co_await tg::file::open(here / "f",
                                            tg::file::read | tg::file::write | tg::file::create);

                std::atomic<int> wrong{0};
                const auto put = [](tg::file::handle& to, std::span<const std::byte> from,
                                    std::uint64_t offset) -> tg::task<> {
                    co_await to.write_all_at(from, offset);
                };
                const auto get = [](const tg::file::handle& from,
                                    std::span<const std::byte> expected, std::uint64_t offset,
                                    std::atomic<int>& failures) -> tg::task<> {
                    std::array<std::byte, block> buffer;
                    const std::size_t n = co_await from.read_at(buffer, offset);
                    if (n != block || !std::equal(buffer.begin(), buffer.end(), expected.begin()))
                        ++failures;
                };
                std::vector<tg::token<>> writes;
                for (std::size_t i = 0; i < blocks; ++i)
                    writes.push_back(tg::as_token(
                        put(f, std::span(all).subspan(i * block, block), i * block), i % 2));
                co_await tg::when_all(std::move(writes));

                const auto read_many = [&](tg::scope& jobs) -> tg::task<> {
                    for (std::size_t i = 0; i < 5000; ++i) {
                        const std::size_t at = i * 769 % blocks * block;
                        co_await jobs.spawn(get(f, std::span(all).subspan(at, block), at, wrong));
                    }
                };
                co_await tg::with_scope(tg::scope_options{.limit = 64}, read_many);

                std::vector<tg::token<>> reads;
                for (std::size_t i = 0; i < 5000; ++i) {
                    const std::size_t at = i * 1021 % blocks * block;
                    reads.push_back(
                        tg::as_token(get(f, std::span(all).subspan(at, block), at, wrong), i % 2));
                }
                co_await tg::when_all(std::move(reads));
                CHECK(wrong == 0);
            });
        }
        CHECK(open_descriptors() == descriptors);
        CHECK(live_slots() == frames);
    }

    TEST_CASE(
        "registered buffers: on their loop, elsewhere, given back, more than there are slots") {
        const scratch here;
        const std::size_t frames = live_slots();
        std::optional<tg::registered_buffer> left;
        {
            tg::runtime runtime{{.cores = 2}};
            runtime.run([&]() -> tg::task<> {
                tg::file::handle f =
                    co_await tg::file::open(here / "f",
                                            tg::file::read | tg::file::write | tg::file::create);
                const auto use = [](tg::file::handle& file,
                                    const tg::registered_buffer& buffer) -> tg::task<> {
                    std::memcpy(buffer.bytes().data(), "abcdefgh", 8);
                    std::size_t n = co_await file.write_at(buffer, 0, 8);
                    CHECK(n == 8);
                    std::memset(buffer.bytes().data(), 0, 8);
                    n = co_await file.read_at(buffer, 2);
                    CHECK(n == 6);
                    CHECK(text_of(buffer.bytes().first(8)) == std::string("cdefgh\0\0", 8));
                };
                tg::registered_buffer buffer(4096);
                CHECK(buffer.is_registered());
                CHECK(buffer.slot_here() >= 0);
                CHECK(buffer.bytes().size() == 4096);
                co_await use(f, buffer);
                tg::registered_buffer moved = std::move(buffer);
                CHECK(buffer.bytes().empty());
                co_await use(f, moved);
                co_await tg::as_token(use(f, moved), 0);  // another loop
                // Asked for here, awaited there: the kernel refuses the slot, and the plain operation is done.
                auto reading = f.read_at(moved, 0, 3);
                const auto waiting = [](tg::detail::transfer& read) -> tg::task<std::size_t> {
                    co_return co_await read;
                };
                const std::size_t n = co_await tg::as_token(waiting(reading), 1);
                CHECK(n == 3);

                std::vector<tg::registered_buffer> many;
                for (unsigned i = 0; i < tg::registered_buffer::slots_of_a_loop + 3; ++i)
                    many.emplace_back(64);
                CHECK(many.front().is_registered());
                CHECK(!many.back().is_registered());
                co_await use(f, many.front());
                co_await use(f, many.back());
                many.clear();
                for (int i = 0; i < 3; ++i) {
                    tg::registered_buffer again(64);
                    CHECK(again.is_registered());
                }
                left.emplace(64);
                CHECK_THROWS_AS(tg::registered_buffer(0), tg::configuration_error);
            });
        }
        CHECK(left->slot_here() == -1);
        left.reset();
        CHECK_THROWS_AS(tg::registered_buffer(64), tg::wrong_thread);
        CHECK(live_slots() == frames);
    }

    TEST_CASE("stress: reads of pipes that are stopped at any time") {
        constexpr unsigned seed = 20240607;
        MESSAGE("seed " << seed);
        std::mt19937 random(seed);
        const auto before = std::signal(SIGPIPE, SIG_IGN);
        const std::size_t frames = live_slots();
        const std::size_t descriptors = open_descriptors();
        {
            tg::runtime runtime{{.cores = 2, .ring_entries = 16}};
            runtime.run([&]() -> tg::task<> {
                const auto reading = [](tg::file::handle in,
                                        unsigned want) -> tg::task<std::size_t> {
                    bytes buffer(want);
                    co_return co_await in.read_all(buffer);
                };
                for (int round = 0; round < 100; ++round) {
                    std::vector<tg::token<std::size_t>> tokens;
                    std::vector<tg::file::handle> outs;
                    for (unsigned i = 0; i < 16; ++i) {
                        int ends[2];
                        REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
                        outs.emplace_back(ends[1], "a pipe");
                        tokens.push_back(
                            tg::as_token(reading({ends[0], "a pipe"}, 1 + random() % 8), i % 2));
                        tokens.back().admit();
                    }
                    for (unsigned step = 0; step < 64; ++step) {
                        const std::size_t at = random() % 16;
                        if (random() % 4 == 0)
                            tokens[at].request_stop();
                        else if (random() % 8 == 0)
                            co_await tg::yield();
                        else if (outs[at].is_open())
                            static_cast<void>(!::write(outs[at].descriptor(), "x", 1));
                    }
                    for (tg::file::handle& each : outs) co_await each.close();
                    for (tg::token<std::size_t>& each : tokens) {
                        try {
                            const std::size_t n = co_await std::move(each);
                            CHECK(n <= 8);
                        } catch (const tg::token_stopped&) {}
                    }
                }
            });
        }
        std::signal(SIGPIPE, before);
        CHECK(open_descriptors() == descriptors);
        CHECK(live_slots() == frames);
    }
}
