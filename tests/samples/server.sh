#!/bin/bash
# SPDX-License-Identifier: MIT
# A sample server answers, and ends with 0 when it is asked to: server.sh PROGRAM echo|http
set -eu
program=$1
kind=$2
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill -KILL "$server" 2>/dev/null; rm -rf "$folder"' EXIT

# until_true COMMAND...: waits for what must come.
until_true() {
    for _ in $(seq 400); do
        "$@" 2>/dev/null && return
        sleep 0.05
    done
    echo "it did not come: $*" >&2
    exit 1
}

can_connect() { (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; }
cannot_connect() { ! can_connect; }

# start DESCRIPTORS OPTION...: at a port that is free now; at another one if somebody else is faster.
start() {
    for port in $(shuf -i 20000-59999 -n 20); do
        (ulimit -n "$1" && shift && exec "$program" --port "$port" "$@") 2>"$folder/said" &
        server=$!
        for _ in $(seq 400); do
            can_connect && return
            kill -0 "$server" 2>/dev/null || break
            sleep 0.05
        done
        kill -KILL "$server" 2>/dev/null || true
        server=
    done
    exit 1
}

# It ends by itself, with 0.
ended() {
    local status=0
    wait "$server" || status=$?
    server=
    sort -u "$folder/said"
    [ "$status" = 0 ]
}

stop() {
    kill -TERM "$server"
    ended
}

connect() { exec {client}<>"/dev/tcp/127.0.0.1/$port"; } # sets $client
hang_up() { for client; do exec {client}>&-; done; }
hears() { # hears CLIENT TEXT
    local line=
    IFS= read -r -t 20 line <&"$1"
    [ "$line" = "$2" ]
}
echoes() { echo "$2" >&"$1" && hears "$1" "$2"; }

test_echo() {
    start "$enough" --cores 2
    connect
    head -c 1000000 /dev/urandom >"$folder/sent"
    cat "$folder/sent" >&"$client" &
    timeout 20 head -c 1000000 <&"$client" >"$folder/came"
    cmp "$folder/sent" "$folder/came"
    hang_up "$client"
    stop
}

# Who is connected when the server is to end has the grace to finish, and no longer; nobody else is let in.
test_grace() {
    start "$enough" --cores 2 --grace 2
    connect
    echoes "$client" before
    kill -TERM "$server"
    until_true cannot_connect
    echoes "$client" meanwhile
    timeout 20 cat <&"$client" >"$folder/came" || [ $? != 124 ] # until it is cut off
    hang_up "$client"
    ended
}

# Who comes while there are enough clients waits until one leaves.
test_limit() {
    start "$enough" --cores 1 --connections 1
    connect
    local first=$client
    echoes "$first" "the first"
    connect
    local second=$client
    echo "the second" >&"$second"
    if read -r -t 0.3 <&"$second"; then exit 1; fi
    echoes "$first" "still the only one"
    hang_up "$first"
    hears "$second" "the second"
    hang_up "$second"
    stop
}

# More clients than descriptors: those who are in are served on, and others when there are some again.
test_descriptors() {
    local -x UBSAN_OPTIONS=halt_on_error=0 # it takes for wrong what it has no descriptor to look at with
    start 64 --cores 1
    connect
    local first=$client others=()
    echoes "$first" before
    for _ in $(seq 100); do
        connect
        others+=("$client")
    done
    until_true grep -q 'Too many open files' "$folder/said"
    echoes "$first" meanwhile
    hang_up "${others[@]}"
    connect
    echoes "$client" afterwards
    hang_up "$client" "$first"
    stop
}

test_http() {
    start "$enough" --cores 2
    exec 3<>"/dev/tcp/127.0.0.1/$port"
    printf 'GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /again HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n' >&3
    timeout 20 cat <&3 >"$folder/came" # until the server closes, as it was asked to
    [ "$(grep -c 'HTTP/1.1 200 OK' "$folder/came")" = 2 ]
    [ "$(grep -c 'Hello, world!' "$folder/came")" = 2 ]
    exec 3<>"/dev/tcp/127.0.0.1/$port"
    printf 'DELETE / HTTP/1.1\r\nHost: x\r\n\r\n' >&3
    timeout 20 cat <&3 | grep -q '405 Method Not Allowed'
    exec 3<>"/dev/tcp/127.0.0.1/$port"
    printf 'nonsense\r\n\r\n' >&3
    timeout 20 cat <&3 | grep -q '400 Bad Request'
    exec 3<>"/dev/tcp/127.0.0.1/$port"
    head -c 9000 /dev/zero | tr '\0' 'x' >&3
    timeout 20 cat <&3 | grep -q '431 Request Header Fields Too Large'
    exec 3<&- 3>&-
    stop
}

enough=$(ulimit -n)
case $kind in
echo)
    test_echo
    test_grace
    test_limit
    test_descriptors
    ;;
http) test_http ;;
esac
