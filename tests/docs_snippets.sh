#!/bin/sh
# SPDX-License-Identifier: MIT
# The C++ of the README, of the tutorial and of the how-to pages compiles: docs_snippets.sh ROOT COMPILER...
# A block with `int main` is compiled alone. All other blocks of a page are compiled as one file, in order, behind the
# page's prelude, which is marked "```cpp prelude". An error names the page, as PAGE.cpp or
# PAGE.NUMBER.cpp, and its line there.
set -eu
root=$1
shift
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# Blocks include the library by themselves; read once, it takes a tenth of the time.
echo '#include <tokengate/tokengate.hpp>' >"$folder/library.hpp"
"$@" -std=c++20 -Wall -Wextra -I"$root/include" -x c++-header "$folder/library.hpp" -o "$folder/library.hpp.gch"

pages=0
blocks=0
for page in "$root"/README.md "$root"/docs/tutorial.md "$root"/docs/how-to/*.md; do
    case $page in
        */how-to/*) grep -q '^```cpp' "$page" || continue ;; # the others must have some
    esac
    rm -f "$folder"/*.cpp
    found=$(awk -v folder="$folder" -v page="$(basename "$page")" '
        function fail(why) { print FILENAME ":" NR ": " why >"/dev/stderr"; failed = 1; exit 1 }
        /^```cpp/ {
            if (inside) fail("a block begins inside a block")
            inside = 1
            is_prelude = $2 == "prelude"
            if (is_prelude && (prelude || parts)) fail("the prelude is not the first block, or not the only one")
            text = "#line " NR + 1 "\n"  # without a name: compilers take another file for a header
            next
        }
        inside && /^```$/ {
            inside = 0
            ++blocks
            if (is_prelude) prelude = text
            else if (text ~ /int main/) print text >(folder "/" page "." ++programs ".cpp")
            else parts = parts text
            next
        }
        inside { text = text $0 "\n" }
        END {
            if (failed) exit 1
            if (inside) fail("a block does not end")
            if (parts && !prelude) fail("blocks without `int main` need a prelude")
            if (prelude) print prelude parts >(folder "/" page ".cpp")
            print blocks + 0
        }' "$page")
    if [ "$found" -eq 0 ]; then
        echo "$page: no block was found" >&2
        exit 1
    fi
    for source in "$folder"/*.cpp; do
        grep -q '^#include <tokengate/' "$source" || {
            echo "$page: $(basename "$source") does not include the library" >&2
            exit 1
        }
        "$@" -std=c++20 -Wall -Wextra -Werror -I"$root/include" -include "$folder/library.hpp" -fsyntax-only "$source"
    done
    pages=$((pages + 1))
    blocks=$((blocks + found))
done
echo "$blocks blocks of $pages pages"
[ "$blocks" -gt 0 ]
