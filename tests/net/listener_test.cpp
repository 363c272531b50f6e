// SPDX-License-Identifier: MIT

#include <tokengate/listener.hpp>

#include "support/io.hpp"
#include "support/manual_event.hpp"

#include <tokengate/error.hpp>
#include <tokengate/local.hpp>
#include <tokengate/operation.hpp>
#include <tokengate/runtime.hpp>
#include <tokengate/scope.hpp>
#include <tokengate/tcp.hpp>
#include <tokengate/this_token.hpp>
#include <tokengate/time.hpp>
#include <tokengate/when_all.hpp>

#include <doctest/doctest.h>

#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace tg = tokengate;
using namespace std::chrono_literals;
using tg::test::after_a_stop;
using tg::test::announced;
using tg::test::open_descriptors;
using tg::test::run_cleanly;
using tg::test::thrown_by;
using tg::test::until;

namespace {

tg::task<> accept_one(tg::listener* from) { tg::stream taken = co_await from->accept(); }
tg::task<> close_it(tg::listener* which) { co_await which->close(); }
tg::task<> connect_to(tg::endpoint to) { tg::stream made = co_await tg::tcp::connect(to); }
tg::task<> connect_within(tg::endpoint to, std::chrono::nanoseconds limit) {
    tg::stream made = co_await tg::tcp::connect(to, limit);
}
tg::task<> connect_locally(std::string path) {
    tg::stream made = co_await tg::local::connect(path);
}

/// As many clients as the kernel holds for a listener that accepts none of them.
class full_backlog {
public:
    full_backlog() : listener_(tg::tcp::listen(tg::endpoint::loopback_v4(0), {.backlog = 1})) {}
    tg::task<> fill() {
        bool full = false;
        while (!full) {
            try {
                clients_.push_back(co_await tg::tcp::connect(to(), 100ms));
            } catch (const std::system_error& error) {
                CHECK(error.code() == std::errc::timed_out);
                full = true;
            }
        }
    }
    [[nodiscard]] tg::endpoint to() const { return listener_.local_endpoint(); }

private:
    tg::listener listener_;
    std::vector<tg::stream> clients_;
};

tg::task<> serve_client(tg::tcp::stream client) {
    std::array<std::byte, 4096> buffer;
    while (std::size_t n = co_await client.read(buffer))
        co_await client.write_all(std::span(buffer).first(n));
}
const tg::operation serve{{.name = "listener_test_serve"}, serve_client};

/// Accepts on its own core, and says on which.
const tg::operation accepts_here{{.name = "listener_test_accepts_here"},
                                 [](tg::endpoint at, unsigned clients) -> tg::task<unsigned> {
                                     tg::listener mine = tg::tcp::listen(at);
                                     unsigned taken = 0;
                                     try {
                                         while (taken < clients) {
                                             tg::stream client = co_await mine.accept();
                                             ++taken;
                                         }
                                     } catch (const tg::token_stopped&) {}
                                     co_return taken;
                                 }};
const tg::operation accepts_from{
    {.name = "listener_test_accepts_from"},
    [](tg::listener* from) -> tg::task<tg::stream> { co_return co_await from->accept(); }};

}  // namespace

TEST_SUITE("listener") {
    TEST_CASE("nothing ahead: when nobody waits any more, nobody is accepted any more") {
        run_cleanly([]() -> tg::task<> {
            tg::listener listener = tg::tcp::listen({"127.0.0.1", 0}, {.accept_ahead = 0});
            for (int i = 0; i < 3; ++i) {
                const auto accept = [&]() -> tg::task<> {
                    co_await tg::with_timeout(listener.accept(), 1ms);
                };
                const std::string text = co_await thrown_by<tg::token_timeout>(accept());
                CHECK(text.find("token_timeout") == 0);
                tg::stream client = co_await tg::tcp::connect(listener.local_endpoint());
                pollfd waiting{listener.descriptor(), POLLIN, 0};
                CHECK(::poll(&waiting, 1, 10'000) == 1);  // it is still in the kernel's queue
                tg::stream server = co_await listener.accept();
                CHECK(server.remote_endpoint() == client.local_endpoint());
            }
        });
    }

    TEST_CASE("the echo server, with a scope of clients") {
        run_cleanly([]() -> tg::task<> {
            tg::endpoint at = tg::endpoint::loopback_v4(0);
            auto server = [&at](tg::scope& clients) -> tg::task<> {
                auto listener = tg::tcp::listen({"127.0.0.1", 0});
                at = listener.local_endpoint();
                for (;;) {
                    tg::tcp::stream client = co_await listener.accept();
                    co_await clients.spawn(serve(std::move(client)));
                }
            };
            tg::scope_options options{};
            options.on_failure = tg::on_failure::report;
            tg::token<> serving = as_token(tg::with_scope(options, server));
            serving.admit();
            while (at.port() == 0) co_await tg::yield();
            for (int i = 0; i < 50; ++i) {
                tg::stream client = co_await tg::tcp::connect(at);
                co_await client.write_all("hello");
                std::array<std::byte, 5> back;
                co_await client.read_all(back);
                CHECK(tg::test::text_of(back) == "hello");
            }
            serving.request_stop();
            bool stopped = false;
            try {
                co_await serving;
            } catch (const tg::token_stopped&) {
                stopped = true;
            }
            CHECK(stopped);
        });
    }

    TEST_CASE("IPv6 takes IPv4 clients unless told not to") {
        run_cleanly([]() -> tg::task<> {
            for (const bool only : {false, true}) {
                tg::listener listener = tg::tcp::listen(tg::endpoint::any_v6(0), {.v6_only = only});
                const tg::endpoint to = tg::endpoint::loopback_v4(listener.local_endpoint().port());
                const std::string text = co_await thrown_by<std::system_error>(connect_to(to));
                CHECK(text ==
                      (only ? "connect to (" + to.text() + "): Connection refused" : "(nothing)"));
            }
        });
    }

    TEST_CASE("a UNIX listener, as a file") {
        const std::string path = "/tmp/tokengate_listener_test_" + std::to_string(::getpid());
        ::unlink(path.c_str());
        run_cleanly([path]() -> tg::task<> {
            {
                tg::listener listener = tg::local::listen(path);
                CHECK(listener.local_endpoint().address() == path);
                std::string text;
                try {
                    const tg::listener second = tg::local::listen(path);
                } catch (const std::system_error& error) {
                    text = error.what();
                }
                CHECK(text.find("remove it") != std::string::npos);
                tg::stream client = co_await tg::local::connect(path, 5s);
                tg::stream server = co_await listener.accept();
                CHECK(client.remote_endpoint().address() == path);
                co_await client.write_all("x");
                std::array<std::byte, 1> one;
                CHECK(co_await server.read(one) == 1);
            }
            const std::string refused =
                co_await thrown_by<std::system_error>(connect_locally(path));
            CHECK(refused.find(path) != std::string::npos);
            CHECK(refused.find("refused") != std::string::npos);
        });
        ::unlink(path.c_str());
    }

    TEST_CASE("what cannot listen says where and why") {
        const tg::listener taken =
            tg::tcp::listen(tg::endpoint::loopback_v4(0), {.reuse_port = false});
        const std::string where = taken.local_endpoint().text();
        std::string text;
        try {
            const tg::listener second = tg::tcp::listen(taken.local_endpoint());
        } catch (const std::system_error& error) {
            text = error.what();
            CHECK(error.code() == std::errc::address_in_use);
        }
        CHECK(text.find(where) != std::string::npos);
        CHECK_THROWS_AS(static_cast<void>(tg::tcp::listen(tg::endpoint::local("@x"))),
                        tg::configuration_error);
        tg::listener none;
        CHECK_THROWS_AS(static_cast<void>(none.local_endpoint()), tg::socket_closed);
    }

    TEST_CASE("every core accepts for itself") {
        run_cleanly([]() -> tg::task<> {
            const tg::listener holds_the_port = tg::tcp::listen(tg::endpoint::loopback_v4(0));
            const tg::endpoint at = holds_the_port.local_endpoint();
            std::vector<tg::token<unsigned>> all;
            for (int i = 0; i < 3; ++i) {
                all.push_back(accepts_here(at, 1000));
                all.back().admit();
            }
            for (int i = 0; i < 100; ++i) co_await connect_to(at);
            unsigned taken = 0;
            for (auto& each : all) each.request_stop();
            for (auto& each : all) {
                try {
                    taken += co_await each;
                } catch (const tg::token_stopped&) {  // it had not started
                }
            }
            CHECK(taken <= 100);
        });
    }

    TEST_CASE("refused, and too late") {
        run_cleanly([]() -> tg::task<> {
            tg::endpoint nobody = tg::endpoint::loopback_v4(1);
            {
                const tg::listener gone = tg::tcp::listen(tg::endpoint::loopback_v4(0));
                nobody = gone.local_endpoint();
            }
            const std::string refused = co_await thrown_by<std::system_error>(connect_to(nobody));
            CHECK(refused == "connect to (" + nobody.text() + "): Connection refused");
            full_backlog busy;
            co_await busy.fill();
            const std::string late =
                co_await thrown_by<std::system_error>(connect_within(busy.to(), 1ms));
            CHECK(late == "connect to (" + busy.to().text() + ") in time: Connection timed out");
            const std::string never =
                co_await thrown_by<std::system_error>(connect_within(busy.to(), 0ms));
            CHECK(never.find("timed out") != std::string::npos);
            std::string stopped = "(nothing)";
            try {
                co_await tg::with_timeout(connect_to(busy.to()), 1ms);
            } catch (const tg::token_timeout& error) {
                stopped = error.what();
            }
            CHECK(stopped.find("token_timeout") == 0);
        });
    }

    TEST_CASE("a stop ends accept; what was accepted is kept") {
        run_cleanly([]() -> tg::task<> {
            for (const std::size_t ahead : {0, 1, 16}) {
                tg::listener listener =
                    tg::tcp::listen(tg::endpoint::loopback_v4(0), {.accept_ahead = ahead});
                int taken = 0, made = 0;
                for (int i = 0; i < 200; ++i) {
                    tg::token<tg::stream> accepting = accepts_from(&listener);
                    accepting.admit();
                    if (i % 2 == 0) {
                        tg::stream client = co_await tg::tcp::connect(listener.local_endpoint());
                        ++made;
                    }
                    accepting.request_stop();
                    try {
                        tg::stream one = co_await accepting;
                        ++taken;
                    } catch (const tg::token_stopped&) {}
                }
                while (taken < made) {
                    tg::stream one = co_await accepts_from(&listener);
                    ++taken;
                }
                CHECK(taken == made);
            }
        });
    }

    TEST_CASE("after a stop nothing is begun: no connection is made, and none is taken") {
        run_cleanly([]() -> tg::task<> {
            for (const std::size_t ahead : {0, 1, 16}) {
                tg::listener listener =
                    tg::tcp::listen(tg::endpoint::loopback_v4(0), {.accept_ahead = ahead});
                const tg::endpoint to = listener.local_endpoint();
                const std::string connecting = co_await after_a_stop(connect_to(to));
                CHECK(connecting.find(" was asked to stop: it did not connect") !=
                      std::string::npos);
                pollfd came{listener.descriptor(), POLLIN, 0};
                CHECK(::poll(&came, 1, 0) == 0);

                std::vector<tg::stream> clients;
                for (int i = 0; i < 2; ++i) clients.push_back(co_await tg::tcp::connect(to));
                tg::stream first =
                    co_await listener.accept();  // and from here on the second one may be there
                CHECK(first.remote_endpoint() == clients[0].local_endpoint());
                const std::string accepting = co_await after_a_stop(accept_one(&listener));
                CHECK(accepting.find(" was asked to stop: it did not accept a connection (" +
                                     to.text() + ")") != std::string::npos);
                tg::stream second = co_await listener.accept();
                CHECK(second.remote_endpoint() == clients[1].local_endpoint());
            }
        });
    }

    TEST_CASE(
        "a stop does not keep a listener from closing; what is closed is named, and gives no "
        "descriptor") {
        run_cleanly([]() -> tg::task<> {
            for (const bool armed : {false, true}) {
                const std::size_t descriptors = open_descriptors();
                tg::listener listener = tg::tcp::listen(tg::endpoint::loopback_v4(0));
                const std::string where = listener.local_endpoint().text();
                if (armed) {
                    tg::stream client = co_await tg::tcp::connect(listener.local_endpoint());
                    co_await accept_one(&listener);
                }
                const std::string text = co_await after_a_stop(close_it(&listener));
                CHECK(text == "(nothing)");
                CHECK_FALSE(listener.is_open());
                CHECK(open_descriptors() == descriptors);
                CHECK_THROWS_AS(static_cast<void>(listener.descriptor()), tg::socket_closed);
                const std::string closed =
                    co_await thrown_by<tg::socket_closed>(accept_one(&listener));
                CHECK(closed == "socket_closed: it did not accept a connection (" + where +
                                    "): the socket has been closed");
            }
        });
    }

    TEST_CASE("one token accepts at a time, and close tells it") {
        run_cleanly([]() -> tg::task<> {
            for (const std::size_t ahead : {0, 16}) {
                tg::listener listener =
                    tg::tcp::listen(tg::endpoint::loopback_v4(0), {.accept_ahead = ahead});
                bool begun = false;
                tg::token<std::string> first = as_token(
                    announced(&begun, thrown_by<tg::socket_closed>(accept_one(&listener))));
                first.admit();
                co_await until([&] { return begun; });
                const std::string second =
                    co_await thrown_by<tg::socket_busy>(accept_one(&listener));
                CHECK(second.find("socket_busy") == 0);
                co_await listener.close();
                CHECK((co_await first).find("socket_closed") == 0);
            }
        });
    }

    TEST_CASE("connections that nobody takes are left to the kernel, beyond a limit") {
        run_cleanly([]() -> tg::task<> {
            for (const std::size_t ahead : {0, 1, 4}) {
                tg::listener listener =
                    tg::tcp::listen(tg::endpoint::loopback_v4(0), {.accept_ahead = ahead});
                const tg::endpoint to = listener.local_endpoint();
                std::vector<tg::stream> clients;
                clients.push_back(co_await tg::tcp::connect(to));
                std::vector<tg::stream> servers;
                servers.push_back(co_await listener.accept());
                const std::size_t before = open_descriptors();
                for (int i = 0; i < 50; ++i) clients.push_back(co_await tg::tcp::connect(to));
                CHECK(open_descriptors() - before <= 50 + ahead + 10);
                for (int i = 0; i < 50; ++i) servers.push_back(co_await listener.accept());
                for (std::size_t i = 0; i < clients.size(); ++i)
                    CHECK(clients[i].local_endpoint() == servers[i].remote_endpoint());
            }
        });
    }

    TEST_CASE("without a descriptor accept says so, and what to do; afterwards it goes on") {
        const auto child = tg::test::in_child([] {
            std::string said;
            tg::runtime runtime{{.cores = 1}};
            runtime.run([&]() -> tg::task<> {
                tg::listener listener = tg::tcp::listen(tg::endpoint::loopback_v4(0));
                tg::stream client = co_await tg::tcp::connect(listener.local_endpoint());
                std::vector<int> plugs;
                const rlimit few{64, 64};
                ::setrlimit(RLIMIT_NOFILE, &few);
                for (int fd; (fd = ::dup(0)) >= 0;) plugs.push_back(fd);
                for (int i = 0; i < 3; ++i)
                    said += co_await thrown_by<std::system_error>(accept_one(&listener)) + "\n";
                for (const int fd : plugs) ::close(fd);
                const std::string nothing =
                    co_await thrown_by<std::system_error>(accept_one(&listener));
                said += nothing;
            });
            return said;
        });
        CHECK(child.ended);
        CHECK(child.complained == "");
        CHECK(child.said.find("Too many open files") != std::string::npos);
        CHECK(child.said.find("ulimit -n") != std::string::npos);
        CHECK(child.said.ends_with("\n(nothing)"));
    }

    TEST_CASE(
        "a listener outlives its runtime, with what it has accepted, and ends on any thread") {
        const std::size_t descriptors = open_descriptors();
        tg::listener listener = tg::tcp::listen(tg::endpoint::loopback_v4(0));
        std::vector<tg::stream> clients;
        for (int round = 0; round < 2; ++round) {
            tg::runtime runtime{{.cores = 1}};
            runtime.run([&]() -> tg::task<> {
                for (int i = 0; i < 3; ++i)
                    clients.push_back(co_await tg::tcp::connect(listener.local_endpoint()));
                for (int i = 0; i < 2; ++i) tg::stream one = co_await accepts_from(&listener);
            });
        }
        std::thread([&] { tg::listener(std::move(listener)); }).join();
        clients.clear();
        CHECK(open_descriptors() == descriptors);
    }
}
