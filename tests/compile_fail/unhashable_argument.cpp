// SPDX-License-Identifier: MIT
// expect: an argument of this sticky operation has no std::hash: give the sticky anchor a projection
#include <tokengate/operation.hpp>

struct unhashable {};
const tokengate::operation sticky{
    {.name = "sticky"}, tokengate::sticky{"key"}, [](const unhashable&) {}};

void call() { static_cast<void>(sticky({})); }
