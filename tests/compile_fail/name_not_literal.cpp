// SPDX-License-Identifier: MIT
// expect: operation_options
#include <tokengate/operation.hpp>

#include <string>

std::string text = "made at run time";
const tokengate::operation computed{{.name = text.c_str()}, [](int n) { return n; }};
