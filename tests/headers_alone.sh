#!/bin/sh
# SPDX-License-Identifier: MIT
# headers_alone.sh INCLUDE "HEADER ..." COMPILER...: each header compiles alone, and twice in one source.
set -eu
include=$1
headers=$2
shift 2
# shellcheck disable=SC2086
printf '%s\n' $headers | xargs -P "$(nproc)" -I{} sh -c '
    header=$1
    shift
    printf "#include <%s>\n#include <%s>\n" "$header" "$header" | "$@" -x c++ -fsyntax-only - ||
        { echo "$header does not compile alone" >&2 && exit 255; }' headers_alone {} \
    "$@" -std=c++20 -Wall -Wextra -Wpedantic -Werror -I"$include"
echo "$(printf '%s\n' $headers | wc -l) headers"
