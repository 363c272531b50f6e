// SPDX-License-Identifier: MIT
// expect: nodiscard
#include <tokengate/operation.hpp>

const tokengate::operation named{{.name = "named"}, [](int n) { return n; }};

void call() { named(1); }
