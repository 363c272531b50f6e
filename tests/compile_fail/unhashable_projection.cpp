// SPDX-License-Identifier: MIT
// expect: the projection of this sticky anchor returns a type without std::hash
#include <tokengate/operation.hpp>

struct unhashable {};
const tokengate::operation sticky{
    {.name = "sticky"}, tokengate::sticky{"key", [](int) { return unhashable(); }}, [](int) {}};

void call() { static_cast<void>(sticky(1)); }
