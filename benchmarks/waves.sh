#!/bin/sh
# SPDX-License-Identifier: MIT
# Efficiency of the waves sample, as medians over several runs, since one run on a shared machine says little:
#     waves.sh PROGRAM [--runs N] [options of other benchmarks, which are ignored]
# Exits 1 if a run breaks a promise (the sample checks every result).
set -eu
program=$1
shift
runs=5
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
    "$program" | awk 'NF == 10 && $1 ~ /^[0-9]+$/ { print $2, $7, $10 }' >>"$rows"
    run=$((run + 1))
done
echo "medians of $runs runs"
echo "  tokens   ms/token  efficiency (quartiles)"
sort -k1,1n -k3,3n "$rows" | awk '
    function report(  i, ms) {
        if (n == 0) return
        for (i = 1; i <= n; ++i) ms[i] = per_token[i]
        for (i = 1; i <= n; ++i) for (j = i + 1; j <= n; ++j) if (ms[j] < ms[i]) { t = ms[i]; ms[i] = ms[j]; ms[j] = t }
        printf "%8d %10.5f %11.3f (%.3f … %.3f)\n", wave, ms[int((n + 1) / 2)], efficiency[int((n + 1) / 2)],
               efficiency[int((n + 3) / 4)], efficiency[int((3 * n + 3) / 4)]
        if (wave >= 1024) {
            if (!least || ms[int((n + 1) / 2)] < least) least = ms[int((n + 1) / 2)]
            if (ms[int((n + 1) / 2)] > most) most = ms[int((n + 1) / 2)]
        }
    }
    $1 != wave { report(); wave = $1; n = 0 }
    { per_token[++n] = $2; efficiency[n] = $3 }
    END { report(); if (least) printf "flatness from 1,024 tokens on (longest ÷ shortest median): %.3f\n", most / least }'
