#!/bin/sh
# SPDX-License-Identifier: MIT
# What `checksum` prints is what sha256sum prints: checksum.sh PROGRAM DIRECTORY
set -eu
program=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export LC_ALL=C

expected() { find "$1" -type f -print0 | sort -z | xargs -0 -r sha256sum; }

same() {
    expected "$1" >"$folder/expected"
    "$program" "$1" >"$folder/printed"
    cmp "$folder/expected" "$folder/printed"
    echo "$(wc -l <"$folder/printed") files of $1"
}

# fails_on DIRECTORY PROGRAM...: the program prints what is in $folder/expected, says why it fails, and does.
fails_on() {
    directory=$1
    shift
    if "$@" "$directory" >"$folder/printed" 2>"$folder/said"; then
        echo "$* does not fail" >&2
        exit 1
    fi
    cmp "$folder/expected" "$folder/printed"
}

same "$2"
mkdir "$folder/odd" "$folder/odd/empty directory"
: >"$folder/odd/empty"
: >"$folder/odd/a name with spaces"
printf 'x' >"$folder/odd/back\\slash"
printf 'y' >"$folder/odd/line
end"
head -c 3000000 /dev/urandom >"$folder/odd/large"
ln -s large "$folder/odd/link"
same "$folder/odd"
"$program" "$folder/odd/large" | cmp - <<END
$(sha256sum "$folder/odd/large")
END

# What cannot be read is said, and does not keep the rest from being printed. First what is not there.
: >"$folder/expected"
fails_on "$folder/nowhere" "$program"
grep -q "$folder/nowhere" "$folder/said"

# Names whose paths are too long for the kernel, which nobody can look at, root neither, among others.
deep=$folder/deep
name=$(printf '%0100d' 0)
while [ ${#deep} -lt 3900 ]; do deep=$deep/$name; done
mkdir -p "$deep"
(
    cd "$deep"
    for i in 1 2 3 4 5 6 7 8 9; do
        printf '%s' "$i" >"short$i"
        : >"long$i$name$name"
        mkdir "directory$i$name$name"
    done
)
for i in 1 2 3 4 5 6 7 8 9; do sha256sum "$deep/short$i"; done >"$folder/expected"
fails_on "$folder/deep" "$program"
[ "$(grep -c 'File name too long' "$folder/said")" = 18 ]

# Files and directories without permission, where there is somebody who has none.
mkdir "$folder/mixed" "$folder/mixed/closed"
for i in 1 2 3 4 5 6 7 8 9; do echo "$i" >"$folder/mixed/$i"; done
expected "$folder/mixed" >"$folder/expected"
for i in 1 5 9; do echo "$i" >"$folder/mixed/secret$i"; done
chmod 0 "$folder/mixed/closed" "$folder/mixed"/secret*
chmod 755 "$folder"
nobody=
[ "$(id -u)" != 0 ] || nobody='setpriv --reuid 65534 --clear-groups'
if $nobody "$program" --help >"$folder/said" 2>&1; then
    fails_on "$folder/mixed" $nobody "$program"
    [ "$(grep -c 'Permission denied' "$folder/said")" = 4 ]
else
    echo "nobody cannot run the program: permissions are not tested"
fi

# What could not be printed is a failure.
if "$program" "$folder/odd" >/dev/full 2>"$folder/said"; then exit 1; fi
grep -q 'write error' "$folder/said"

# More files than descriptors.
mkdir "$folder/many"
for i in $(seq 500); do echo "$i" >"$folder/many/$i"; done
(
    ulimit -n 64
    program="$program --cores 2"
    expected "$folder/many" >"$folder/expected"
    $program "$folder/many" >"$folder/printed"
    cmp "$folder/expected" "$folder/printed"
)
