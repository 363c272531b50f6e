#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""trace_check.py FILE...  or  trace_check.py --run UNIT_TESTS

Checks traces against the rules of the Chrome trace event format, as Perfetto's importer reads it: what each phase must
have, that the slices of a row nest, that the two ends of an arrow pair up and each lies in a slice. With --run, those
that the program's trace tests make.
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from decimal import Decimal

PROCESS_METADATA = {"process_name": ("name", str)}
THREAD_METADATA = {"thread_name": ("name", str), "thread_sort_index": ("sort_index", int)}


def require(condition, what, event):
    if not condition:
        raise ValueError(f"{what}: {event}")


def is_time(value):
    return isinstance(value, (int, Decimal)) and not isinstance(value, bool) and value >= 0


def check(text):
    """Raises ValueError for what is wrong; returns how many slices, arrows and instants there are."""
    trace = json.loads(text, parse_float=Decimal)
    require(isinstance(trace, dict) and isinstance(trace.get("traceEvents"), list), "no list of traceEvents", "")
    require(trace.get("displayTimeUnit", "ms") in ("ms", "ns"), "displayTimeUnit is ms or ns", "")
    rows, slices, departures, arrivals, instants = {}, {}, {}, {}, 0
    for event in trace["traceEvents"]:
        require(isinstance(event.get("name"), str), "an event has a name", event)
        require(isinstance(event.get("cat", ""), str), "a category is text", event)
        require(is_time(event.get("ts")), "a time is a number of µs, from 0", event)
        require(type(event.get("pid")) is int and type(event.get("tid")) is int, "pid and tid are integers", event)
        require(isinstance(event.get("args", {}), dict), "args is an object", event)
        row, time, phase = (event["pid"], event["tid"]), Decimal(event["ts"]), event.get("ph")
        if phase == "M":
            known = PROCESS_METADATA | THREAD_METADATA
            require(event["name"] in known, "metadata has a known name", event)
            key, kind = known[event["name"]]
            require(isinstance(event["args"].get(key), kind), f"it has {key}", event)
            if event["name"] == "thread_name":
                require(row not in rows, "a row has one name", event)
                rows[row] = event["args"][key]
            continue
        require(row in rows, "its row has a name", event)
        if phase == "X":
            require(is_time(event.get("dur")), "a slice has a duration", event)
            slices.setdefault(row, []).append((time, time + Decimal(event["dur"])))
        elif phase in ("s", "f"):
            require(isinstance(event.get("id"), (str, int)), "an arrow has an id", event)
            require(phase == "s" or event.get("bp") == "e", "it ends in the slice around it, not the next one", event)
            ends = departures if phase == "s" else arrivals
            key = (event.get("cat"), event["name"], event["id"])
            require(key not in ends, "an arrow has one end of each kind", event)
            ends[key] = (row, time)
        elif phase == "i":
            require(event.get("s", "t") in ("t", "p", "g"), "an instant's scope is t, p or g", event)
            instants += 1
        else:
            require(False, "a phase that is known", event)

    for row in slices.values():
        enclosing, before = [], Decimal(0)
        for begin, end in row:
            require(begin >= before, "slices come in their order, the outer one first", (begin, end))
            before = begin
            while enclosing and enclosing[-1] <= begin:
                enclosing.pop()
            require(not enclosing or end <= enclosing[-1], "slices of a row nest", (begin, end))
            enclosing.append(end)
    require(departures.keys() == arrivals.keys(), "each arrow has both ends", departures.keys() ^ arrivals.keys())
    for key, (row, time) in departures.items():
        require(time <= arrivals[key][1], "an arrow does not go back in time", key)
        require(any(begin <= time <= end for begin, end in slices.get(row, [])), "an arrow leaves a slice", key)
    for key, (row, time) in arrivals.items():
        require(any(begin == time for begin, _ in slices.get(row, [])), "an arrow arrives where a slice begins", key)
    return sum(map(len, slices.values())), len(departures), instants


def traces_of(program):
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([program, "--source-file=*tests/report/trace_test.cpp"], check=True,
                       env=os.environ | {"TOKENGATE_TRACE_DIR": folder})
        return {path.name: path.read_text() for path in sorted(pathlib.Path(folder).iterdir())}


def main(arguments):
    run = arguments[:1] == ["--run"]
    traces = traces_of(arguments[1]) if run else {name: pathlib.Path(name).read_text() for name in arguments}
    found = [0, 0, 0]
    for name, text in traces.items():
        try:
            found = [sum(both) for both in zip(found, check(text))]
        except ValueError as wrong:
            print(f"{name}: {wrong}")
            return 1
    print(f"{len(traces)} traces: {found[0]} slices, {found[1]} arrows, {found[2]} instants")
    return 0 if not run or all(found) else 1


sys.exit(main(sys.argv[1:]))
