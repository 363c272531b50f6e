// SPDX-License-Identifier: MIT

#include <tokengate/detail/arguments.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <limits>
#include <memory>
#include <ostream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

using tokengate::detail::argument_text;

namespace {

enum class colour : std::uint8_t { red = 3 };
enum plain { one = 1 };

struct point {
    int x, y;
    friend std::ostream& operator<<(std::ostream& out, const point& value) {
        return out << '(' << value.x << '/' << value.y << ')';
    }
};

struct talkative {
    friend std::ostream& operator<<(std::ostream& out, const talkative&) {
        for (int i = 0; i < 100'000 && out; ++i) out << "and so on, ";
        return out;
    }
};

struct unprintable {};

struct broken {
    friend std::ostream& operator<<(std::ostream&, const broken&) {
        throw std::runtime_error("no");
    }
};

struct named {
    operator std::string_view() const { return "a name"; }
};

template <class... Arguments>
std::string text_of(const Arguments&... arguments) {
    argument_text text;
    (text.add(arguments), ...);
    return std::move(text).take();
}

std::size_t characters(std::string_view text) {
    std::size_t count = 0;
    for (const char each : text) count += (each & 0xc0) != 0x80;
    return count;
}

}  // namespace

TEST_SUITE("arguments") {
    TEST_CASE("numbers, enumerations, texts, and what prints itself") {
        CHECK(text_of() == "");
        CHECK(text_of(7, -8, 9U, true, 0.5, 2.5F) == "7, -8, 9, true, 0.5, 2.5");
        CHECK(text_of(std::uint8_t{200}, std::int8_t{-3},
                      std::numeric_limits<std::uint64_t>::max()) ==
              "200, -3, 18446744073709551615");
        CHECK(text_of('x') == "\"x\"");
        CHECK(text_of(colour::red, one) == "3, 1");
        CHECK(text_of(std::string("a"), std::string_view("b"), named{}) == R"("a", "b", "a name")");
        CHECK(text_of(point{1, 2}) == "(1/2)");
    }

    TEST_CASE("what cannot be printed, or must not be looked at, is …") {
        const char* somewhere = nullptr;
        int value = 0;
        CHECK(text_of(unprintable{}, 1, std::vector<int>{1}) == "…, 1, …");
        CHECK(text_of(somewhere, &value, nullptr) == "…, …, …");
        CHECK(text_of(broken{}, 2) == "…, 2");
        CHECK(text_of(std::make_shared<int>(1)) != "");  // whatever the library prints
    }

    TEST_CASE("a text stays one line, and cannot end early") {
        CHECK(text_of(std::string("a\nb\"c\0d", 7)) == R"("a\x0ab\"c\x00d")");
    }

    TEST_CASE("at most 256 characters, the last of which says that there were more") {
        const std::string fits = text_of(std::string(argument_text::longest - 2, 'a'));
        CHECK(fits == '"' + std::string(argument_text::longest - 2, 'a') + '"');
        const std::string longer = text_of(std::string(argument_text::longest - 1, 'a'));
        CHECK(longer == '"' + std::string(argument_text::longest - 2, 'a') + "…");
        CHECK(text_of(std::string(1'000'000, 'a'), 1) == longer);

        const std::string talk = text_of(1, talkative{}, 2);
        CHECK(characters(talk) == argument_text::longest);
        CHECK(talk.starts_with("1, and so on, and"));
        CHECK(talk.ends_with("…"));

        argument_text many;
        for (int i = 0; i < 1000; ++i) many.add(unprintable{});
        const std::string dots = std::move(many).take();
        CHECK(characters(dots) == argument_text::longest);
        CHECK(dots.starts_with("…, …, …"));
    }
}
