// SPDX-License-Identifier: MIT
#include "loop/buffer_ring.hpp"

#include <doctest/doctest.h>

#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <limits>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

using tokengate::detail::buffer_ring;

namespace {

/// A ring and a pair of connected sockets, which keep the borders of messages: one message, one buffer.
class line {
public:
    explicit line(unsigned flags = 0) {
        REQUIRE(io_uring_queue_init(64, &ring, flags) == 0);
        REQUIRE(::socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends_) == 0);
    }
    ~line() {
        hang_up();
        ::close(ends_[1]);
        io_uring_queue_exit(&ring);
    }
    line(const line&) = delete;
    line& operator=(const line&) = delete;

    void send(const std::string& text) {
        REQUIRE(::send(ends_[0], text.data(), text.size(), MSG_NOSIGNAL) ==
                static_cast<ssize_t>(text.size()));
    }

    void hang_up() {
        if (ends_[0] >= 0) ::close(std::exchange(ends_[0], -1));
    }

    void receive(const buffer_ring& buffers, bool multishot = true) {
        io_uring_sqe* sqe = io_uring_get_sqe(&ring);
        REQUIRE(sqe);
        if (multishot)
            io_uring_prep_recv_multishot(sqe, ends_[1], nullptr, 0, 0);
        else
            io_uring_prep_recv(sqe, ends_[1], nullptr, 0, 0);
        sqe->flags |= IOSQE_BUFFER_SELECT;
        sqe->buf_group = buffers.group();
        REQUIRE(io_uring_submit(&ring) == 1);
    }

    /// Sleeps until it is there; the time is only what turns a lost completion into a failed test.
    io_uring_cqe completion() {
        __kernel_timespec limit{30, 0};
        io_uring_cqe* done = nullptr;
        REQUIRE(io_uring_wait_cqe_timeout(&ring, &done, &limit) == 0);
        const io_uring_cqe copy = *done;
        io_uring_cqe_seen(&ring, done);
        return copy;
    }

    io_uring ring{};

private:
    int ends_[2] = {-1, -1};
};

bool more(const io_uring_cqe& done) { return done.flags & IORING_CQE_F_MORE; }
bool brings_buffer(const io_uring_cqe& done) { return done.flags & IORING_CQE_F_BUFFER; }

std::string text(const buffer_ring& buffers, std::uint16_t id, std::int32_t length) {
    const auto bytes = buffers.buffer(id, static_cast<std::size_t>(length));
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// What making one throws: its code, and whether it names the call.
int error_of(io_uring& ring, std::uint16_t group, unsigned buffers, std::size_t bytes,
             const char* call) {
    try {
        buffer_ring made(ring, group, buffers, bytes);
        return 0;
    } catch (const std::system_error& error) {
        CAPTURE(error.what());
        CHECK(std::string(error.what()).find(call) == 0);
        return error.code().value();
    }
}

std::size_t mapped_pages() {
    std::size_t pages = 0;
    std::ifstream("/proc/self/statm") >> pages;
    return pages;
}

}  // namespace

TEST_SUITE("buffer_ring") {
    TEST_CASE("a receive gets a buffer when its data comes, and only then") {
        line wire;
        buffer_ring buffers(wire.ring, 7, 4, 32);
        CHECK(buffers.group() == 7);
        CHECK(buffers.lent() == 0);
        wire.receive(buffers, false);
        wire.send("hello");
        const io_uring_cqe done = wire.completion();
        REQUIRE(done.res == 5);
        REQUIRE(brings_buffer(done));
        const std::uint16_t id = buffers.take(done);
        CHECK(id < 4);
        CHECK(buffers.lent() == 1);
        CHECK(text(buffers, id, done.res) == "hello");
        buffers.give_back(id);
        CHECK(buffers.lent() == 0);
    }

    TEST_CASE(
        "a multishot receive: each message has a buffer of its own, until all are lent; given "
        "back, it goes on; end") {
        line wire;
        buffer_ring buffers(wire.ring, 0, 8, 16);
        wire.receive(buffers);
        for (int i = 0; i < 9; ++i) wire.send("message " + std::to_string(i));
        std::vector<std::uint16_t> held;
        for (int i = 0; i < 8; ++i) {
            const io_uring_cqe done = wire.completion();
            CAPTURE(i);
            REQUIRE(done.res == 9);
            CHECK(more(done));
            REQUIRE(brings_buffer(done));
            held.push_back(buffers.take(done));
        }
        CHECK(buffers.lent() == 8);
        CHECK(std::set<std::uint16_t>(held.begin(), held.end()).size() == 8);
        for (int i = 0; i < 8; ++i)
            CHECK(text(buffers, held[static_cast<std::size_t>(i)], 9) ==
                  "message " + std::to_string(i));

        const io_uring_cqe none_left = wire.completion();
        CHECK(none_left.res == -ENOBUFS);
        CHECK_FALSE(more(none_left));
        CHECK_FALSE(brings_buffer(none_left));

        buffers.give_back(held[5]);
        CHECK(buffers.lent() == 7);
        wire.receive(buffers);
        const io_uring_cqe ninth = wire.completion();
        REQUIRE(ninth.res == 9);
        REQUIRE(brings_buffer(ninth));
        const std::uint16_t id = buffers.take(ninth);
        CHECK(id == held[5]);
        CHECK(text(buffers, id, ninth.res) == "message 8");
        CHECK(text(buffers, held[4], 9) == "message 4");  // what is still lent was left alone
        if (more(ninth))
            CHECK(wire.completion().res ==
                  -ENOBUFS);  // looked for a buffer before it looked for a message

        for (const std::uint16_t each : held) buffers.give_back(each);
        CHECK(buffers.lent() == 0);
        wire.receive(buffers);
        wire.hang_up();
        const io_uring_cqe end = wire.completion();
        CHECK(end.res == 0);
        CHECK_FALSE(more(end));
        if (brings_buffer(end)) buffers.give_back(buffers.take(end));
    }

    TEST_CASE("a message that fills its buffer to the last byte leaves the next buffer alone") {
        line wire;
        buffer_ring buffers(wire.ring, 1, 2, 4096);
        wire.receive(buffers);
        const std::string full(4096, 'a');
        wire.send(full);
        const io_uring_cqe first = wire.completion();
        const std::uint16_t id = buffers.take(first);
        CHECK(text(buffers, id, first.res) == full);
        wire.send("b");
        const io_uring_cqe second = wire.completion();
        const std::uint16_t other = buffers.take(second);
        CHECK(other != id);
        CHECK(text(buffers, other, second.res) == "b");
        CHECK(text(buffers, id, first.res) == full);
    }

    TEST_CASE("two groups of one ring do not mix; a group that has gone may come again") {
        line one;
        for (int round = 0; round < 3; ++round) {
            buffer_ring small(one.ring, 1, 2, 16), large(one.ring, 2, 2, 1024);
            CHECK(error_of(one.ring, 2, 4, 16, "io_uring_register_buf_ring(2,") == EEXIST);
            one.send("small");
            one.receive(small, false);
            const io_uring_cqe first = one.completion();
            CHECK(text(small, small.take(first), first.res) == "small");
            one.send("large");
            one.receive(large, false);
            const io_uring_cqe second = one.completion();
            CHECK(text(large, large.take(second), second.res) == "large");
            CHECK(small.lent() == 1);
            CHECK(large.lent() == 1);
        }
    }

    TEST_CASE("what cannot be made says which call failed, and keeps no memory") {
        line wire;
        const char* call = "io_uring_register_buf_ring(3,";
        for (const unsigned buffers : {0u, 3u, 12u, 32767u, 32769u, 65536u, ~0u}) {
            CAPTURE(buffers);
            CHECK(error_of(wire.ring, 3, buffers, 64, call) == EINVAL);
        }
        CHECK(error_of(wire.ring, 3, 8, 0, call) == EINVAL);
        CHECK(error_of(wire.ring, 3, 8, std::size_t{std::numeric_limits<unsigned>::max()} + 1,
                       call) == EINVAL);
        CHECK(error_of(wire.ring, 3, 32768, std::numeric_limits<unsigned>::max(), "mmap of ") ==
              ENOMEM);

        buffer_ring there(wire.ring, 3, 8, 64);
        const std::size_t before = mapped_pages();
        for (int i = 0; i < 100; ++i) {
            CHECK(error_of(wire.ring, 3, 256, 65536, call) == EEXIST);
            CHECK(error_of(wire.ring, 4, 256, 65536, "") == 0);
        }
        CHECK(mapped_pages() - before < 256 * 65536 / 4096);
    }

    TEST_CASE("the fewest and the most buffers") {
        line wire;
        for (const unsigned buffers : {1u, 32768u}) {
            CAPTURE(buffers);
            buffer_ring made(wire.ring, 65535, buffers, 8);
            for (unsigned i = 0; i < buffers + 3; ++i) {  // once round
                wire.send("m" + std::to_string(i));
                wire.receive(made, false);
                const io_uring_cqe done = wire.completion();
                const std::uint16_t id = made.take(done);
                if (id != i % buffers || text(made, id, done.res) != "m" + std::to_string(i))
                    FAIL("message ", i);
                made.give_back(id);
            }
        }
    }

    TEST_CASE(
        "destroyed by a thread that is not the ring's: the kernel keeps the group, and its memory "
        "stays") {
        line wire(IORING_SETUP_SINGLE_ISSUER);
        std::optional<buffer_ring> buffers;
        buffers.emplace(wire.ring, std::uint16_t{1}, 2u, std::size_t{16});
        const std::span<std::byte> first = buffers->buffer(0, 5);
        std::thread([&] { buffers.reset(); }).join();
        CHECK(error_of(wire.ring, 1, 2, 16, "io_uring_register_buf_ring(1,") == EEXIST);
        std::memcpy(first.data(), "there", 5);
        CHECK(std::memcmp(first.data(), "there", 5) == 0);
    }

    TEST_CASE(
        "stress: 10,000 messages through 8 buffers, held for a while and given back in any order") {
        constexpr unsigned seed = 20240612;
        constexpr int count = 10'000;
        MESSAGE("seed ", seed);
        for (const unsigned flags : {0u, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN}) {
            CAPTURE(flags);
            line wire(flags);
            buffer_ring buffers(wire.ring, 9, 8, 64);
            std::minstd_rand random(seed);
            const auto message = [](int number) {
                return std::string(static_cast<std::size_t>(number) % 50, 'x') +
                       std::to_string(number);
            };
            struct holding {
                std::uint16_t id;
                std::string expected;
            };
            std::vector<holding> held;
            int sent = 0, received = 0, dry = 0;
            bool intact = true, receiving = false;
            const auto give_back_some = [&](std::size_t least) {
                for (std::size_t n = least + random() % (held.size() - least + 1); n > 0; --n) {
                    std::swap(held[random() % held.size()], held.back());
                    const auto& [id, expected] = held.back();
                    intact = intact && text(buffers, id,
                                            static_cast<std::int32_t>(expected.size())) == expected;
                    buffers.give_back(id);
                    held.pop_back();
                }
            };
            while (received < count) {
                for (auto n = random() % 12; n > 0 && sent < count && sent - received < 100; --n)
                    wire.send(message(sent++));
                if (received == sent) continue;
                if (!receiving) wire.receive(buffers);
                const io_uring_cqe done = wire.completion();
                receiving = more(done);
                if (done.res == -ENOBUFS) {
                    ++dry;
                    give_back_some(held.empty() ? 0 : 1);
                    continue;
                }
                REQUIRE(done.res > 0);
                held.push_back({buffers.take(done), message(received++)});
                CHECK(buffers.lent() == held.size());
                if (random() % 4 == 0) give_back_some(0);
            }
            give_back_some(held.size());
            CHECK(intact);
            CHECK(buffers.lent() == 0);
            CHECK(dry > 0);
            wire.hang_up();
            if (!receiving) wire.receive(buffers);
            io_uring_cqe end = wire.completion();
            if (end.res == -ENOBUFS) {
                wire.receive(buffers);
                end = wire.completion();
            }
            CHECK(end.res == 0);
        }
    }
}
