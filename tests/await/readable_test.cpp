// SPDX-License-Identifier: MIT
#include <tokengate/readable.hpp>

#include <doctest/doctest.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <tokengate/detail/unique_fd.hpp>
#include <tokengate/error.hpp>
#include <tokengate/runtime.hpp>
#include <tokengate/task_token.hpp>
#include <tokengate/time.hpp>
#include <tokengate/token.hpp>

#include <array>
#include <chrono>
#include <string>
#include <system_error>
#include <utility>

#include "support/waiting.hpp"

namespace tg = tokengate;
using namespace std::chrono_literals;

namespace {

struct pipe_ends {
    tg::detail::unique_fd read, write;
};

pipe_ends make_pipe() {
    std::array<int, 2> ends{};
    REQUIRE(::pipe(ends.data()) == 0);
    return {tg::detail::unique_fd(ends[0]), tg::detail::unique_fd(ends[1])};
}

tg::task<std::string> read_when_readable(int descriptor) {
    std::array<char, 16> buffer{};
    co_await tg::readable(descriptor);
    const auto count = ::read(descriptor, buffer.data(), buffer.size());
    co_return std::string(buffer.data(), static_cast<std::size_t>(count));
}

tg::task<> wait_for(int descriptor) { co_await tg::readable(descriptor); }

}  // namespace

TEST_CASE("a descriptor that is readable already is no wait for anybody") {
    tg::runtime runtime{{.cores = 1}};
    const pipe_ends ends = make_pipe();
    REQUIRE(::write(ends.write.get(), "abc", 3) == 3);
    CHECK(runtime.run([&]() -> tg::task<std::string> {
        co_return co_await read_when_readable(ends.read.get());
    }) == "abc");
}

TEST_CASE("a body waits until a descriptor is readable, and the loop serves others meanwhile") {
    tg::runtime runtime{{.cores = 1}};
    const pipe_ends ends = make_pipe();
    const std::string got = runtime.run([&]() -> tg::task<std::string> {
        tg::token<std::string> reader = tg::as_token(read_when_readable(ends.read.get()));
        reader.admit();
        co_await tg::test::begun(reader);
        for (int i = 0; i < 3; ++i) co_await tg::yield();
        const auto written = ::write(ends.write.get(), "later", 5);
        REQUIRE(written == 5);
        co_return co_await std::move(reader);
    });
    CHECK(got == "later");
}

TEST_CASE("the end of a pipe is readable") {
    tg::runtime runtime{{.cores = 1}};
    pipe_ends ends = make_pipe();
    CHECK(runtime.run([&]() -> tg::task<std::string> {
        tg::token<std::string> reader = tg::as_token(read_when_readable(ends.read.get()));
        reader.admit();
        co_await tg::test::begun(reader);
        ends.write = tg::detail::unique_fd();
        co_return co_await std::move(reader);
    }) == "");
}

TEST_CASE("an epoll descriptor is readable when one of its own is") {
    tg::runtime runtime{{.cores = 1}};
    const tg::detail::unique_fd counter(::eventfd(0, EFD_CLOEXEC));
    const tg::detail::unique_fd poller(::epoll_create1(EPOLL_CLOEXEC));
    epoll_event wanted{};
    wanted.events = EPOLLIN;
    REQUIRE(::epoll_ctl(poller.get(), EPOLL_CTL_ADD, counter.get(), &wanted) == 0);
    runtime.run([&]() -> tg::task<> {
        tg::token<> waiting = tg::as_token(wait_for(poller.get()));
        waiting.admit();
        co_await tg::test::begun(waiting);
        REQUIRE(::eventfd_write(counter.get(), 1) == 0);
        co_await std::move(waiting);
    });
}

TEST_CASE("several tokens wait for one descriptor, and all are woken") {
    tg::runtime runtime{{.cores = 2}};
    const pipe_ends ends = make_pipe();
    runtime.run([&]() -> tg::task<> {
        tg::token<> here = tg::as_token(wait_for(ends.read.get()));
        tg::token<> there = tg::as_token(wait_for(ends.read.get()), 1);
        here.admit();
        there.admit();
        co_await tg::test::begun(here);
        co_await tg::test::begun(there);
        REQUIRE(::write(ends.write.get(), "x", 1) == 1);
        co_await std::move(here);
        co_await std::move(there);
    });
}

TEST_CASE("a stop ends the wait") {
    tg::runtime runtime{{.cores = 1}};
    const pipe_ends ends = make_pipe();
    const std::string said = runtime.run([&]() -> tg::task<std::string> {
        tg::token<> waiting = tg::as_token(wait_for(ends.read.get()));
        waiting.admit();
        co_await tg::test::begun(waiting);
        waiting.request_stop();
        try {
            co_await std::move(waiting);
        } catch (const tg::token_stopped& stopped) {
            co_return stopped.what();
        }
        co_return "was not stopped";
    });
    CHECK(said.find("it did not wait for a descriptor to be readable") != std::string::npos);
}

TEST_CASE("the wait can be limited; the descriptor can then be waited for again") {
    tg::runtime runtime{{.cores = 1}};
    const pipe_ends ends = make_pipe();
    const std::string got = runtime.run([&]() -> tg::task<std::string> {
        bool over = false;
        try {
            co_await tg::with_timeout(tg::readable(ends.read.get()), 1ms);
        } catch (const tg::token_timeout&) {
            over = true;
        }
        CHECK(over);
        REQUIRE(::write(ends.write.get(), "now", 3) == 3);
        co_return co_await read_when_readable(ends.read.get());
    });
    CHECK(got == "now");
}

TEST_CASE("what is no descriptor is an error that names it") {
    tg::runtime runtime{{.cores = 1}};
    runtime.run([]() -> tg::task<> {
        int code = 0;
        std::string said;
        try {
            co_await tg::readable(-1);
        } catch (const std::system_error& thrown) {
            code = thrown.code().value();
            said = thrown.what();
        }
        CHECK(code == EBADF);
        CHECK(said.find("tg::readable: descriptor -1") != std::string::npos);
    });
}
