// SPDX-License-Identifier: MIT
// expect: an operation's callable is called from every core at once, so it must be const
#include <tokengate/operation.hpp>

const tokengate::operation counts{{.name = "counts"}, [n = 0]() mutable { return ++n; }};
