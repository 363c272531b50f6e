// SPDX-License-Identifier: MIT
#pragma once

#include <tokengate/options.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string_view>
#include <type_traits>
#include <utility>

/// An anchor binds the tokens of an operation to a core. An operation's constructor takes one
/// anchor, or none. A sticky anchor runs tokens with an equal key on one core while any of them is
/// in flight, regardless of which core admits them. That is a placement, not a lock. A lead opens a
/// seed domain: everything that the lead spawns, at any depth, inherits its seed and runs on its
/// core.
///
///     tg::sticky{"account"}  // key: the name and all arguments
///     // key: the name and the result of the projection
///     tg::sticky{"account", [](account_id id, money) { return id; }}
///     tg::sticky_by_name{"account"}  // key: the name alone
///     tg::lead{"parse", "store"}     // opens a seed domain; names the calls it makes

namespace tokengate {

namespace detail {

constexpr std::uint64_t mix(
    std::uint64_t x) noexcept {  // the finaliser of SplitMix64 (Steele, Lea, Flood 2014)
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebU;
    return x ^ (x >> 31);
}

constexpr std::uint64_t combine(std::uint64_t seed, std::uint64_t next) noexcept {
    return mix(seed + 0x9e3779b97f4a7c15U + next);
}

template <class T>
concept hashable = requires(const T& value) {
    { std::hash<T>{}(value) } -> std::convertible_to<std::size_t>;
};

struct no_projection {};

}  // namespace detail

/// No anchor: the token runs on a core where its class has room.
struct unanchored {};

/// The key is a hash of the name and of all arguments, or of the name and the result of the
/// projection. Each hashed type needs a std::hash; otherwise the code does not compile.
template <class Projection = detail::no_projection>
struct sticky {
    operation_name name;
    [[no_unique_address]] Projection projection{};

    consteval sticky(operation_name anchor)  // NOLINT(google-explicit-constructor)
        requires std::is_same_v<Projection, detail::no_projection>
        : name(anchor) {}
    constexpr sticky(operation_name anchor, Projection by)
        : name(anchor), projection(std::move(by)) {}

    template <class... Arguments>
    [[nodiscard]] std::uint64_t key(const Arguments&... arguments) const {
        std::uint64_t hash = std::hash<std::string_view>{}(name.view());
        if constexpr (std::is_same_v<Projection, detail::no_projection>) {
            static_assert((detail::hashable<Arguments> && ...),
                          "an argument of this sticky operation has no std::hash: give the sticky "
                          "anchor a projection to "
                          "something that has, or specialise std::hash, or use sticky_by_name");
            ((hash = detail::combine(hash, std::hash<Arguments>{}(arguments))), ...);
        } else {
            using projected =
                std::remove_cvref_t<std::invoke_result_t<const Projection&, const Arguments&...>>;
            static_assert(detail::hashable<projected>,
                          "the projection of this sticky anchor returns a type without std::hash: "
                          "return something that "
                          "has one, or specialise it");
            hash = detail::combine(hash,
                                   std::hash<projected>{}(std::invoke(projection, arguments...)));
        }
        return hash;
    }
};

template <std::size_t N>
sticky(const char (&)[N]) -> sticky<detail::no_projection>;
template <std::size_t N, class Projection>
sticky(const char (&)[N], Projection) -> sticky<Projection>;

/// The key is a hash of the name alone.
struct sticky_by_name {
    operation_name name;
    template <class... Arguments>
    [[nodiscard]] std::uint64_t key(const Arguments&...) const {
        return detail::mix(std::hash<std::string_view>{}(name.view()));
    }
};

/// Makes the operation a lead. `calls` names the calls that it makes; the seed is computed from
/// them and from the token's id.
template <std::size_t N>
struct lead {
    std::array<const char*, N> calls;

    template <class... Names>
        requires(sizeof...(Names) == N)
    consteval lead(const Names&... names)  // NOLINT(google-explicit-constructor)
        : calls{operation_name(names).c_str()...} {}
};

template <class... Names>
lead(const Names&...) -> lead<sizeof...(Names)>;

namespace detail {

template <class>
inline constexpr bool is_sticky = false;
template <class Projection>
inline constexpr bool is_sticky<sticky<Projection>> = true;
template <>
inline constexpr bool is_sticky<sticky_by_name> = true;

template <class>
inline constexpr bool is_lead = false;
template <std::size_t N>
inline constexpr bool is_lead<lead<N>> = true;

template <class T>
concept anchor = std::is_same_v<T, unanchored> || is_sticky<T> || is_lead<T>;

}  // namespace detail
}  // namespace tokengate
