#!/bin/sh
# SPDX-License-Identifier: MIT
# The gdb script lists, for a process and for its core file, exactly the tokens that the program itself knows of:
# gdb.sh PROGRAM SCRIPT. PROGRAM is gdb_target.cpp. Without a gdb that may look into processes the test is skipped.
set -eu
program=$1
script=$2
if ! gdb -nx -batch -ex 'python print("able", "to run")' -ex 'break main' -ex run -ex 'info threads' "$program" 2>&1 |
    awk '/^able to run$/ { python = 1 } /^\* 1 / { runs = 1 } END { exit !(python && runs) }'; then
    echo "there is no gdb with Python that may run a program"
    exit 77
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# fail FILE TEXT...
fail() {
    shown=$1
    shift
    echo "$*" >&2
    cat "$shown" >&2
    exit 1
}

# ask NAME GDB_ARGUMENT...: what gdb says to both forms of the list, and to `token` for every token alive.
ask() {
    name=$1
    shift
    gdb -nx -batch -iex 'set debuginfod enabled off' "$@" >"$folder/$name" 2>"$folder/$name.err" ||
        fail "$folder/$name.err" "gdb fails at the $name"
    ! grep -E '^(Python Exception|Traceback|Error)|^(gdb\.error: )?tokengate: |INCOMPLETE' \
        "$folder/$name" "$folder/$name.err" >&2 ||
        fail "$folder/$name.err" "the script fails at the $name"
}
cat >"$folder/each_token.py" <<'EOF'
def each_token():
    for row in gdb.execute("tokengate tokens", to_string=True).splitlines()[1:-1]:
        gdb.execute("tokengate token " + row.split()[0])
print("=== alive")
gdb.execute("tokengate tokens")
print("=== all")
gdb.execute("tokengate tokens --all")
print("=== runtimes")
gdb.execute("tokengate runtimes")
print("=== each")
each_token()
print("=== end")
EOF
ask process -ex 'break population_stands' -ex run -ex "source $script" -ex "source $folder/each_token.py" \
    -ex "generate-core-file $folder/memory.core" "$program"
ask core -ex "source $script" -ex "source $folder/each_token.py" "$program" "$folder/memory.core"

# section NAME FILE; rows: of a table, without its head and its summary, columns apart by one space, without ages.
section() { sed -n "/^=== $1\$/,/^===/p" "$2" | grep -v '^==='; }
rows() { awk -F '  +' '$2 != "STATE" && NF == 6 { print "alive", $1, $2, $3, $5, $6 }' | sort; }

grep '^alive ' "$folder/process" | sort >"$folder/expected"
test "$(wc -l <"$folder/expected")" -eq 17 || fail "$folder/process" "the program has not said who is alive"
for seen in process core; do
    section alive "$folder/$seen" | rows >"$folder/alive"
    diff "$folder/expected" "$folder/alive" >"$folder/difference" ||
        fail "$folder/difference" "the $seen: what the program says (<) and what the script lists (>)"
    section alive "$folder/$seen" | grep -q '^17 tokens: .*\b1 waiting\b.*; ages up to ' ||
        fail "$folder/$seen" "the $seen: the summary is not right"
    # With those that have ended there is one more.
    section all "$folder/$seen" | rows >"$folder/all"
    grep -Fvx -f "$folder/expected" "$folder/all" >"$folder/more" || true
    test "$(wc -l <"$folder/more")" -eq 1 &&
        grep -Eqx 'alive quick_[0-9_]+ completed [01] \(handle\) -' "$folder/more" ||
        fail "$folder/more" "the $seen: --all is to add the one that has ended"
    # None is as young as the time at which it is looked at.
    section alive "$folder/$seen" |
        awk -F '  +' 'NF == 6 && $2 != "STATE" && $4 !~ /^[0-9]+\.[0-9]+ (us|ms|s)$/' >"$folder/odd"
    test ! -s "$folder/odd" || fail "$folder/odd" "the $seen: these ages are none"
done

# Both runtimes and their executors: 2 cores and the control loop; 2 cores, 2 workers each, and the control loop.
for seen in process core; do
    section runtimes "$folder/$seen" >"$folder/runtimes"
    for line in 'runtime 1 at 0x.* 2 cores, 1 workers per core, .* tokens admitted' \
        'runtime 2 at 0x.* 2 cores, 2 workers per core, .* tokens admitted'; do
        grep -Eqx "$line" "$folder/runtimes" || fail "$folder/runtimes" "the $seen: no line $line"
    done
    test "$(awk '$4 == "yes"' "$folder/runtimes" | wc -l)" -eq 8 ||
        fail "$folder/runtimes" "the $seen: 8 executors are hosted"
done

# Up to the root: the awaiting tokens of each, as the program says.
grep '^chain ' "$folder/process" >"$folder/chains"
test "$(wc -l <"$folder/chains")" -eq 6
for seen in process core; do
    section each "$folder/$seen" >"$folder/each"
    while read -r _ sequence names; do
        awk -v sequence="_$sequence\$" '
            $1 ~ sequence && NF == 1 { inside = 1; sub(/_[0-9]+_[0-9]+$/, ""); printf "%s", $0; next }
            !inside { next }
            /^awaited by$/ { chain = 1; next }
            /^[^ ]/ { exit }
            chain && $1 ~ /_[0-9]+,$/ { sub(/_[0-9]+_[0-9]+,.*/, ""); sub(/^ */, ""); printf " %s", $0 }
            END { print "" }' "$folder/each" >"$folder/chain"
        test "$(cat "$folder/chain")" = "$names" ||
            fail "$folder/each" "the $seen: token $sequence has not the chain $names"
    done <"$folder/chains"
    # Where the innermost of the conducted chain and the main coroutine are suspended: from the inside to the outside.
    awk '/^innermost_/ { inside = 1 } inside && /^  #/ { print } inside && /^[a-z]*_/ && !/^innermost_/ { exit }' \
        "$folder/each" >"$folder/frames"
    grep -q '^  #0 .*rest.*gdb_target\.cpp:' "$folder/frames" && grep -q '^  #1 .*innermost_body' "$folder/frames" ||
        fail "$folder/each" "the $seen: innermost is not suspended in rest, called by innermost_body"
    awk '/^main_/ { inside = 1 } inside && /^  #/ { print } inside && /^[a-z]*_/ && !/^main_/ { exit }' \
        "$folder/each" >"$folder/frames"
    grep -q '^  #0 .*around_a_token' "$folder/frames" && grep -q '^  #1 .*main_body' "$folder/frames" ||
        fail "$folder/each" "the $seen: main is not suspended in around_a_token, called by main_body"
    grep -q 'in a group of which 3 have not ended' "$folder/each" || fail "$folder/each" "the $seen: no group"
done
echo "$(wc -l <"$folder/expected") tokens in a process and in a core file"
