// SPDX-License-Identifier: MIT
// expect: an operation's name has printable ASCII characters only
#include <tokengate/operation.hpp>

const tokengate::operation two_lines{{.name = "two\nlines"}, [](int n) { return n; }};
