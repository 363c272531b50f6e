// SPDX-License-Identifier: MIT
// expect: an operation needs a name
#include <tokengate/operation.hpp>

const tokengate::operation nameless_key{
    {.name = "named"}, tokengate::sticky{""}, [](int n) { return n; }};
