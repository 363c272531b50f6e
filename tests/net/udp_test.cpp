// SPDX-License-Identifier: MIT

#include <tokengate/udp.hpp>

#include "support/io.hpp"

#include <tokengate/error.hpp>
#include <tokengate/operation.hpp>
#include <tokengate/runtime.hpp>
#include <tokengate/time.hpp>
#include <tokengate/when_all.hpp>

#include <doctest/doctest.h>

#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <set>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace tg = tokengate;
using namespace std::chrono_literals;
using tg::test::after_a_stop;
using tg::test::bytes_of;
using tg::test::run_cleanly;
using tg::test::text_of;
using tg::test::thrown_by;
using tg::test::until;

namespace {

tg::task<std::string> receive_text(tg::udp::socket* from) {
    std::array<std::byte, 2048> into;
    const tg::udp::received got = co_await from->receive_from(into);
    co_return text_of(std::span(into).first(got.size));
}
tg::task<std::string> receive_known(tg::udp::socket* from) {
    std::array<std::byte, 16> into;
    const tg::udp::received got = co_await from->receive(into);
    co_return text_of(std::span(into).first(got.size));
}
tg::task<std::string> receive_counted(tg::udp::socket* from, int* begun) {
    ++*begun;
    const std::string text = co_await receive_known(from);
    co_return text;
}
tg::task<> send_there(tg::udp::socket* by, std::span<const std::byte> bytes, tg::endpoint to) {
    co_await by->send_to(bytes, to);
}
tg::task<> close_it(tg::udp::socket* which) { co_await which->close(); }
/// Where nobody is.
tg::endpoint deserted() {
    const tg::udp::socket closed = tg::udp::socket::bind(tg::endpoint::loopback_v4(0));
    return closed.local_endpoint();
}
tg::task<> send_it(tg::udp::socket* by, std::span<const std::byte> bytes) {
    co_await by->send(bytes);
}
const tg::operation receives{{.name = "udp_test_receives"}, receive_text};

}  // namespace

TEST_SUITE("udp") {
    TEST_CASE("datagrams there and back, over both families") {
        run_cleanly([]() -> tg::task<> {
            for (const tg::endpoint& any :
                 {tg::endpoint::loopback_v4(0), tg::endpoint::loopback_v6(0)}) {
                tg::udp::socket server = tg::udp::socket::bind(any);
                tg::udp::socket client = tg::udp::socket::connect(server.local_endpoint());
                for (int i = 0; i < 100; ++i) {
                    const std::string text = "datagram " + std::to_string(i);
                    co_await client.send(bytes_of(text));
                    std::array<std::byte, 64> into;
                    const auto [size, from, truncated] = co_await server.receive_from(into);
                    CHECK(text_of(std::span(into).first(size)) == text);
                    CHECK(from == client.local_endpoint());
                    CHECK_FALSE(truncated);
                    co_await server.send_to(std::span(into).first(size), from);
                    const tg::udp::received back = co_await client.receive(into);
                    CHECK(back.size == text.size());
                    CHECK(back.from == server.local_endpoint());
                }
            }
        });
    }

    TEST_CASE("what does not fit is cut off, and said; an empty datagram is one") {
        run_cleanly([]() -> tg::task<> {
            tg::udp::socket server = tg::udp::socket::bind(tg::endpoint::loopback_v4(0));
            tg::udp::socket client = tg::udp::socket::connect(server.local_endpoint());
            co_await client.send(bytes_of("0123456789"));
            co_await client.send({});
            co_await client.send(bytes_of("rest"));
            std::array<std::byte, 4> into;
            const tg::udp::received first = co_await server.receive_from(into);
            CHECK(first.size == 4);
            CHECK(first.truncated);
            CHECK(text_of(into) == "0123");
            const tg::udp::received second = co_await server.receive_from(into);
            CHECK(second.size == 0);
            CHECK_FALSE(second.truncated);
            CHECK(second.from == client.local_endpoint());
            const tg::udp::received third = co_await server.receive_from(into);
            CHECK(text_of(std::span(into).first(third.size)) == "rest");
        });
    }

    TEST_CASE("errors name the peer") {
        run_cleanly([]() -> tg::task<> {
            const tg::endpoint gone = deserted();
            tg::udp::socket client = tg::udp::socket::connect(gone);
            co_await client.send(bytes_of("anybody?"));
            const std::string text = co_await thrown_by<std::system_error>(receive_text(&client));
            CHECK(text == "receive a datagram (" + gone.text() + "): Connection refused");
            const std::vector<std::byte> huge(70'000);
            const std::string long_text =
                co_await thrown_by<std::system_error>(send_it(&client, huge));
            CHECK(long_text.find("Message too long") != std::string::npos);
            CHECK_THROWS_AS(static_cast<void>(tg::udp::socket::bind(tg::endpoint::local("@x"))),
                            tg::configuration_error);
            const tg::udp::socket first = tg::udp::socket::bind(tg::endpoint::loopback_v4(0));
            std::string in_use;
            try {
                const tg::udp::socket second = tg::udp::socket::bind(first.local_endpoint());
            } catch (const std::system_error& error) {
                in_use = error.what();
            }
            CHECK(in_use.find(first.local_endpoint().text()) != std::string::npos);
        });
    }

    TEST_CASE("many receive at once; a stop and a close end the wait") {
        run_cleanly([]() -> tg::task<> {
            tg::udp::socket server = tg::udp::socket::bind(tg::endpoint::loopback_v4(0));
            tg::udp::socket client = tg::udp::socket::bind(tg::endpoint::loopback_v4(0));
            std::vector<tg::token<std::string>> all;
            for (int i = 0; i < 16; ++i) {
                all.push_back(receives(&server));
                all.back().admit();
            }
            for (int i = 0; i < 16; ++i)
                co_await client.send_to(bytes_of(std::to_string(i)), server.local_endpoint());
            std::set<std::string> got;
            for (auto& each : all) got.insert(co_await each);
            CHECK(got.size() == 16);

            std::string text;
            try {
                co_await tg::with_timeout(receive_text(&server), 1ms);
            } catch (const tg::token_timeout& error) {
                text = error.what();
            }
            CHECK(text.find("token_timeout") == 0);

            tg::token<std::string> waiting =
                as_token(thrown_by<tg::socket_closed>(receive_text(&server)));
            waiting.admit();
            co_await tg::yield();  // waiting by then or not yet
            co_await server.close();
            CHECK((co_await waiting).find("socket_closed") == 0);
            const std::string later =
                co_await thrown_by<tg::socket_closed>(send_it(&server, bytes_of("x")));
            CHECK(later.find("socket_closed") == 0);
        });
    }

    TEST_CASE("a peer may be set later") {
        run_cleanly([]() -> tg::task<> {
            tg::udp::socket one = tg::udp::socket::bind(tg::endpoint::loopback_v4(0));
            tg::udp::socket other = tg::udp::socket::bind(tg::endpoint::loopback_v4(0));
            one.set_peer(other.local_endpoint());
            co_await one.send(bytes_of("hello"));
            const std::string text = co_await receive_text(&other);
            CHECK(text == "hello");
        });
    }

    TEST_CASE("errors name the peer that was set last") {
        run_cleanly([]() -> tg::task<> {
            tg::udp::socket there = tg::udp::socket::bind(tg::endpoint::loopback_v4(0));
            tg::udp::socket client = tg::udp::socket::connect(there.local_endpoint());
            for (int i = 0; i < 2; ++i) {
                const tg::endpoint gone = deserted();
                client.set_peer(gone);
                co_await client.send(bytes_of("anybody?"));
                const std::string text =
                    co_await thrown_by<std::system_error>(receive_text(&client));
                CHECK(text == "receive a datagram (" + gone.text() + "): Connection refused");
            }
        });
    }

    TEST_CASE("thousands receive at once") {
        static constexpr int many = 5000;
        run_cleanly([]() -> tg::task<> {
            tg::udp::socket server = tg::udp::socket::bind(tg::endpoint::loopback_v4(0));
            std::vector<tg::token<std::string>> all;
            int begun = 0;
            for (int i = 0; i < many; ++i) {
                all.push_back(
                    as_token(thrown_by<tg::socket_closed>(receive_counted(&server, &begun))));
                all.back().admit();
            }
            while (begun < many) co_await tg::yield();
            co_await server.close();
            int closed = 0;
            for (auto& each : all) {
                const std::string text = co_await each;
                if (text.find("socket_closed") == 0) ++closed;
            }
            CHECK(closed == many);
        });
    }

    TEST_CASE("after a stop nothing is begun: no datagram is sent, and none is taken") {
        run_cleanly([]() -> tg::task<> {
            tg::udp::socket server = tg::udp::socket::bind(tg::endpoint::loopback_v4(0));
            const tg::endpoint to = server.local_endpoint();
            tg::udp::socket client = tg::udp::socket::connect(to);
            const auto bytes = bytes_of("unwanted");
            std::vector<std::string> texts;
            texts.push_back(co_await after_a_stop(send_it(&client, bytes)));
            texts.push_back(co_await after_a_stop(send_there(&client, bytes, to)));
            char none;
            CHECK(::recv(server.descriptor(), &none, 1, MSG_DONTWAIT) == -1);
            CHECK(errno == EAGAIN);
            co_await client.send(bytes_of("kept"));
            texts.push_back(co_await after_a_stop(receive_text(&server)));
            texts.push_back(co_await after_a_stop(receive_known(&server)));
            for (const std::string& text : texts) {
                CAPTURE(text);
                CHECK(text.find(" was asked to stop: it did not ") != std::string::npos);
                CHECK(text.find(" a datagram (" + to.text() + ")") != std::string::npos);
            }
            const std::string kept = co_await receive_text(&server);
            CHECK(kept == "kept");
        });
    }

    TEST_CASE(
        "a stop does not keep a socket from closing; what is closed is named, and gives no "
        "descriptor") {
        run_cleanly([]() -> tg::task<> {
            const std::size_t descriptors = tg::test::open_descriptors();
            tg::udp::socket server = tg::udp::socket::bind(tg::endpoint::loopback_v4(0));
            const std::string where = server.local_endpoint().text();
            int begun = 0;
            tg::token<std::string> waiting =
                as_token(thrown_by<tg::socket_closed>(receive_counted(&server, &begun)));
            waiting.admit();
            while (begun == 0) co_await tg::yield();
            const std::string text = co_await after_a_stop(close_it(&server));
            CHECK(text == "(nothing)");
            CHECK_FALSE(server.is_open());
            CHECK(tg::test::open_descriptors() == descriptors);
            CHECK_THROWS_AS(static_cast<void>(server.descriptor()), tg::socket_closed);
            const std::string closed = "socket_closed: it did not receive a datagram (" + where +
                                       "): the socket has been closed";
            CHECK(co_await waiting == closed);
            const std::string later = co_await thrown_by<tg::socket_closed>(receive_text(&server));
            CHECK(later == closed);
        });
    }

    TEST_CASE("without a descriptor it says so, and what to do") {
        const auto child = tg::test::in_child([] {
            const rlimit few{8, 8};
            ::setrlimit(RLIMIT_NOFILE, &few);
            while (::dup(0) >= 0) {}
            try {
                static_cast<void>(tg::udp::socket::bind(tg::endpoint::loopback_v4(0)));
            } catch (const std::system_error& error) {
                return std::string(error.what());
            }
            return std::string("made");
        });
        CHECK(child.ended);
        CHECK(child.said.find("Too many open files") != std::string::npos);
        CHECK(child.said.find("ulimit -n") != std::string::npos);
    }
}
