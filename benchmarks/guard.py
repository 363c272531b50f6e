#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Compares the instruction counts of the shortest paths with those that were accepted:

    ./dev bench --guard [--clang]            # fails when one has grown by more than 3 %
    ./dev bench --guard [--clang] --accept   # keeps the counts of now as those to compare with

guard.json holds the accepted counts by compiler (g++-12, clang-19), for x86-64. Instructions are counted one by
one, so they do not depend on how busy the machine is; what does (a sleep, a look at the clock) is left out by
taking the least of several runs, and if a count has grown, the program runs up to twice more before it is
believed."""

import argparse
import json
import pathlib
import platform
import subprocess
import sys

TOLERANCE = 0.03
# Shown, not judged: the counted thread is so slow that the core it sends to is always hungry, and gets each token by itself.
SHOWN_ONLY = {"routed_send", "routed_run", "admission", "wake_there"}
ACCEPTED = pathlib.Path(__file__).resolve().with_name("guard.json")


def count(program):
    done = subprocess.run([program], capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        raise SystemExit(f"guard: {done.stderr.strip() or f'status {done.returncode}'}")
    counts = json.loads(done.stdout)
    return counts.pop("compiler"), counts


def least(first, second):
    return {name: min(value, second[name]) for name, value in first.items()}


def grown(counts, accepted):
    """The names of those that rose over the tolerance, or were never accepted."""
    return [name for name, value in counts.items()
            if name not in SHOWN_ONLY and (name not in accepted or value > accepted[name] * (1 + TOLERANCE))]


def table(counts, accepted):
    print(f"{'path':16} {'instructions':>12} {'accepted':>10} {'change':>8}")
    for name, value in counts.items():
        known = accepted.get(name)
        change = f"{(value / known - 1) * 100:+.1f} %" if known else "new"
        mark = "  <- grown" if name in grown({name: value}, accepted) else ""
        print(f"{name:16} {value:12.1f} {known if known else '–':>10} {change:>8}{mark}")


def main():
    parser = argparse.ArgumentParser(description="Compares instruction counts with those that were accepted.")
    parser.add_argument("program", type=pathlib.Path)
    parser.add_argument("--accept", action="store_true", help="keep the counts of now")
    options = parser.parse_args()
    if platform.machine() != "x86_64":
        print("guard: instructions can be counted on x86-64 only; nothing compared")
        return 0
    all_accepted = json.loads(ACCEPTED.read_text(encoding="utf-8")) if ACCEPTED.exists() else {}
    compiler, counts = count(options.program)
    accepted = all_accepted.get(compiler, {})
    repeats = 2
    while repeats and (options.accept or grown(counts, accepted)):
        repeats -= 1
        counts = least(counts, count(options.program)[1])
    print(compiler)
    table(counts, accepted)
    if options.accept:
        all_accepted[compiler] = counts
        ACCEPTED.write_text(json.dumps(all_accepted, indent=4, sort_keys=True) + "\n", encoding="utf-8")
        print(f"accepted; commit {ACCEPTED.name}")
        return 0
    if grown(counts, accepted):
        print(f"\nguard: instructions rose by more than {TOLERANCE:.0%}, or were never accepted. If that is meant, say "
              "why in the commit\nand keep the new counts:  ./dev bench --guard --accept   (and with --clang)")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
