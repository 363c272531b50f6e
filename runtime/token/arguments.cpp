// SPDX-License-Identifier: MIT
#include <tokengate/detail/arguments.hpp>

#include "base/quoted.hpp"

#include <array>
#include <charconv>
#include <new>
#include <ostream>
#include <streambuf>

namespace tokengate::detail {

namespace {

constexpr std::string_view unknown = "…";

template <class Number>
void append(std::string& text, Number value) {
    std::array<char, 32> digits;
    const auto written = std::to_chars(digits.data(), digits.data() + digits.size(), value);
    text.append(digits.data(), written.ptr);
}

/// Takes the characters that fit and then fails, so that code that prints much can notice it.
class limited_buffer : public std::streambuf {
public:
    limited_buffer() { setp(room_.data(), room_.data() + room_.size()); }
    [[nodiscard]] std::string_view text() const {
        return {pbase(), static_cast<std::size_t>(pptr() - pbase())};
    }

private:
    std::array<char, argument_text::longest + 1> room_;
};

}  // namespace

bool argument_text::begin() {
    if (text_.size() > 4 * longest) return false;  // in bytes; take() cuts off the rest anyway
    if (count_++ != 0) text_ += ", ";
    return true;
}

void argument_text::write(bool value) { text_ += value ? "true" : "false"; }
void argument_text::write(long long value) { append(text_, value); }
void argument_text::write(unsigned long long value) { append(text_, value); }
void argument_text::write(double value) { append(text_, value); }
void argument_text::write_unknown() { text_ += unknown; }
void argument_text::quote(std::string_view text) { text_ += quoted(text.substr(0, longest + 1)); }

void argument_text::stream(const void* what, void (*print)(std::ostream&, const void*)) {
    limited_buffer buffer;
    try {
        std::ostream out(&buffer);
        print(out, what);
    } catch (const std::bad_alloc&) {
        throw;
    } catch (...) {
        write_unknown();  // it cannot be printed now
        return;
    }
    text_ += on_one_line(buffer.text());
}

std::string argument_text::take() && {
    std::size_t characters = 0;
    // Where the last character that may stay begins, if more follow.
    std::size_t last = 0;
    for (std::size_t i = 0; i < text_.size(); ++i) {
        if ((text_[i] & 0xc0) == 0x80) continue;  // belongs to the character before
        if (characters == longest - 1) last = i;
        if (++characters > longest) {
            text_.resize(last);
            text_ += unknown;
            break;
        }
    }
    return std::move(text_);
}

}  // namespace tokengate::detail
