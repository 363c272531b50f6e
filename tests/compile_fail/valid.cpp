// SPDX-License-Identifier: MIT
// compiles
// What the other files here get wrong, done right: they fail for no other reason.
#include <tokengate/operation.hpp>

#include <string>

namespace tg = tokengate;

struct unhashable {};

const tg::operation named{{.name = "named"}, [](int n) { return n; }};
const tg::operation sticky{{.name = "sticky"},
                           tg::sticky{"key", [](const unhashable&, int n) { return n; }},
                           [](const unhashable&, int n) { return n; }};
const tg::operation by_name{
    {.name = "by_name"}, tg::sticky_by_name{"key"}, [](const unhashable&) {}};
const tg::operation lead{
    {.name = "lead"}, tg::lead{"named"}, [](std::string) -> tg::task<> { co_return; }};

void call() {
    static_cast<void>(named(1));
    static_cast<void>(sticky({}, 1));
    static_cast<void>(by_name({}));
    static_cast<void>(lead("text"));
}
