// SPDX-License-Identifier: MIT
// expect: deleted
#include <tokengate/operation.hpp>

int plain(int n) { return n; }

void call() {
    auto dangles = tokengate::operation<int (*)(int)>({.name = "temporary"}, plain)(1);
    static_cast<void>(dangles);
}
