#!/bin/sh
# SPDX-License-Identifier: MIT
# compile_fail.sh DIRECTORY COMPILER...: each source of DIRECTORY must be refused, with the words of its `// expect:` line;
# one that says `// compiles` instead must not.
set -u
directory=$1
shift
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# Read once, the library takes a tenth of the time.
echo '#include <tokengate/tokengate.hpp>' >"$folder/library.hpp"
"$@" -x c++-header "$folder/library.hpp" -o "$folder/library.hpp.gch" || exit 1
checked=0
wrong=0
for source in "$directory"/*.cpp; do
    said=$("$@" -include "$folder/library.hpp" -fsyntax-only "$source" 2>&1)
    status=$?
    expected=$(sed -n 's|^// expect: ||p' "$source")
    if grep -q '^// compiles$' "$source"; then
        [ $status -eq 0 ] || { echo "$source does not compile:"; echo "$said"; wrong=1; }
    elif [ -z "$expected" ]; then
        echo "$source has no '// expect:' line" && wrong=1
    elif [ $status -eq 0 ]; then
        echo "$source compiles" && wrong=1
    elif ! printf '%s' "$said" | grep -qF -- "$expected"; then
        echo "$source is refused without the words '$expected':"; echo "$said"; wrong=1
    fi
    checked=$((checked + 1))
done
echo "$checked sources checked"
[ $checked -gt 0 ] && exit $wrong
