// SPDX-License-Identifier: MIT
// expect: operation
#include <tokengate/operation.hpp>

const tokengate::operation both{
    {.name = "both"}, tokengate::sticky{"key"}, tokengate::lead{"named"}, [](int n) { return n; }};
