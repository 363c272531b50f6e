#!/bin/sh
# SPDX-License-Identifier: MIT
# The C++ of the tutorial and of the how-to pages compiles: docs_snippets.sh ROOT COMPILER...
# A block with `int main` is compiled alone. All other blocks of a page are compiled as one file, in order, behind the
# page's prelude, which is marked "```cpp prelude". Errors name the page and its line.
set -eu
root=$1
shift
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

pages=0
blocks=0
for page in "$root"/docs/tutorial.md "$root"/docs/how-to/*.md; do
    grep -q '^```cpp' "$page" || continue
    rm -f "$folder"/*.cpp
    found=$(awk -v folder="$folder" '
        function fail(why) { print FILENAME ":" NR ": " why >"/dev/stderr"; failed = 1; exit 1 }
        /^```cpp/ {
            if (inside) fail("a block begins inside a block")
            inside = 1
            is_prelude = $2 == "prelude"
            if (is_prelude && (prelude || parts)) fail("the prelude is not the first block, or not the only one")
            text = "#line " NR + 1 " \"" FILENAME "\"\n"
            next
        }
        inside && /^```$/ {
            inside = 0
            ++blocks
            if (is_prelude) prelude = text
            else if (text ~ /int main/) print text >(folder "/program" ++programs ".cpp")
            else parts = parts text
            next
        }
        inside { text = text $0 "\n" }
        END {
            if (failed) exit 1
            if (inside) fail("a block does not end")
            if (parts && !prelude) fail("blocks without `int main` need a prelude")
            if (prelude) print prelude parts >(folder "/page.cpp")
            print blocks + 0
        }' "$page")
    if [ "$found" -eq 0 ]; then
        echo "$page: no block was found" >&2
        exit 1
    fi
    for source in "$folder"/*.cpp; do
        "$@" -std=c++20 -Wall -Wextra -Werror -I"$root/include" -fsyntax-only "$source"
    done
    pages=$((pages + 1))
    blocks=$((blocks + found))
done
echo "$blocks blocks of $pages pages"
[ "$blocks" -gt 0 ]
