// SPDX-License-Identifier: MIT
// expect: an operation's name has at most 64 characters
#include <tokengate/operation.hpp>

const tokengate::operation long_winded{
    {.name = "a name of more characters than sixty-four, which is one too many."},
    [](int n) { return n; }};
