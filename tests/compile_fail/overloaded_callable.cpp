// SPDX-License-Identifier: MIT
// expect: an operation needs a callable with one call operator
#include <tokengate/operation.hpp>

const tokengate::operation generic{{.name = "generic"}, [](auto n) { return n; }};
