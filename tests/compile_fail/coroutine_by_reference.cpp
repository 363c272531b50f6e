// SPDX-License-Identifier: MIT
// expect: a coroutine's parameters outlive the call: take them by value
#include <tokengate/operation.hpp>

#include <string>

const tokengate::operation dangles{
    {.name = "dangles"},
    [](const std::string& s) -> tokengate::task<std::size_t> { co_return s.size(); }};
