// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <iosfwd>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

/// The arguments of a call as text, which identifies the call later.
///
///     argument_text text;
///     (text.add(arguments), ...);
///     std::string kept = std::move(text).take();   // 7, "a name", …
///
/// Printable are numbers, enumerations, strings by value, and types with an operator<< for
/// std::ostream that this translation unit declares. Values behind a pointer or a reference are not
/// printed: another thread may be writing them, or they may not be written yet. These and all other
/// types print as "…". Throws std::bad_alloc.

namespace tokengate::detail {

struct token_record;

template <class T, class Stream = std::ostream>
concept streamed = std::is_class_v<T> && requires(Stream& out, const T& value) {
    // Some operators of the standard library take a stream, which must be complete here.
    sizeof(Stream);
    out << value;
};

class argument_text {
public:
    /// In characters. If there were more, the last is "…".
    static constexpr std::size_t longest = 256;

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

/// Prepares the notes of a guarded operation's token at the call: memory for its times, and the
/// text of its arguments. Throws std::bad_alloc.
void begin_notes(token_record& token, argument_text&& arguments);

}  // namespace tokengate::detail
