#!/bin/sh
# SPDX-License-Identifier: MIT
# Checks every claim of every model, which must hold, and every mutation, which must be found. Needs spin and cc.
#     tests/models/run.sh [PATTERN]      only the lines of the table below that contain PATTERN
# Each line's program has one thread: as many run at once as there are processors.
set -u
models=$(cd "$(dirname "$0")" && pwd)

# one FOLDER EXPECTED MODEL CLAIM [-D…]: a line of the table; its report goes to FOLDER.report.
one() {
    folder=$1
    expected=$2
    model=$3
    claim=$4
    shift 4
    case $expected in
        fair | cycle) build='-DNFAIR=3' options='-a -f' ;;
        *) build='-DSAFETY' options='' ;;
    esac
    mkdir "$folder"
    cd "$folder" || exit 1
    cp "$models/$model.pml" .
    # shellcheck disable=SC2086
    if spin "$@" -a "$model.pml" >output 2>&1 && ${CC:-cc} -O1 -w $build -DCOLLAPSE -o pan pan.c >output 2>&1; then
        ./pan -m2000000 $options -N "$claim" >output 2>&1
        found='no verdict'
        ! grep -q 'errors: 0$' output || found=nothing
        ! grep -q 'max search depth too small\|out of memory\|Search not completed' output || found='no verdict'
        # An assertion of the model's own, or the one that a claim of the form [] is turned into.
        ! grep -q '^pan:1: assertion violated' output || found=assert
        ! grep -q '^pan:1: assertion violated  !(' output || found=claim
        ! grep -q '^pan:1: acceptance cycle' output || found=cycle
    else
        found='no program'
    fi
    states=$(sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' output)
    depth=$(sed -n 's/.*depth reached \([0-9]*\).*/\1/p' output)
    case $expected in
        holds | fair) wanted=nothing ;;
        *) wanted=$expected ;;
    esac
    verdict=ok
    [ "$found" = "$wanted" ] || verdict="FAILED, expected $wanted"
    {
        printf '%-15s %-16s %-44s %10s states, depth %4s, found %s: %s\n' \
            "$model" "$claim" "$*" "${states:-?}" "${depth:-?}" "$found" "$verdict"
        [ "$verdict" = ok ] || sed 's/^/    /' output
    } >"$folder.report"
}

if [ "${1:-}" = --one ]; then
    shift
    one "$@"
    exit 0
fi

pattern=${1:-}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' INT TERM
chosen=0

# check EXPECTED MODEL CLAIM [-D…]: EXPECTED is `holds`, `fair` (holds, with weak fairness), `claim` (a state violates
# the claim), `assert` (an assertion fails) or `cycle` (with weak fairness, a run violates the claim).
check() {
    case "$*" in
        *"$pattern"*) ;;
        *) return 0 ;;
    esac
    chosen=$((chosen + 1))
    printf '%s/%03d %s\n' "$scratch" $chosen "$*" >>"$scratch/table"
}

check holds park no_lost_wake -DLOOPS=2 -DREQUESTS=0
check holds park no_lost_wake -DLOOPS=1 -DREQUESTS=1
check holds park no_lost_wake -DLOOPS=0 -DFOREIGNERS=2 -DREQUESTS=1
check holds park nothing_kept -DLOOPS=1 -DREQUESTS=2
check fair park all_received -DLOOPS=1 -DREQUESTS=0
for mutation in SWALLOWED_WAKE MAIL_LOOK NO_WATCH_LOOK LATE_MARK NO_SECOND_LOOK NUDGE_FIRST BLIND_PARK TWO_WORDS NO_WAKE; do
    check claim park no_lost_wake -DLOOPS=1 -DREQUESTS=1 -D$mutation
done
for mutation in SUBMIT_TWO_STEPS NO_LAST_TAKE; do
    check assert park no_lost_wake -DLOOPS=1 -DREQUESTS=1 -D$mutation
done
for mutation in SEND_LEFT CANCEL_LEFT; do
    check claim park nothing_kept -DLOOPS=1 -DREQUESTS=2 -D$mutation
done

check holds window none_forgotten -DTOKENS=2 -DMORE=1 -DPAUSES=1
check holds window parked_has_room -DWAITING=2 -DTOKENS=0 -DMORE=0 -DPAUSES=1
check fair window all_started -DWAITING=2 -DTOKENS=0 -DMORE=0 -DPAUSES=1
for mutation in SWALLOWED_WAKE NO_SECOND_LOOK NO_NUDGE NUDGE_FIRST; do
    check claim window none_forgotten -DTOKENS=2 -DMORE=1 -DPAUSES=1 -D$mutation
done
check holds window none_forgotten -DWAITING=2 -DTOKENS=0 -DMORE=0 -DPAUSES=1
check claim window none_forgotten -DWAITING=3 -DTOKENS=0 -DMORE=0 -DPAUSES=1 -DHELD_NO_WAKE

check holds asymmetric_lock mutual_exclusion -DTOKENS=2
check fair asymmetric_lock owner_gets_in -DTOKENS=2
check fair asymmetric_lock all_run -DTOKENS=2
for mutation in NO_MEMBARRIER TAKER_DOES_NOT_WAIT OWNER_DOES_NOT_LOOK; do
    check claim asymmetric_lock mutual_exclusion -DTOKENS=2 -D$mutation
done

check holds lent none_slept_on -DTOKENS=2 -DLOOKS=3
for mutation in LOOK_OUTSIDE LIST_FIRST NO_LIST_LOOK NUDGE_FIRST; do
    check claim lent none_slept_on -D$mutation
done

check holds aside none_kept -DTOKENS=4 -DSPURIOUS=2
for mutation in NO_LOOK_AFTER NO_MEMBARRIER LOOK_FIRST FED_LATE; do
    check claim aside none_kept -D$mutation
done

[ $chosen != 0 ] || exit 1
xargs -P "$(getconf _NPROCESSORS_ONLN)" -L 1 "$0" --one <"$scratch/table"
cat "$scratch"/*.report
as_expected=$(cat "$scratch"/*.report | grep -c '^[^ ].*: ok$')
printf '%d as expected, %d otherwise\n' "$as_expected" $((chosen - as_expected))
[ "$as_expected" = $chosen ]
