// SPDX-License-Identifier: MIT

#include <tokengate/stream.hpp>

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

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <random>
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
using tg::test::bytes_of;
using tg::test::connected;
using tg::test::ends;
using tg::test::manual_event;
using tg::test::pattern;
using tg::test::run_cleanly;
using tg::test::text_of;
using tg::test::thrown_by;
using tg::test::until;

namespace {

tg::endpoint kind(int which) {
    switch (which) {
        case 0: return tg::endpoint::loopback_v4(0);
        case 1: return tg::endpoint::loopback_v6(0);
        default: return tg::endpoint::local("@stream_test_" + std::to_string(::getpid()));
    }
}
constexpr int kinds = 3;

/// Echoes with a buffer of its own.
tg::task<> echo_reading(tg::stream client) {
    std::array<std::byte, 4096> buffer;
    while (std::size_t n = co_await client.read(buffer))
        co_await client.write_all(std::span(buffer).first(n));
}
tg::task<> echo_receiving(tg::stream client) {
    for (;;) {
        const tg::chunk bytes = co_await client.receive();
        if (!bytes) break;
        co_await client.write_all(bytes);
    }
}
/// A little of each, in turn.
tg::task<> echo_mixing(tg::stream client) {
    std::array<std::byte, 7> buffer;
    for (unsigned turn = 0;; ++turn) {
        if (turn % 3 == 0) {
            const tg::chunk bytes = co_await client.receive();
            if (!bytes) break;
            co_await client.write_all(bytes);
        } else {
            const std::size_t n = co_await client.read(buffer);
            if (n == 0) break;
            co_await client.write_all(std::span(buffer).first(n));
        }
    }
}
using echo = tg::task<> (*)(tg::stream);
const tg::operation serves{
    {.name = "stream_test_serves"},
    [](echo how, tg::stream client) -> tg::task<> { co_await how(std::move(client)); }};

tg::task<> writes_all(tg::stream* to, std::span<const std::byte> bytes) {
    co_await to->write_all(bytes);
    to->shutdown();
}
const tg::operation writes{{.name = "stream_test_writes"}, writes_all};

/// Until the end, in pieces of a size that changes; takes its time.
tg::task<std::vector<std::byte>> reads_slowly(tg::stream* from, bool by_chunks) {
    std::vector<std::byte> all;
    std::vector<std::byte> buffer(200'000);
    std::mt19937 random(11);
    for (unsigned turn = 0;; ++turn) {
        if (turn % 64 == 0) co_await tg::sleep_for(1ms);
        if (by_chunks) {
            const tg::chunk bytes = co_await from->receive();
            if (!bytes) break;
            all.insert(all.end(), bytes.begin(), bytes.end());
        } else {
            const std::size_t n =
                co_await from->read(std::span(buffer).first(1 + random() % buffer.size()));
            if (n == 0) break;
            all.insert(all.end(), buffer.begin(), buffer.begin() + static_cast<std::ptrdiff_t>(n));
        }
    }
    co_return all;
}
const tg::operation reads{{.name = "stream_test_reads"}, reads_slowly};

tg::task<std::size_t> read_into(tg::stream* from, std::span<std::byte> into) {
    co_return co_await from->read(into);
}
tg::task<std::size_t> read_all_into(tg::stream* from, std::span<std::byte> into) {
    co_return co_await from->read_all(into);
}
tg::task<std::string> receive_text(tg::stream* from) {
    const tg::chunk bytes = co_await from->receive();
    co_return std::string(bytes.text());
}
tg::task<> write_it(tg::stream* to, std::span<const std::byte> bytes) {
    co_await to->write_all(bytes);
}

tg::task<> write_some(tg::stream* to, std::span<const std::byte> bytes) {
    co_await to->write(bytes);
}
tg::task<> write_parts(tg::stream* to, std::span<const std::byte> bytes) {
    co_await to->write_all(bytes.first(1), bytes.subspan(1));
}
tg::task<> write_nothing(tg::stream* to) { co_await to->write_all(std::span<const std::byte>()); }
tg::task<> write_no_parts(tg::stream* to) {
    co_await to->write_all(std::span<const std::span<const std::byte>>());
}
tg::task<> write_lent(tg::stream* to, std::span<const std::byte> bytes) {
    co_await to->write_all(bytes, tg::zero_copy);
}
tg::task<> close_it(tg::stream* which) { co_await which->close(); }
template <class Call>
std::string text_of_closed(Call call) {
    try {
        call();
    } catch (const tg::socket_closed& closed) {
        return closed.what();
    }
    return "(nothing)";
}

// On the core of their key; see two_cores.
const tg::operation holds_pin{
    {.name = "stream_test_holds_pin", .weight = tg::weight::heavy},
    tg::sticky{"stream_test_core", [](unsigned key, manual_event*) { return key; }},
    [](unsigned, manual_event* until) -> tg::task<> { co_await *until; }};
const tg::operation core_of{{.name = "stream_test_core_of", .weight = tg::weight::heavy},
                            tg::sticky{"stream_test_core", [](unsigned key) { return key; }},
                            [](unsigned) { return tg::this_token::core(); }};
const tg::operation receives_there{
    {.name = "stream_test_receives_there", .weight = tg::weight::heavy},
    tg::sticky{"stream_test_core", [](unsigned key, tg::stream*, bool) { return key; }},
    [](unsigned, tg::stream* from, bool by_chunk) -> tg::task<std::string> {
        std::array<std::byte, 5> buffer;
        if (!by_chunk) {
            const std::size_t n = co_await from->read(buffer);
            co_return text_of(std::span(buffer).first(n));
        }
        const tg::chunk bytes = co_await from->receive();
        co_return std::string(bytes.text());
    }};
const tg::operation receives_chunk{
    {.name = "stream_test_receives_chunk", .weight = tg::weight::heavy},
    tg::sticky{"stream_test_core", [](unsigned key, tg::stream*) { return key; }},
    [](unsigned, tg::stream* from) -> tg::task<tg::chunk> { co_return co_await from->receive(); }};
const tg::operation drops_there{
    {.name = "stream_test_drops_there", .weight = tg::weight::heavy},
    tg::sticky{"stream_test_core", [](unsigned key, std::shared_ptr<tg::stream>) { return key; }},
    [](unsigned, std::shared_ptr<tg::stream>) {}};

/// Two keys whose tokens run on two cores, as long as this lives (until `release`).
class two_cores {
public:
    tg::task<> hold() {
        const unsigned first = co_await hold(0);
        for (b_ = 1; b_ < 64; ++b_) {
            const unsigned second = co_await hold(b_);
            if (second != first) co_return;
        }
        until_.set();
        FAIL("no two keys on two cores");
    }
    tg::task<> release() {
        until_.set();
        co_await tg::when_all(std::move(holders_));
    }
    [[nodiscard]] unsigned a() const { return 0; }
    [[nodiscard]] unsigned b() const { return b_; }

private:
    tg::task<unsigned> hold(unsigned key) {
        holders_.push_back(holds_pin(key, &until_));
        holders_.back().admit();
        co_return co_await core_of(key);
    }

    manual_event until_;
    std::vector<tg::token<>> holders_;
    unsigned b_ = 0;
};

}  // namespace

TEST_SUITE("stream") {
    TEST_CASE("echo: over every kind of stream, however it is read") {
        for (int which = 0; which < kinds; ++which)
            for (const echo how : {echo{echo_reading}, echo{echo_receiving}, echo{echo_mixing}})
                run_cleanly([=]() -> tg::task<> {
                    ends both = co_await connected(kind(which));
                    tg::token<> server = serves(how, std::move(both.server));
                    server.admit();
                    CHECK_FALSE(both.server.is_open());
                    std::array<std::byte, 64> back;
                    for (int i = 0; i < 200; ++i) {
                        const std::string text = "message " + std::to_string(i);
                        co_await both.client.write_all(text);
                        const std::span<std::byte> into = std::span(back).first(text.size());
                        REQUIRE(co_await both.client.read_all(into) == text.size());
                        REQUIRE(text_of(into) == text);
                    }
                    both.client.shutdown();
                    CHECK(co_await both.client.read(back) == 0);
                    CHECK(co_await both.client.read(back) == 0);
                    co_await server;
                    co_await both.client.close();
                    CHECK_FALSE(both.client.is_open());
                    co_await both.client.close();
                });
    }

    TEST_CASE("endpoints say who is where") {
        run_cleanly([]() -> tg::task<> {
            ends both = co_await connected();
            CHECK(both.client.remote_endpoint() == both.server.local_endpoint());
            CHECK(both.server.remote_endpoint() == both.client.local_endpoint());
            CHECK(both.client.remote_endpoint().port() != 0);
            both.client.no_delay(false);
            both.client.keep_alive(true);
            int on = 0;
            socklen_t size = sizeof on;
            CHECK(::getsockopt(both.client.descriptor(), SOL_SOCKET, SO_KEEPALIVE, &on, &size) ==
                  0);
            CHECK(on == 1);
        });
    }

    TEST_CASE("much data against a slow reader: partial sends") {
        const std::vector<std::byte> sent = pattern(64 << 20);
        for (const bool by_chunks : {false, true})
            for (const int which : {0, 2})
                run_cleanly([&, by_chunks, which]() -> tg::task<> {
                    ends both = co_await connected(kind(which));
                    const std::span<const std::byte> all(sent);
                    auto [received, nothing] = co_await tg::when_all(reads(&both.server, by_chunks),
                                                                     writes(&both.client, all));
                    static_cast<void>(nothing);
                    CHECK(received.size() == sent.size());
                    CHECK(received == sent);
                });
    }

    TEST_CASE("several spans are written one after the other") {
        const std::vector<std::byte> sent = pattern(3 << 20);
        run_cleanly([&]() -> tg::task<> {
            ends both = co_await connected();
            tg::token<std::vector<std::byte>> reader = reads(&both.server, true);
            reader.admit();
            const std::span<const std::byte> all(sent);
            co_await both.client.write_all(all.first(10), all.subspan(10, 0),
                                           all.subspan(10, 1 << 20));
            std::vector<std::span<const std::byte>> parts;
            std::mt19937 random(5);
            for (std::size_t at = 10 + (1 << 20); at < all.size();) {
                const std::size_t size = std::min<std::size_t>(random() % 20'000, all.size() - at);
                parts.push_back(all.subspan(at, size));
                at += size;
            }
            co_await both.client.write_all(parts);
            co_await both.client.write_all(std::span<const std::span<const std::byte>>());
            co_await both.client.write_all(std::span<const std::byte>());
            both.client.shutdown();
            const std::vector<std::byte> received = co_await reader;
            CHECK(received == sent);
        });
    }

    TEST_CASE("zero-copy sends, where they can be had, and else ordinary ones") {
        const std::vector<std::byte> sent = pattern(5 << 20);
        for (int which = 0; which < kinds; ++which)
            run_cleanly([&, which]() -> tg::task<> {
                ends both = co_await connected(kind(which));
                tg::token<std::vector<std::byte>> reader = reads(&both.server, true);
                reader.admit();
                const std::span<const std::byte> all(sent);
                co_await both.client.write_all(all, tg::zero_copy);
                both.client.shutdown();
                const std::vector<std::byte> received = co_await reader;
                CHECK(received == sent);
            });
    }

    TEST_CASE("where little memory may be locked, a zero-copy send is an ordinary one") {
        const auto child = tg::test::in_child([]() -> std::string {
            const rlimit little{64 * 1024, 64 * 1024};
            if (::setrlimit(RLIMIT_MEMLOCK, &little) != 0 || ::setgid(65534) != 0 ||
                ::setuid(65534) != 0)
                return "cannot";
            bool same = false;
            tg::runtime runtime{{.cores = 1, .ring_entries = 8}};
            runtime.run([&]() -> tg::task<> {
                const std::vector<std::byte> sent = pattern(1 << 20);
                ends both = co_await connected();
                tg::token<std::vector<std::byte>> reader = reads(&both.server, false);
                reader.admit();
                const std::span<const std::byte> all(sent);
                co_await both.client.write_all(all, tg::zero_copy);
                both.client.shutdown();
                const std::vector<std::byte> received = co_await reader;
                same = received == sent;
            });
            return same ? "all came" : "something else came";
        });
        CHECK(child.ended);
        CHECK(child.complained == "");
        if (child.said == "cannot")
            MESSAGE("skipped: only root can become nobody");
        else
            CHECK(child.said == "all came");
    }

    TEST_CASE("read_all says how much came before the end") {
        run_cleanly([]() -> tg::task<> {
            for (const bool armed : {false, true}) {
                ends both = co_await connected();
                if (armed) {
                    co_await both.client.write_all("x");
                    const std::string first = co_await receive_text(&both.server);
                    CHECK(first == "x");
                }
                co_await both.client.write_all("12345");
                both.client.shutdown();
                std::array<std::byte, 8> into;
                std::size_t received = 99;
                std::string text;
                try {
                    co_await both.server.read_all(into);
                } catch (const tg::unexpected_end& end) {
                    received = end.received();
                    text = end.what();
                }
                CHECK(received == 5);
                CHECK(text.find(both.client.local_endpoint().text()) != std::string::npos);
                CHECK(text.find("after 5 of 8 bytes") != std::string::npos);
                CHECK(text_of(std::span(into).first(5)) == "12345");
            }
        });
    }

    TEST_CASE("a peer that resets is named") {
        for (const bool armed : {false, true})
            run_cleanly([armed]() -> tg::task<> {
                ends both = co_await connected();
                const std::string peer = both.client.local_endpoint().text();
                if (armed) {
                    co_await both.client.write_all("x");
                    co_await receive_text(&both.server);
                }
                const linger at_once{1, 0};
                ::setsockopt(both.client.descriptor(), SOL_SOCKET, SO_LINGER, &at_once,
                             sizeof at_once);
                co_await both.client.close();
                std::array<std::byte, 8> into;
                const std::string text =
                    co_await thrown_by<std::system_error>(read_into(&both.server, into));
                CHECK(text.find(peer) != std::string::npos);
                CHECK(text.find("reset") != std::string::npos);
                const std::string broken = co_await thrown_by<std::system_error>(
                    write_it(&both.server, bytes_of("still there?")));
                CHECK(broken.find(peer) != std::string::npos);
            });
    }

    TEST_CASE("one reader and one writer at a time") {
        run_cleanly([]() -> tg::task<> {
            ends both = co_await connected();
            for (const bool by_chunk : {false, true}) {
                std::array<std::byte, 8> into, other;
                bool begun = false;
                tg::token<std::string> first =
                    as_token(announced(&begun, receive_text(&both.server)));
                tg::token<std::size_t> plain =
                    as_token(announced(&begun, read_into(&both.server, into)));
                by_chunk ? first.admit() : plain.admit();
                co_await until([&] { return begun; });
                const std::string text =
                    co_await thrown_by<tg::socket_busy>(read_into(&both.server, other));
                CHECK(text.find("another token") != std::string::npos);
                co_await both.client.write_all("hello");
                if (by_chunk)
                    CHECK(co_await first == "hello");
                else
                    CHECK(co_await plain == 5);
            }
        });
    }

    TEST_CASE("close ends what others wait for") {
        const std::vector<std::byte> much = pattern(32 << 20);
        for (const int what : {0, 1, 2})
            run_cleanly([&, what]() -> tg::task<> {
                ends both = co_await connected();
                std::array<std::byte, 8> into;
                bool begun = false;
                tg::task<std::string> work =
                    what == 0   ? thrown_by<tg::socket_closed>(read_into(&both.server, into))
                    : what == 1 ? thrown_by<tg::socket_closed>(receive_text(&both.server))
                                : thrown_by<tg::socket_closed>(write_it(&both.server, much));
                tg::token<std::string> waiting = as_token(announced(&begun, std::move(work)));
                waiting.admit();
                co_await until([&] { return begun; });
                co_await both.server.close();
                CHECK((co_await waiting).find("socket_closed") == 0);
                const std::string again =
                    co_await thrown_by<tg::socket_closed>(read_into(&both.server, into));
                CHECK(again.find("socket_closed") == 0);
            });
    }

    TEST_CASE("what is closed is named, and gives no descriptor") {
        for (int which = 0; which < kinds; ++which)
            run_cleanly([which]() -> tg::task<> {
                ends both = co_await connected(kind(which));
                const std::string peer = both.client.remote_endpoint().text();
                CHECK(::fcntl(both.client.descriptor(), F_GETFD) >= 0);
                std::array<std::byte, 8> into;
                bool begun = false;
                tg::token<std::string> waiting = as_token(
                    announced(&begun, thrown_by<tg::socket_closed>(read_into(&both.client, into))));
                waiting.admit();
                co_await until([&] { return begun; });
                co_await both.client.close();
                std::vector<std::string> texts;
                texts.push_back(co_await waiting);
                texts.push_back(co_await thrown_by<tg::socket_closed>(write_it(&both.client,
                                                                               into)));
                texts.push_back(text_of_closed([&] {
                    static_cast<void>(both.client.descriptor());
                }));
                texts.push_back(text_of_closed([&] {
                    static_cast<void>(both.client.local_endpoint());
                }));
                texts.push_back(text_of_closed([&] { both.client.shutdown(); }));
                for (const std::string& text : texts) {
                    CAPTURE(text);
                    CHECK(text.find("socket_closed: it did not ") == 0);
                    CHECK(text.find(" (" + peer + "): the socket has been closed") !=
                          std::string::npos);
                }
                co_await both.server.close();  // whose peer has no name, if it is a UNIX one
                const std::string text =
                    text_of_closed([&] { static_cast<void>(both.server.descriptor()); });
                CHECK(text.find(which == 2
                                    ? "(an unnamed peer)"
                                    : both.server.remote_endpoint().text()) != std::string::npos);
            });
    }

    TEST_CASE("nothing can be done with no stream") {
        run_cleanly([]() -> tg::task<> {
            tg::stream none;
            std::array<std::byte, 8> into;
            // One by one: in a braced list g++ 12 destroys what was awaited twice.
            const std::string read = co_await thrown_by<tg::socket_closed>(read_into(&none, into));
            CHECK(read.find("socket_closed") == 0);
            const std::string received = co_await thrown_by<tg::socket_closed>(receive_text(&none));
            CHECK(received.find("socket_closed") == 0);
            const std::string written =
                co_await thrown_by<tg::socket_closed>(write_it(&none, into));
            CHECK(written.find("socket_closed") == 0);
            CHECK_THROWS_AS(none.shutdown(), tg::socket_closed);
            CHECK_THROWS_AS(static_cast<void>(none.descriptor()), tg::socket_closed);
            co_await none.close();
        });
    }

    TEST_CASE("zero_copy: a peer that reads nothing keeps neither a stop nor a close waiting") {
        const std::vector<std::byte> much = pattern(8 << 20);
        for (const bool closes : {false, true})
            run_cleanly([&]() -> tg::task<> {
                ends both = co_await connected();
                const auto write = [&]() -> tg::task<> {
                    co_await both.client.write_all(much, tg::zero_copy);
                };
                if (closes) {
                    tg::token<std::string> writing =
                        as_token(thrown_by<tg::socket_closed>(write()));
                    writing.admit();
                    co_await tg::sleep_for(20ms);  // until the kernel has what fits into its queues
                    co_await both.client.close();
                    const std::string text = co_await writing;
                    CHECK(text.find("socket_closed") == 0);
                } else {
                    const auto limited = [&]() -> tg::task<> {
                        co_await tg::with_timeout(write(), 20ms);
                    };
                    const std::string text = co_await thrown_by<tg::token_timeout>(limited());
                    CHECK(text.find("token_timeout") == 0);
                    const auto single = [&]() -> tg::task<> {
                        ends others = co_await connected();
                        co_await tg::with_timeout(others.client.write_all(much, tg::zero_copy),
                                                  20ms);
                    };
                    const std::string again = co_await thrown_by<tg::token_timeout>(single());
                    CHECK(again.find("token_timeout") == 0);
                }
            });
    }

    TEST_CASE(
        "a close on one core, with a reader and a writer on others: the last of them closes, "
        "whoever holds it") {
        const std::vector<std::byte> much = pattern(32 << 20);
        run_cleanly(
            [&]() -> tg::task<> {
                const auto nothing = []() -> tg::task<> { co_return; };
                for (int i = 0; i < 300; ++i) {
                    ends both = co_await connected();
                    auto* held = new tg::stream(std::move(both.server));
                    std::array<std::byte, 8> into;
                    // The holder is the reader: it lets go of the stream as soon as it hears of the close.
                    const auto read = [&into, held]() -> tg::task<> {
                        const std::unique_ptr<tg::stream> mine(held);
                        co_await mine->read(into);
                    };
                    const auto write = [&much, held]() -> tg::task<> {
                        co_await held->write_all(much);
                    };
                    tg::token<std::string> reader =
                        as_token(thrown_by<tg::socket_closed>(read()), 0);
                    tg::token<std::string> writer =
                        as_token(thrown_by<tg::socket_closed>(write()), 1);
                    reader.admit();
                    writer.admit();
                    // Behind them on their cores: both are at the stream by then.
                    co_await tg::as_token(nothing(), 0);
                    co_await tg::as_token(nothing(), 1);
                    co_await held->close();
                    co_await reader;
                    co_await writer;
                }
            },
            {.cores = 3});
    }

    TEST_CASE("a stop ends each wait, and loses nothing") {
        const std::vector<std::byte> much = pattern(32 << 20);
        run_cleanly([&]() -> tg::task<> {
            for (int i = 0; i < 20; ++i) {
                ends both = co_await connected();
                std::array<std::byte, 8> into;
                const auto limit = i % 2 == 0 ? 0ns : 300us;
                // In turn, so that the source is armed from the second round on.
                for (int what = 0; what < 6; ++what) {
                    bool over = false;
                    try {
                        if (what % 3 == 0)
                            co_await tg::with_timeout(read_into(&both.server, into), limit);
                        if (what % 3 == 1)
                            co_await tg::with_timeout(read_all_into(&both.server, into), limit);
                        if (what % 3 == 2)
                            co_await tg::with_timeout(receive_text(&both.server), limit);
                    } catch (const tg::token_timeout&) {
                        over = true;
                    }
                    CHECK(over);
                }
                co_await both.client.write_all("kept");
                std::string text = co_await receive_text(&both.server);
                CHECK(text == "kept");
                bool over = false;
                try {
                    co_await tg::with_timeout(write_it(&both.server, much), limit);
                } catch (const tg::token_timeout&) {
                    over = true;
                }
                CHECK(over);
            }
        });
    }

    TEST_CASE("after a stop nothing is begun: no byte is read, and none is written") {
        for (int which = 0; which < kinds; ++which)
            for (const bool armed : {false, true})
                run_cleanly([=]() -> tg::task<> {
                    ends both = co_await connected(kind(which));
                    const auto bytes = bytes_of("unwanted");
                    std::vector<std::string> texts;
                    texts.push_back(co_await after_a_stop(write_some(&both.client, bytes)));
                    texts.push_back(co_await after_a_stop(write_it(&both.client, bytes)));
                    texts.push_back(co_await after_a_stop(write_parts(&both.client, bytes)));
                    texts.push_back(co_await after_a_stop(write_lent(&both.client, bytes)));
                    texts.push_back(co_await after_a_stop(write_nothing(&both.client)));
                    texts.push_back(co_await after_a_stop(write_no_parts(&both.client)));
                    char none;
                    CHECK(::recv(both.server.descriptor(), &none, 1, MSG_DONTWAIT) == -1);
                    CHECK(errno == EAGAIN);
                    if (armed) {
                        co_await both.client.write_all("x");
                        const std::string first = co_await receive_text(&both.server);
                        CHECK(first == "x");
                    }
                    co_await both.client.write_all("kept");
                    std::array<std::byte, 4> into;
                    texts.push_back(co_await after_a_stop(read_into(&both.server, into)));
                    texts.push_back(co_await after_a_stop(read_all_into(&both.server, into)));
                    texts.push_back(co_await after_a_stop(receive_text(&both.server)));
                    for (const std::string& text : texts) {
                        CAPTURE(text);
                        CHECK(text.find(" was asked to stop: it did not ") != std::string::npos);
                        CHECK(text.find(" a stream (") != std::string::npos);
                        CHECK((which == 2 || text.find("127.0.0.1:") != std::string::npos ||
                               text.find("[::1]:") != std::string::npos));
                    }
                    const std::string kept = co_await receive_text(&both.server);
                    CHECK(kept == "kept");
                });
    }

    TEST_CASE("a stop does not keep a stream from closing") {
        for (const int readers : {0, 1, 2})  // none; one that is left armed; one that waits
            run_cleanly([readers]() -> tg::task<> {
                ends both = co_await connected();
                const int number = both.server.descriptor();
                tg::token<std::string> waiting;
                if (readers != 0) {
                    co_await both.client.write_all("x");
                    co_await receive_text(&both.server);
                }
                if (readers == 2) {
                    bool begun = false;
                    waiting = as_token(announced(
                        &begun, thrown_by<tg::socket_closed>(receive_text(&both.server))));
                    waiting.admit();
                    co_await until([&] { return begun; });
                }
                const std::string text = co_await after_a_stop(close_it(&both.server));
                CHECK(text == "(nothing)");
                CHECK_FALSE(both.server.is_open());
                CHECK(::fcntl(number, F_GETFD) == -1);  // nobody has opened another one
                if (readers == 2) CHECK((co_await waiting).find("socket_closed") == 0);
            });
    }

    TEST_CASE("when all buffers are lent, it goes on") {
        run_cleanly([]() -> tg::task<> {
            ends both = co_await connected();
            std::vector<tg::chunk> kept;
            for (int i = 0; i < 700; ++i) {
                co_await both.client.write_all(std::to_string(i));
                kept.push_back(co_await both.server.receive());
                REQUIRE(kept.back().text() == std::to_string(i));
            }
            for (int i = 0; i < 700; ++i)
                REQUIRE(kept[static_cast<std::size_t>(i)].text() == std::to_string(i));
            kept.clear();
            co_await both.client.write_all("after");
            const std::string text = co_await receive_text(&both.server);
            CHECK(text == "after");
        });
    }

    TEST_CASE("chunks and streams outlive their runtime, and end on any thread") {
        const std::size_t descriptors = tg::test::open_descriptors();
        std::optional<ends> both;
        std::vector<tg::chunk> kept;
        {
            tg::runtime runtime{{.cores = 2}};
            runtime.run([&]() -> tg::task<> {
                both.emplace(co_await connected());
                co_await both->client.write_all("one");
                kept.push_back(co_await both->server.receive());
                co_await both->client.write_all("two");
                both->client.shutdown();
            });
        }
        CHECK(kept.front().text() == "one");
        {
            tg::runtime other{{.cores = 1}};
            other.run([&]() -> tg::task<> {
                std::string all;
                for (;;) {
                    tg::chunk bytes = co_await both->server.receive();
                    if (!bytes) break;
                    all += bytes.text();
                }
                CHECK(all == "two");
                std::thread([&] { both.reset(); }).join();
            });
        }
        std::thread([&] { kept.clear(); }).join();
        CHECK(tg::test::open_descriptors() == descriptors);
    }

    TEST_CASE("a stream is used on one core after the other: nothing is lost, the order is kept") {
        constexpr int messages = 10'000;
        run_cleanly([]() -> tg::task<> {
            two_cores cores;
            co_await cores.hold();
            ends both = co_await connected();
            std::vector<std::byte> sent;
            for (int i = 0; i < messages; ++i) {
                const std::string text = std::to_string(i) + ";";
                const auto bytes = bytes_of(text);
                sent.insert(sent.end(), bytes.begin(), bytes.end());
            }
            std::string received;
            std::mt19937 random(3);
            std::size_t written = 0;
            for (int turn = 0; received.size() < sent.size(); ++turn) {
                // A few messages on their way, so that the armed receive always has some of them.
                while (written < sent.size() && written < received.size() + 400) {
                    const std::size_t size =
                        std::min<std::size_t>(1 + random() % 40, sent.size() - written);
                    co_await both.client.write_all(std::span<const std::byte>(sent).subspan(written,
                                                                                            size));
                    written += size;
                }
                const unsigned key = turn % 2 == 0 ? cores.a() : cores.b();
                received += co_await receives_there(key, &both.server, random() % 4 != 0);
            }
            CHECK(received == text_of(sent));
            co_await cores.release();
        });
    }

    TEST_CASE("a stop while the stream changes its core") {
        run_cleanly([]() -> tg::task<> {
            two_cores cores;
            co_await cores.hold();
            ends both = co_await connected();
            std::string received, sent;
            std::mt19937 random(8);
            for (int turn = 0; turn < 2000; ++turn) {
                const unsigned key = turn % 2 == 0 ? cores.a() : cores.b();
                tg::token<std::string> there = receives_there(key, &both.server, true);
                there.admit();
                for (auto pause = random() % 3; pause != 0; --pause) co_await tg::yield();
                const std::string text = std::to_string(turn) + ";";
                if (turn % 3 != 0) {
                    sent += text;
                    co_await both.client.write_all(text);
                }
                there.request_stop();
                try {
                    received += co_await there;
                } catch (const tg::token_stopped&) {}
            }
            both.client.shutdown();
            for (;;) {
                const std::string rest = co_await receives_there(cores.a(), &both.server, true);
                if (rest.empty()) break;
                received += rest;
            }
            CHECK(received == sent);
            co_await cores.release();
        });
    }

    TEST_CASE("chunks may be dropped on other cores, streams too") {
        run_cleanly([]() -> tg::task<> {
            two_cores cores;
            co_await cores.hold();
            for (int turn = 0; turn < 20; ++turn) {
                ends both = co_await connected();
                for (int i = 0; i < 40; ++i) {
                    co_await both.client.write_all("x");
                    tg::chunk bytes =
                        co_await receives_chunk(i % 2 == 0 ? cores.a() : cores.b(), &both.server);
                    REQUIRE(bytes.text() == "x");
                }
                co_await both.client.write_all("unread");
                co_await drops_there(cores.a(),
                                     std::make_shared<tg::stream>(std::move(both.server)));
            }
            co_await cores.release();
        });
    }

    TEST_CASE("a reader and a writer on two cores") {
        const std::vector<std::byte> sent = pattern(8 << 20);
        run_cleanly([&]() -> tg::task<> {
            ends both = co_await connected();
            tg::token<> server = serves(echo{echo_receiving}, std::move(both.server));
            server.admit();
            const std::span<const std::byte> all(sent);
            auto [received, nothing] =
                co_await tg::when_all(reads(&both.client, true), writes(&both.client, all));
            static_cast<void>(nothing);
            CHECK(received == sent);
            co_await server;
        });
    }

    TEST_CASE("a ring of 8 entries serves many streams") {
        run_cleanly(
            []() -> tg::task<> {
                std::vector<tg::token<>> servers;
                std::vector<tg::stream> clients;
                for (int i = 0; i < 100; ++i) {
                    ends both = co_await connected();
                    servers.push_back(serves(i % 2 == 0 ? echo{echo_receiving} : echo{echo_reading},
                                             std::move(both.server)));
                    servers.back().admit();
                    clients.push_back(std::move(both.client));
                }
                for (int round = 0; round < 10; ++round) {
                    for (tg::stream& each : clients) co_await each.write_all("hello");
                    for (tg::stream& each : clients) {
                        std::array<std::byte, 5> back;
                        co_await each.read_all(back);
                        REQUIRE(text_of(back) == "hello");
                    }
                }
                clients.clear();
                co_await tg::when_all(std::move(servers));
            },
            {.cores = 2, .ring_entries = 8});
    }
}
