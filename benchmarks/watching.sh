#!/bin/sh
# SPDX-License-Identifier: MIT
# What watching costs the waves: nothing, metrics and trace in turn, so that all meet the same machine.
#     watching.sh PROGRAM [--runs N] [options of other benchmarks, which are ignored]
# Prints the median time a token over waves of 1,024 tokens and more, and each as a ratio to that of nothing.
set -eu
program=$1
shift
runs=7
while [ $# -gt 0 ]; do
    case $1 in
        --runs) runs=$2 && shift ;;
    esac
    shift
done
rows=$(mktemp)
trap 'rm -f "$rows"' EXIT
run=0
while [ $run -lt "$runs" ]; do
    for watch in off metrics trace; do
        "$program" --waves 13 --watch $watch |
            awk -v watch=$watch 'NF == 10 && $1 ~ /^[0-9]+$/ && $2 >= 1024 { tokens += $2; ms += $2 * $7 }
                                 END { print watch, 1000 * ms / tokens }' >>"$rows"
    done
    run=$((run + 1))
done
echo "medians of $runs runs"
sort -k1,1 -k2,2n "$rows" | awk '
    $1 != watch { n = 0; watch = $1 }
    { of[$1, ++n] = $2; count[$1] = n }
    END {
        for (i = split("off metrics trace", names, " "); i > 0; --i) {
            n = count[names[i]]
            median[names[i]] = n % 2 ? of[names[i], (n + 1) / 2] : (of[names[i], n / 2] + of[names[i], n / 2 + 1]) / 2
        }
        for (i = 1; i <= 3; ++i)
            printf "%-8s %8.3f us/token  %.3f\n", names[i], median[names[i]], median[names[i]] / median["off"]
    }'
