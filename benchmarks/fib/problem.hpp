// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

/// The `size`th Fibonacci number, by the double recursion, every call a unit of parallel work: 2 children, no work
/// at all.

namespace fib {

/// Calls whose results sum up to fib(n), enough of them to share out: the recursion's top, cut off.
inline std::vector<unsigned> parts(unsigned n, unsigned threads) {
    std::vector<unsigned> calls{n};
    while (threads > 1 && calls.size() < 32 * threads) {
        std::vector<unsigned> below;
        for (const unsigned call : calls) {
            if (call < 2)
                below.push_back(call);
            else
                below.insert(below.end(), {call - 1, call - 2});
        }
        if (below.size() == calls.size()) break;
        calls = std::move(below);
    }
    return calls;
}

}  // namespace fib
