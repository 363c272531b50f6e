#!/bin/bash
# SPDX-License-Identifier: MIT
# Prometheus takes what runtime::metrics says: prometheus.sh METRICS_TARGET. promtool finds nothing to complain about, and a
# real Prometheus scrapes it and then knows the right values. 77 (skipped) where either program is missing.
set -eu
target=$1
for program in prometheus promtool; do
    command -v "$program" >/dev/null || { echo "no $program here"; exit 77; }
done
folder=$(mktemp -d)
served=
scraping=
trap 'for each in $scraping $served; do kill -KILL "$each" 2>/dev/null || true; done; wait; rm -rf "$folder"' EXIT

fail() {
    echo "$*" >&2
    [ ! -f "$folder/prometheus.log" ] || tail -n 20 "$folder/prometheus.log" >&2
    exit 1
}

# until_true COMMAND...: waits for what must come.
until_true() {
    for _ in $(seq 300); do
        "$@" 2>/dev/null && return
        sleep 0.2
    done
    fail "it did not come: $*"
}

# ---- promtool

"$target" >"$folder/metrics"
promtool check metrics <"$folder/metrics" >"$folder/complaints" 2>&1 || fail "promtool: $(cat "$folder/complaints")"
[ ! -s "$folder/complaints" ] || fail "promtool: $(cat "$folder/complaints")"

# ---- a scrape

"$target" serve >"$folder/port" &
served=$!
until_true [ -s "$folder/port" ]
cat >"$folder/prometheus.yml" <<EOF
global:
  scrape_interval: 1s
scrape_configs:
  - job_name: tokengate
    static_configs:
      - targets: ['127.0.0.1:$(cat "$folder/port")']
EOF

answers() { promtool query instant "http://127.0.0.1:$port" up >/dev/null 2>&1; }

# At a port that is free now; at another one if somebody else is faster.
start_prometheus() {
    for port in $(shuf -i 20000-59999 -n 5); do
        prometheus --config.file="$folder/prometheus.yml" --storage.tsdb.path="$folder/data" \
            --web.listen-address="127.0.0.1:$port" >>"$folder/prometheus.log" 2>&1 &
        scraping=$!
        for _ in $(seq 300); do
            kill -0 "$scraping" 2>/dev/null || break
            answers && return
            sleep 0.2
        done
        kill -KILL "$scraping" 2>/dev/null || true
        scraping=
    done
    fail "prometheus did not start"
}
start_prometheus

# is EXPRESSION VALUE: what Prometheus knows of it.
is() {
    local known
    known=$(promtool query instant "http://127.0.0.1:$port" "$1" | sed 's/.*=> \([^ ]*\) @.*/\1/')
    [ "$known" = "$2" ] || { echo "$1 is $known, not $2" >&2; return 1; }
}

until_true is 'up{job="tokengate"}' 1
until_true is 'tokengate_sticky_bypassed_total' 7
is 'tokengate_storage_permits_limit{tier="slow"}' 3
is 'tokengate_tokens_admitted_total >= bool 7' 1
is 'tokengate_cores' 2
by_hand='operation="by hand: \"quotes\" and \\"'
is "tokengate_operation_ended_total{$by_hand,core=\"control\",outcome=\"completed\"}" 42
is "sum(tokengate_operation_ended_total{$by_hand})" 100
is "tokengate_operation_run_time_seconds_count{$by_hand}" 100
is "tokengate_operation_run_time_seconds_bucket{$by_hand,le=\"0.005\"}" 90
is "tokengate_operation_run_time_seconds_bucket{$by_hand,le=\"+Inf\"}" 100
is "round(tokengate_operation_run_time_seconds_sum{$by_hand}, 0.01)" 3.27
# Half of what lies between the bounds 2 and 5 ms: Prometheus draws a straight line between them.
is "round(1e6 * histogram_quantile(0.45, tokengate_operation_run_time_seconds_bucket{$by_hand}))" 3500
is 'count(tokengate_core_wake_latency_seconds_count)' 3
is "scrape_samples_scraped{job=\"tokengate\"} > bool 100" 1

kill -TERM "$scraping"
wait "$scraping" || fail "prometheus ended with $?"
scraping=
kill -TERM "$served"
wait "$served" || fail "metrics_target ended with $?"
served=
