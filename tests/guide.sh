#!/bin/sh
# SPDX-License-Identifier: MIT
# The guide's C++ compiles, each block behind its prelude and those before it, and its samples are the files that are built:
# guide.sh ROOT COMPILER...
# A block of a sample follows a line `### path`. `guide.sh --write ROOT` puts the files' present text into the guide.
set -eu
write=false
if [ "$1" = --write ]; then
    write=true
    shift
fi
root=$1
shift
guide=$root/docs/guide.md
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# The guide as it should be: each sample's block has the text of its file.
awk -v root="$root/" '
    /^### samples\// { path = $2 }
    !inside { print }
    inside && /^```$/ { inside = 0; print; next }
    /^```cpp$/ && path { while ((getline text < (root path)) > 0) print text; close(root path); path = ""; inside = 1 }
' "$guide" >"$folder/guide.md"
if $write; then
    cp "$folder/guide.md" "$guide"
    exit
fi
cmp "$guide" "$folder/guide.md" || {
    echo "docs/guide.md does not show the samples as they are: tests/guide.sh --write ." >&2
    exit 1
}

awk '/^### samples\// { exit }
     /^```cpp/ { inside = 1; next }
     /^```$/ { inside = 0; next }
     inside { print }' "$guide" >"$folder/blocks.cpp"
grep -q operation "$folder/blocks.cpp"
"$@" -std=c++20 -Wall -Wextra -Werror -I"$root/include" -fsyntax-only "$folder/blocks.cpp"
echo "$(grep -c '^```cpp' "$guide") blocks"
