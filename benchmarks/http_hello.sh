#!/bin/bash
# SPDX-License-Identifier: MIT
# wrk against the http_hello sample, at 1, 64 and 1,000 connections: http_hello.sh PROGRAM [SECONDS]
# Ends with 1 if wrk saw any error. Other arguments (those of Google Benchmark) are passed over.
set -eu
program=$1
seconds=5
case ${2:-} in
'' | -*) ;;
*) seconds=$2 ;;
esac
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill -KILL "$server" 2>/dev/null; rm -rf "$folder"' EXIT
ulimit -n 4096 2>/dev/null || true

port=
for candidate in $(shuf -i 20000-29999 -n 20); do # below the ports that clients are given
    "$program" --port "$candidate" 2>"$folder/said" &
    server=$!
    for _ in $(seq 200); do
        if (exec 3<>"/dev/tcp/127.0.0.1/$candidate") 2>/dev/null; then
            port=$candidate
            break 2
        fi
        kill -0 "$server" 2>/dev/null || break # somebody else has that port
        sleep 0.05
    done
    kill -KILL "$server" 2>/dev/null || true
    server=
done
[ -n "$port" ] || {
    cat "$folder/said"
    exit 1
}

status=0
for connections in 1 64 1000; do
    wrk --threads 1 --connections "$connections" --duration "${seconds}s" --latency "http://127.0.0.1:$port/" >"$folder/wrk"
    printf '%5d connections: %s requests/s, 99 %% within %s\n' "$connections" \
        "$(awk '/^Requests\/sec:/ { print $2 }' "$folder/wrk")" "$(awk '$1 == "99%" { print $2 }' "$folder/wrk")"
    if grep -E 'Socket errors|Non-2xx' "$folder/wrk"; then status=1; fi
    grep -q '^Requests/sec: *[1-9]' "$folder/wrk" || status=1
done

kill -TERM "$server"
wait "$server" || status=1
server=
exit "$status"
