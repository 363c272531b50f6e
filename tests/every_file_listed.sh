#!/bin/sh
# SPDX-License-Identifier: MIT
# every_file_listed.sh ROOT FILE...: fails when ROOT has a public header, a runtime source or a test that no FILE ends with.
set -eu
cd "$1"
shift
listed=" $* "
missing=0
for file in $(find include/tokengate -name '*.hpp') $(find runtime -path runtime/console -prune -o -name '*.cpp' -print) $(find tests -name '*_test.cpp'); do
    name=${file#*/}
    case $listed in
        *[/\ ]"$name "*) ;;
        *) echo "$file is in no meson.build" && missing=1 ;;
    esac
done
exit $missing
