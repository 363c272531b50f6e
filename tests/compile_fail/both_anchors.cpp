// SPDX-License-Identifier: MIT
// expect: an anchor is tg::sticky, tg::sticky_by_name or tg::lead: one of them, once
#include <tokengate/operation.hpp>

const tokengate::operation both{
    {.name = "both"}, tokengate::sticky{"key"}, tokengate::lead{"named"}, [](int n) { return n; }};
