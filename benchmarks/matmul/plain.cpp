// SPDX-License-Identifier: MIT

/// The hand-written limit: the same recursion as a function; and the tiles of the result, taken from a counter by a
/// team.

#include "../support/team.hpp"
#include "measured.hpp"

#include <cstddef>

namespace {

void multiply(const matmul::product& of) {
    if (of.small()) return of.multiply();
    for (const unsigned half : {0U, 1U})
        for (unsigned i = 0; i < 4; ++i) multiply(of.part(i, half));
}

/// All products of one tile of the result.
void tile_of(const matmul::product& of, std::size_t index) {
    constexpr std::size_t tile = matmul::tile;
    const std::size_t across = of.size / tile, row = index / across * tile,
                      column = index % across * tile;
    for (std::size_t k = 0; k < of.size; k += tile)
        matmul::product{{of.a.first + row * of.a.stride + k, of.a.stride},
                        {of.b.first + k * of.b.stride + column, of.b.stride},
                        {of.c.first + row * of.c.stride + column, of.c.stride},
                        tile}
            .multiply();
}

}  // namespace

int main(int argc, char** argv) {
    const contest::request asked(argc, argv);
    matmul::matrices all(asked.size);
    team threads(asked.threads);
    return contest::answer(asked,
                           {{"function", [&] { return matmul::measured(all, multiply); }},
                            {"team", [&] {
                                 return matmul::measured(all, [&](const matmul::product& of) {
                                     const std::size_t across = of.size / matmul::tile;
                                     threads.each_index(across * across,
                                                        [&](std::size_t i) { tile_of(of, i); });
                                 });
                             }}});
}
