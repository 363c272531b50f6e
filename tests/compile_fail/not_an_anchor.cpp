// SPDX-License-Identifier: MIT
// expect: an anchor is tg::sticky, tg::sticky_by_name or tg::lead
#include <tokengate/operation.hpp>

const tokengate::operation anchored{{.name = "anchored"}, 42, [](int n) { return n; }};
