#!/bin/sh
# SPDX-License-Identifier: MIT
# Compiles every complete C++ program in README.md: readme_snippets.sh README INCLUDE COMPILER...
set -eu
readme=$1
include=$2
shift 2
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
awk -v folder="$folder" '
    /^```cpp$/ { file = folder "/snippet" ++count ".cpp"; next }
    /^```$/ { file = ""; next }
    file { print > file }' "$readme"
found=0
for snippet in "$folder"/*.cpp; do
    grep -q 'int main' "$snippet" || continue
    found=$((found + 1))
    "$@" -std=c++20 -Wall -Wextra -Werror -I"$include" -fsyntax-only "$snippet"
done
echo "$found programs compiled"
[ "$found" -gt 0 ]
