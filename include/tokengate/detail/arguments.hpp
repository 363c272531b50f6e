// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <iosfwd>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

/// The arguments of a call as a text, for whoever wants to know later which call it was.
///
///     argument_text text;
///     (text.add(arguments), ...);
///     std::string kept = std::move(text).take();   // 7, "a name", …
///
/// What can be printed: numbers, enumerations, texts by value, and what has an operator<< for a std::ostream that this
/// translation unit knows. Not what lies behind a pointer or a reference: others may be writing there, or nobody may have
/// written yet. That, and all else, is "…". Throws std::bad_alloc.

namespace tokengate::detail {

struct token_record;

template <class T, class Stream = std::ostream>
concept streamed = std::is_class_v<T> && requires(Stream& out, const T& value) {
    sizeof(Stream);  // some operators of the standard library take a stream that must be complete
    out << value;
};

class argument_text {
public:
    static constexpr std::size_t longest =
        256;  ///< characters; the last is "…" where there were more

    template <class T>
    void add(const T& value) {
        if (!begin()) return;
        if constexpr (std::is_enum_v<T>)
            write(+static_cast<std::underlying_type_t<T>>(value));
        else if constexpr (std::is_same_v<T, char>)
            quote({&value, 1});
        else if constexpr (std::is_floating_point_v<T>)
            write(static_cast<double>(value));
        else if constexpr (std::is_same_v<T, bool>)
            write(value);
        else if constexpr (std::is_integral_v<T>)
            write(+value);
        else if constexpr (std::is_class_v<T> && std::is_convertible_v<const T&, std::string_view>)
            quote(value);
        else if constexpr (streamed<T>)
            stream(&value, [](std::ostream& out, const void* what) {
                print(out, *static_cast<const T*>(what));
            });
        else
            write_unknown();
    }

    [[nodiscard]] std::string take() &&;

private:
    template <class T, class Stream>
    static void print(Stream& out, const T& value) {
        out << value;
    }

    bool begin();
    void write(bool value);
    void write(int value) { write(static_cast<long long>(value)); }
    void write(unsigned value) { write(static_cast<unsigned long long>(value)); }
    void write(long value) { write(static_cast<long long>(value)); }
    void write(unsigned long value) { write(static_cast<unsigned long long>(value)); }
    void write(long long value);
    void write(unsigned long long value);
    void write(double value);
    void quote(std::string_view text);
    void stream(const void* what, void (*print)(std::ostream&, const void*));
    void write_unknown();

    std::string text_;
    std::size_t count_ = 0;
};

/// Where the times of a guarded operation's token will stand, and the text of its arguments does: from the call on. Throws
/// std::bad_alloc.
void begin_notes(token_record& token, argument_text&& arguments);

}  // namespace tokengate::detail
