// SPDX-License-Identifier: MIT
// expect: an operation needs a name
#include <tokengate/operation.hpp>

const tokengate::operation nameless{{.name = ""}, [](int n) { return n; }};
