// SPDX-License-Identifier: MIT
// expect: explicit_reference
#include <tokengate/operation.hpp>

const tokengate::operation counts{{.name = "counts"}, [](int& n) { ++n; }};

void call(int n) { static_cast<void>(counts(n)); }  // std::ref(n)
