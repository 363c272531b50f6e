// SPDX-License-Identifier: MIT

// Stops, timeouts, completions and closes race over sockets, on rings of 8 entries and streams that change their core
// between two operations. Each byte, connection and datagram comes once, and in order: what a stopped wait did not take is
// there for the next.

#include "support/child.hpp"
#include "support/io.hpp"
#include "support/leaks.hpp"

#include <tokengate/error.hpp>
#include <tokengate/local.hpp>
#include <tokengate/runtime.hpp>
#include <tokengate/stream.hpp>
#include <tokengate/task_token.hpp>
#include <tokengate/tcp.hpp>
#include <tokengate/time.hpp>
#include <tokengate/udp.hpp>
#include <tokengate/when_all.hpp>

#include <doctest/doctest.h>

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace tg = tokengate;
using std::chrono::microseconds;
using tg::test::connected;
using tg::test::ends;
using tg::test::live_slots;
using tg::test::open_descriptors;

namespace {

constexpr unsigned cores = 4;
constexpr std::uint64_t seed = 20'011;

std::atomic<std::uint64_t> operations{0}, given_up{0}, wrong{0};

/// Numbers small enough for an argument.
struct dice {
    std::uint64_t state;
    std::uint64_t operator()(std::uint64_t below) noexcept {
        state = state * 6364136223846793005U + 1442695040888963407U;
        return (state >> 33) % below;
    }
    unsigned core() noexcept { return static_cast<unsigned>((*this)(cores)); }
    microseconds delay() noexcept {
        return microseconds((*this)(4) == 0 ? (*this)(200) : (*this)(30));
    }
};

tg::task<> pause(std::uint64_t kind, microseconds how_long) {
    if (kind == 0) co_await tg::sleep_for(how_long);
    if (kind == 1) co_await tg::yield();
}

/// Its result, or nothing if its time was over or it was stopped: from here, or from another core.
template <class T>
tg::task<std::optional<T>> raced(tg::task<T> work, dice roll) {
    ++operations;
    std::optional<T> result;
    const std::uint64_t way = roll(8);
    try {
        if (way < 3) {
            result = co_await tg::with_timeout(std::move(work), roll.delay());
        } else if (way < 6) {
            tg::token<T> there = way == 3 ? tg::as_token(std::move(work))
                                          : tg::as_token(std::move(work), roll.core());
            there.admit();
            co_await pause(roll(3), roll.delay());
            there.request_stop();
            result = co_await there;
        } else {
            result = co_await std::move(work);
        }
    } catch (const tg::token_timeout&) {
        ++given_up;
    } catch (const tg::token_stopped&) {
        ++given_up;
    }
    co_return result;
}

// ---- streams ------------------------------------------------------------------------------------------------------------

/// The bytes of a stream count up, so that one that is missing or comes twice is seen.
struct counting {
    std::uint64_t bytes = 0;
    void fill(std::span<std::byte> into) const noexcept {
        for (std::size_t i = 0; i < into.size(); ++i)
            into[i] = static_cast<std::byte>((bytes + i) % 251);
    }
    void take(std::span<const std::byte> came) noexcept {
        for (const std::byte each : came)
            if (each != static_cast<std::byte>(bytes++ % 251)) ++wrong;
    }
};

tg::task<std::size_t> write_some(tg::stream* to, std::span<const std::byte> bytes) {
    co_return co_await to->write(bytes);
}
tg::task<std::size_t> read_some(tg::stream* from, std::span<std::byte> into) {
    co_return co_await from->read(into);
}
tg::task<tg::chunk> receive_some(tg::stream* from) { co_return co_await from->receive(); }

tg::task<> writes(tg::stream* to, counting* sent, std::uint64_t count, dice roll) {
    std::vector<std::byte> buffer(60'000);
    for (; count > 0; --count) {
        const std::size_t size = 1 + (roll(8) == 0 ? roll(buffer.size()) : roll(200));
        const std::span<std::byte> bytes = std::span(buffer).first(size);
        sent->fill(bytes);
        switch (roll(16)) {
            case 0: co_await to->write_all(bytes); break;
            case 1: co_await to->write_all(bytes.first(size / 2), bytes.subspan(size / 2)); break;
            case 2: co_await to->write_all(bytes, tg::zero_copy); break;
            default: {
                const std::optional<std::size_t> written =
                    co_await raced(write_some(to, bytes), dice{roll(1U << 30)});
                sent->bytes += written.value_or(0);
                continue;
            }
        }
        sent->bytes += size;
        ++operations;
    }
}

/// A few times, on the core where it is; true at the end.
tg::task<bool> reads(tg::stream* from, counting* got, dice roll) {
    std::vector<std::byte> buffer(20'000);
    for (std::uint64_t count = 1 + roll(6); count > 0; --count) {
        const dice own{roll(1U << 30)};
        if (roll(2) == 0) {
            const std::optional<tg::chunk> came = co_await raced(receive_some(from), own);
            if (!came) continue;
            if (came->empty()) co_return true;
            got->take(came->bytes());
        } else {
            const std::span<std::byte> into = std::span(buffer).first(1 + roll(buffer.size()));
            const std::optional<std::size_t> came = co_await raced(read_some(from, into), own);
            if (!came) continue;
            if (*came == 0) co_return true;
            got->take(into.first(*came));
        }
    }
    co_return false;
}

tg::task<> writes_to_the_end(tg::stream* to, counting* sent, std::uint64_t count, dice roll) {
    while (count > 0) {
        const std::uint64_t part = std::min(count, 1 + roll(20));
        co_await tg::as_token(writes(to, sent, part, dice{roll(1U << 30)}), roll.core());
        count -= part;
    }
    to->shutdown();
}
tg::task<> reads_to_the_end(tg::stream* from, counting* got, dice roll) {
    bool over = false;
    while (!over) over = co_await tg::as_token(reads(from, got, dice{roll(1U << 30)}), roll.core());
}

tg::endpoint somewhere(std::uint64_t number) {
    static std::atomic<std::uint64_t> names{
        0};  // a listener that was dropped may still have its name
    if (number % 2 == 0) return tg::endpoint::loopback_v4(0);
    return tg::endpoint::local("@socket_race_test_" + std::to_string(::getpid()) + "_" +
                               std::to_string(++names));
}

tg::task<> race_a_stream(std::uint64_t number, std::uint64_t count) {
    dice roll{seed + number};
    ends both = co_await connected(somewhere(number));
    counting sent, got;
    co_await tg::when_all(tg::as_token(writes_to_the_end(&both.client, &sent, count,
                                                         dice{roll(1U << 30)})),
                          tg::as_token(reads_to_the_end(&both.server, &got, dice{roll(1U << 30)})));
    if (sent.bytes == 0 || sent.bytes != got.bytes) ++wrong;
}

// ---- closing ------------------------------------------------------------------------------------------------------------

tg::task<> use(tg::stream* at, std::atomic<int>* begun, dice roll) {
    std::array<std::byte, 16> buffer{};
    ++*begun;
    try {
        for (;;) {
            const dice own{roll(1U << 30)};
            if (roll(3) == 0)
                co_await raced(write_some(at, buffer), own);
            else if (roll(2) == 0)
                co_await raced(receive_some(at), own);
            else
                co_await raced(read_some(at, buffer), own);
        }
    } catch (const tg::socket_closed&) {
    } catch (const tg::socket_busy&) {}
}

/// In a token that is asked to stop meanwhile: closed it is all the same.
tg::task<bool> close_it(tg::stream* at, bool* begun, microseconds when) {
    *begun = true;
    try {
        co_await tg::sleep_for(when);
    } catch (const tg::token_stopped&) {}
    co_await at->close();
    co_return true;
}

tg::task<> race_a_close(dice roll, std::uint64_t number) {
    ends both = co_await connected(somewhere(number));
    std::atomic<int> begun{0};
    std::vector<tg::token<>> users;
    for (std::uint64_t i = 1 + roll(3); i > 0; --i) {
        users.push_back(tg::as_token(use(&both.server, &begun, dice{roll(1U << 30)}), roll.core()));
        users.back().admit();
    }
    while (begun.load() == 0) co_await tg::yield();
    const std::string text = roll(2) == 0 ? "some bytes" : "";
    co_await both.client.write_all(text);
    bool closing = false;  // a token that is stopped before it starts never runs
    const std::optional<bool> closed =
        co_await raced(close_it(&both.server, &closing, roll.delay()), dice{roll(1U << 30)});
    if (closing != closed.has_value() || closing == both.server.is_open()) ++wrong;
    co_await both.server.close();
    co_await tg::when_all(std::move(users));
}

// ---- connecting and accepting -------------------------------------------------------------------------------------------

constexpr std::uint32_t last_client = ~std::uint32_t{0};

tg::task<tg::stream> connect_to(tg::endpoint to) { co_return co_await tg::tcp::connect(to); }
tg::task<tg::stream> accept_from(tg::listener* from) { co_return co_await from->accept(); }

tg::task<> says(tg::stream to, std::uint32_t number) {
    co_await to.write_all(std::as_bytes(std::span(&number, 1)));
    co_await to.close();
}

/// Those who have connected say who they are.
tg::task<> connects(tg::endpoint to, std::uint32_t first, std::uint32_t count,
                    std::vector<std::uint8_t>* made, dice roll) {
    for (std::uint32_t number = first; number < first + count; ++number) {
        std::optional<tg::stream> client = co_await raced(connect_to(to), dice{roll(1U << 30)});
        if (!client) continue;
        (*made)[number] = 1;
        co_await says(std::move(*client), number);
    }
}

/// Whoever gave up is heard as an end, or a reset.
tg::task<> hears(tg::stream from, std::vector<std::atomic<std::uint8_t>>* heard,
                 std::atomic<bool>* over) {
    std::uint32_t number = 0;
    try {
        co_await from.read_all(std::as_writable_bytes(std::span(&number, 1)));
        if (number == last_client)
            *over = true;
        else
            ++(*heard)[number];
    } catch (const tg::unexpected_end& end) {
        if (end.received() != 0) ++wrong;
    } catch (const std::system_error& error) {
        if (error.code().value() != ECONNRESET) ++wrong;
    }
}

tg::task<> accepts(tg::listener* from, std::vector<std::atomic<std::uint8_t>>* heard,
                   std::atomic<bool>* over, dice roll) {
    for (std::uint64_t count = 1 + roll(10); count > 0 && !*over; --count) {
        std::optional<tg::stream> one = co_await raced(accept_from(from), dice{roll(1U << 30)});
        if (one) co_await tg::as_token(hears(std::move(*one), heard, over), roll.core());
    }
}
tg::task<> accepts_to_the_end(tg::listener* from, std::vector<std::atomic<std::uint8_t>>* heard,
                              dice roll) {
    std::atomic<bool> over{false};
    while (!over)
        co_await tg::as_token(accepts(from, heard, &over, dice{roll(1U << 30)}), roll.core());
}

tg::task<> race_a_listener(std::size_t ahead, std::uint32_t count) {
    constexpr std::uint32_t crowds = 4;
    dice roll{seed + ahead};
    tg::listener listener = tg::tcp::listen(tg::endpoint::loopback_v4(0), {.accept_ahead = ahead});
    std::vector<std::uint8_t> made(crowds * count);
    std::vector<std::atomic<std::uint8_t>> heard(crowds * count);
    tg::token<> server = tg::as_token(accepts_to_the_end(&listener, &heard, dice{roll(1U << 30)}));
    server.admit();
    std::vector<tg::token<>> clients;
    for (std::uint32_t i = 0; i < crowds; ++i)
        clients.push_back(tg::as_token(connects(listener.local_endpoint(), i * count, count, &made,
                                                dice{roll(1U << 30)}),
                                       roll.core()));
    co_await tg::when_all(std::move(clients));
    // After all others in the one queue of the listener.
    tg::stream last = co_await tg::tcp::connect(listener.local_endpoint());
    co_await says(std::move(last), last_client);
    co_await server;
    for (std::size_t i = 0; i < made.size(); ++i)
        if (made[i] != heard[i]) ++wrong;
    co_await listener.close();
}

// ---- datagrams ----------------------------------------------------------------------------------------------------------

constexpr std::uint32_t end_of_burst = ~std::uint32_t{0};

tg::task<bool> send_number(tg::udp::socket* by, tg::endpoint to, std::uint32_t number) {
    const auto bytes = std::as_bytes(std::span(&number, 1));
    if (number % 2 == 0)
        co_await by->send_to(bytes, to);
    else
        co_await by->send(bytes);
    co_return true;
}
tg::task<std::uint32_t> receive_number(tg::udp::socket* from) {
    std::uint32_t number = 0;
    const tg::udp::received got =
        co_await from->receive_from(std::as_writable_bytes(std::span(&number, 1)));
    if (got.size != sizeof number) ++wrong;
    co_return number;
}

/// Few enough for the socket's buffer.
tg::task<> receives_burst(tg::udp::socket* from, std::vector<std::uint32_t>* got, dice roll) {
    for (;;) {
        const std::optional<std::uint32_t> number =
            co_await raced(receive_number(from), dice{roll(1U << 30)});
        if (!number) continue;
        if (*number == end_of_burst) break;
        got->push_back(*number);
    }
}

tg::task<> race_datagrams(std::uint64_t number, std::uint64_t bursts) {
    dice roll{seed + number};
    const tg::endpoint any =
        number % 2 == 0 ? tg::endpoint::loopback_v4(0) : tg::endpoint::loopback_v6(0);
    tg::udp::socket server = tg::udp::socket::bind(any);
    const tg::endpoint to = server.local_endpoint();
    tg::udp::socket client = tg::udp::socket::connect(to);
    for (std::uint32_t sequence = 0; bursts > 0; --bursts) {
        std::vector<std::uint32_t> sent, got;
        tg::token<> receiver =
            tg::as_token(receives_burst(&server, &got, dice{roll(1U << 30)}), roll.core());
        receiver.admit();
        for (std::uint64_t i = roll(30); i > 0; --i) {
            const std::uint32_t each = sequence++;
            const std::optional<bool> went =
                co_await raced(send_number(&client, to, each), dice{roll(1U << 30)});
            if (went) sent.push_back(each);
        }
        co_await send_number(&client, to, end_of_burst);
        co_await receiver;
        if (sent != got) ++wrong;
    }
    char left;
    if (::recv(server.descriptor(), &left, 1, MSG_DONTWAIT) >= 0) ++wrong;
    co_await client.close();
    co_await server.close();
}

// ---- all of it ----------------------------------------------------------------------------------------------------------

tg::task<> race_closes(std::uint64_t number, std::uint64_t count) {
    dice roll{seed + number};
    for (; count > 0; --count) co_await race_a_close(dice{roll(1U << 30)}, number);
}

}  // namespace

TEST_SUITE("stress: sockets") {
    TEST_CASE(
        "stops, timeouts, completions and closes race at sockets: nothing is lost, doubled or "
        "left") {
        MESSAGE("seed " << seed);
        const std::size_t slots = live_slots();
        const std::size_t descriptors = open_descriptors();
        std::atomic<int> reported{0};
        {
            tg::runtime runtime{{.cores = cores,
                                 .ring_entries = 8,
                                 .on_failure = [&](const tg::failure&) { ++reported; }}};
            runtime.run([]() -> tg::task<> {
                std::vector<tg::token<>> all;
                for (unsigned i = 0; i < 12; ++i) {
                    all.push_back(tg::as_token(race_a_stream(i, 3000), i % cores));
                    all.push_back(tg::as_token(race_datagrams(100 + i, 200), i % cores));
                    all.push_back(tg::as_token(race_closes(200 + i, 200), i % cores));
                }
                for (const std::size_t ahead : {0, 1, 16})
                    all.push_back(tg::as_token(race_a_listener(ahead, 2000), ahead % cores));
                co_await tg::when_all(std::move(all));
            });
            const tg::snapshot now = runtime.snapshot();
            CHECK(now.admitted == now.ended);
            CHECK(runtime.tokens().empty());
        }
        MESSAGE(operations.load() << " operations, " << given_up.load() << " given up");
        CHECK(operations >= 100'000);
        CHECK(given_up > 0);
        CHECK(wrong == 0);
        CHECK(reported == 0);
        CHECK(live_slots() == slots);
        CHECK(open_descriptors() == descriptors);
    }
}
