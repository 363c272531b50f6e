// SPDX-License-Identifier: MIT

#include <tokengate/detail/unique_fd.hpp>

#include <doctest/doctest.h>

#include <fcntl.h>
#include <unistd.h>
#include <array>
#include <cerrno>
#include <random>
#include <type_traits>
#include <utility>
#include <vector>

using tokengate::detail::unique_fd;

static_assert(!std::is_copy_constructible_v<unique_fd> && !std::is_copy_assignable_v<unique_fd>);
static_assert(std::is_nothrow_move_constructible_v<unique_fd> &&
              std::is_nothrow_move_assignable_v<unique_fd>);
static_assert(!std::is_convertible_v<int, unique_fd> && !std::is_convertible_v<unique_fd, bool>);
static_assert(sizeof(unique_fd) == sizeof(int));

namespace {

/// A pipe whose reading end tells whether the writing end, to be owned by the test, is still open: unlike a look at the
/// number, which somebody may have opened again.
struct witness {
    unique_fd reader;
    int writer = -1;

    witness() {
        std::array<int, 2> ends{};
        REQUIRE(::pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK) == 0);
        reader = unique_fd(ends[0]);
        writer = ends[1];
    }

    [[nodiscard]] bool open() const {
        char byte = 0;
        const auto got = ::read(reader.get(), &byte, 1);
        REQUIRE((got == 0 || (got == -1 && errno == EAGAIN)));
        return got != 0;
    }
};

}  // namespace

TEST_SUITE("unique_fd") {
    TEST_CASE("closes what it owns when it ends") {
        const witness pipe;
        {
            const unique_fd owner(pipe.writer);
            CHECK(owner);
            CHECK(owner.get() == pipe.writer);
            CHECK(pipe.open());
        }
        CHECK_FALSE(pipe.open());
    }

    TEST_CASE("owns nothing by default, nor a negative number, such as a failed open's") {
        CHECK_FALSE(unique_fd());
        CHECK(unique_fd().get() == -1);
        CHECK_FALSE(unique_fd(-1));
        CHECK_FALSE(unique_fd(-ENOENT));
        errno = 0;
        { const unique_fd none(-1); }
        CHECK(errno == 0);  // no close was tried
    }

    TEST_CASE("0 is a descriptor") {
        unique_fd zero(0);
        CHECK(zero);
        CHECK(zero.release() == 0);
    }

    TEST_CASE("release leaves it open, and the owner empty") {
        const witness pipe;
        {
            unique_fd owner(pipe.writer);
            CHECK(owner.release() == pipe.writer);
            CHECK_FALSE(owner);
            CHECK(owner.release() == -1);
        }
        CHECK(pipe.open());
        ::close(pipe.writer);
    }

    TEST_CASE("a move takes the descriptor along") {
        const witness pipe;
        {
            unique_fd outer;
            {
                unique_fd inner(pipe.writer);
                unique_fd between(std::move(inner));
                CHECK_FALSE(inner);  // NOLINT(bugprone-use-after-move)
                outer = std::move(between);
                CHECK_FALSE(between);  // NOLINT(bugprone-use-after-move)
            }
            CHECK(outer.get() == pipe.writer);
            CHECK(pipe.open());
        }
        CHECK_FALSE(pipe.open());
    }

    TEST_CASE("an assignment closes what was owned before, at once") {
        const witness before, after;
        unique_fd owner(before.writer);
        owner = unique_fd(after.writer);
        CHECK_FALSE(before.open());
        CHECK(after.open());
        owner = unique_fd();
        CHECK_FALSE(after.open());
        CHECK_FALSE(owner);
    }

    TEST_CASE("an assignment to itself keeps it") {
        const witness pipe;
        unique_fd owner(pipe.writer);
        unique_fd& same = owner;
        owner = std::move(same);
        CHECK(owner.get() == pipe.writer);
        CHECK(pipe.open());
    }

    TEST_CASE(
        "stress: moves among many places close each descriptor once, and only when nobody owns "
        "it") {
        constexpr unsigned seed = 20250620;
        INFO("seed " << seed);
        std::mt19937 random(seed);
        const std::vector<witness> pipes(64);
        constexpr std::size_t nobody = ~std::size_t{0};
        std::vector<unique_fd> places(32);
        std::vector<std::size_t> holds(places.size(), nobody);
        std::size_t next = 0, wrong = 0;
        for (int step = 0; step < 5'000; ++step) {
            const std::size_t to = random() % places.size(), from = random() % places.size();
            if (random() % 16 == 0 && next < pipes.size()) {
                places[to] = unique_fd(pipes[next].writer);
                holds[to] = next++;
            } else {
                places[to] = std::move(places[from]);
                holds[to] = std::exchange(holds[from], to == from ? holds[from] : nobody);
            }
        }
        REQUIRE(next == pipes.size());
        for (std::size_t i = 0; i < pipes.size(); ++i) {
            bool held = false;
            for (std::size_t place = 0; place < places.size(); ++place)
                if (holds[place] == i) {
                    held = true;
                    wrong += places[place].get() != pipes[i].writer;
                }
            wrong += pipes[i].open() != held;
        }
        places.clear();
        for (const witness& pipe : pipes) wrong += pipe.open();
        CHECK(wrong == 0);
    }
}
