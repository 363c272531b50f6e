#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The driver of the bench house: runs every contender of the given problems in turn, A B C A B C …, a process a run.

    ./dev bench house                          # all problems at full size; tables and plots in docs/benchmarks/g++-12/
    ./dev bench house --clang fib skynet --runs 9      # built with clang; in docs/benchmarks/clang-19/
    ./dev bench house --short                  # small sizes, one run: do all contenders give the right answers?

A contender is a source benchmarks/PROBLEM/CONTENDER.cpp; its program may know several ways to solve the
problem. Each run's result is compared with the known value of problems.py. A contender whose program was not
built (its package is missing) is left out, and the table says so. A wrong result, a crash or a run over its
time limit ends in the table too, and the driver's status is 1.

Only the Python standard library is used."""

import argparse
import datetime
import json
import os
import pathlib
import platform
import re
import resource
import statistics
import subprocess
import sys
import time

import problems
import svg_chart

HERE = pathlib.Path(__file__).resolve().parent


class Failed(Exception):
    """A run gave no sample, or a wrong one; the text says why."""


def limited(gigabytes):
    """For the child before its program: a limit of memory, so that one contender cannot take the machine down."""
    most = gigabytes << 30
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


class Contender:
    """One way of one program."""

    def __init__(self, program, name, way):
        self.program = program
        self.way = way
        self.name = name if not way else f"{name} {way.replace('_', ' ')}"
        self.ours = name == "tokengate"


def run_program(command, options, seconds):
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            preexec_fn=lambda: limited(options.memory),
        )
    except subprocess.TimeoutExpired as expired:
        raise Failed(f"over {seconds:.0f} s") from expired
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        raise Failed(said[-1] if said else f"status {done.returncode}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def contenders_of(problem, options):
    """The contenders whose programs are there, and the names of those that are missing."""
    found, missing = [], []
    for source in sorted((HERE / problem.name).glob("*.cpp")):
        program = options.build / "benchmarks" / f"{problem.name}_{source.stem}"
        if not program.exists():
            missing.append(source.stem)
            continue
        ways = subprocess.run([program, "--list"], capture_output=True, text=True, check=True).stdout.split()
        found += [Contender(program, source.stem, way) for way in ways]
    found.sort(key=lambda contender: not contender.ours)  # stable: ours first, then by name
    return found, missing


def check(problem, case, sample):
    known = problem.known(case)
    if sample["result"] != known:
        raise Failed(f"wrong result: {sample['result']}, not {known}")


class Results:
    """What the runs of one case gave, by contender."""

    def __init__(self):
        self.samples = {}
        self.failures = {}

    def add(self, name, sample):
        self.samples.setdefault(name, []).append(sample)

    def fail(self, name, why):
        self.failures.setdefault(name, str(why))


def measure_case(problem, case, contenders, options, runs):
    results = Results()
    absent = set()  # those who do not take part in this case
    for run in range(runs):
        for contender in contenders:
            if contender.name in results.failures or contender.name in absent:
                continue
            command = [contender.program, "--way", contender.way, "--size", str(case.size), "--shape", str(case.shape)]
            warm_ups = 0 if options.short else problem.warm_ups
            command += ["--threads", str(case.threads), "--warm-ups", str(warm_ups)]
            try:
                samples = run_program(command, options, options.timeout)
                if not samples:
                    absent.add(contender.name)
                    continue
                check(problem, case, samples[0])
                results.add(contender.name, samples[0] | {"size": case.size})
            except Failed as why:
                results.fail(contender.name, why)
            progress(f"{problem.name}: {case.name}: run {run + 1} of {runs}: {contender.name}")
    return results


def measure_rounds(problem, cases, program, options, runs):
    """One program does all rounds of all cases; a line says whose it is. Returns the results by case."""
    by_size = {case.size: Results() for case in cases}
    command = [program, "--size", str(max(by_size)), "--rounds", str(runs)]
    progress(f"{problem.name}: {runs} rounds")
    try:
        samples = run_program(command, options, options.timeout * runs)
    except Failed as why:
        for results in by_size.values():
            results.fail("all", why)
        return [by_size[case.size] for case in cases]
    for sample in samples:
        if sample["size"] not in by_size:
            continue
        case = next(case for case in cases if case.size == sample["size"])
        try:
            check(problem, case, sample)
            by_size[case.size].add(sample["contender"], sample)
        except Failed as why:
            by_size[case.size].fail(sample["contender"], why)
    return [by_size[case.size] for case in cases]


def progress(text):
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def quartiles(values):
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def summary(problem, results):
    """Rows of the table, the best first, as dictionaries."""
    rows = []
    for name, samples in results.samples.items():
        if name in results.failures:
            continue
        low, middle, high = quartiles([problem.value(sample) for sample in samples])
        row = {
            "contender": name,
            "runs": len(samples),
            "median": middle,
            "low": low,
            "high": high,
            "memory_mib": statistics.median(sample.get("memory_kib", 0) for sample in samples) / 1024,
            "cpu_ms": statistics.median(sample.get("cpu_seconds", 0) for sample in samples) * 1e3,
        }
        for key in problem.columns:
            given = [sample[key] for sample in samples if key in sample]
            row[key] = statistics.median(given) if given else None
        rows.append(row)
    rows.sort(key=lambda row: row["median"])
    reference = next((row["median"] for row in rows if row["contender"] == problem.reference), None)
    for row in rows:
        row["ratio"] = row["median"] / rows[0]["median"] if rows[0]["median"] else 1.0
        if reference:
            row["to_reference"] = row["median"] / reference
    return rows


def number(value):
    if value is None:
        return ""
    if value == 0:
        return "0"
    digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 2 if abs(value) >= 10 else 3
    return f"{value:,.{digits}f}"


def markdown(problem, case, rows, failures, missing):
    """The table of one case."""
    titles = ["contender", problem.unit, "quartiles", "÷ best"]
    if problem.reference:
        titles.append(f"÷ {problem.reference}")
    titles += list(problem.columns.values())
    if not problem.rounds:
        titles += ["MiB at most", "CPU ms"]
    lines = [f"### {case.name}", "", "| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    for row in rows:
        cells = [row["contender"], number(row["median"]), f"{number(row['low'])} … {number(row['high'])}"]
        cells.append(f"{row['ratio']:.2f}")
        if problem.reference:
            cells.append(f"{row['to_reference']:.2f}" if "to_reference" in row else "")
        cells += [number(row[key]) for key in problem.columns]
        if not problem.rounds:
            cells += [number(row["memory_mib"]), number(row["cpu_ms"])]
        lines.append("| " + " | ".join(cells) + " |")
    notes = [f"{name}: {why}" for name, why in failures.items()]
    notes += [f"{name}: not built, its package is missing" for name in missing]
    if notes:
        lines += [""] + [f"* {note}" for note in notes]
    return lines + [""]


def markdown_rounds(problem, found):
    """One table for all sizes, where contenders take turns in one process: ours with quartiles and ratios."""
    names = {row["contender"] for _, rows, _, _ in found for row in rows}
    names = sorted(names, key=lambda name: (name != "tokengate", name))
    titles = ["size"] + names + ["quartiles of ours"] + [f"ours {title}" for title in problem.columns.values()]
    lines = [f"{problem.unit}:", "", "| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    notes = []
    for case, rows, failures, missing in found:
        by_name = {row["contender"]: row for row in rows}
        ours = by_name.get("tokengate")
        cells = [case.name] + [number(by_name[name]["median"]) if name in by_name else "" for name in names]
        cells.append(f"{number(ours['low'])} … {number(ours['high'])}" if ours else "")
        cells += [f"{ours[key]:.2f}" if ours and ours[key] is not None else "" for key in problem.columns]
        lines.append("| " + " | ".join(cells) + " |")
        notes += [f"{case.name}: {name}: {why}" for name, why in failures.items()]
        notes += [f"{name}: not built" for name in missing]
    if notes:
        lines += [""] + [f"* {note}" for note in dict.fromkeys(notes)]
    return lines + [""]


def machine():
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown CPU")
    return f"{len(os.sched_getaffinity(0))} CPUs of {model}, {platform.system()} {platform.release()}"


def compiler_of(build):
    """The first line that the compiler of the build directory says of itself."""
    try:
        with open(build / "compile_commands.json", encoding="utf-8") as file:
            compiler = json.load(file)[0]["command"].split()[0]
        said = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout
        return said.splitlines()[0]
    except (OSError, LookupError, ValueError, subprocess.CalledProcessError):
        return "unknown compiler"


def family(compiler):
    """g++-12 or clang-19, of what a compiler says of itself."""
    version = re.search(r"(\d+)\.\d+\.\d+", compiler)
    return ("clang" if "clang" in compiler else "g++") + (f"-{version[1]}" if version else "")


def measure(problem, options):
    cases = problem.short if options.short else problem.cases
    runs = options.runs or (1 if options.short else problem.runs)
    if problem.rounds:
        program = options.build / "benchmarks" / f"{problem.name}_contest"
        if not program.exists():
            return [(case, Results(), [program.name]) for case in cases]
        return [(case, found, []) for case, found in zip(cases, measure_rounds(problem, cases, program, options, runs))]
    contenders, missing = contenders_of(problem, options)
    return [(case, measure_case(problem, case, contenders, options, runs), missing) for case in cases]


def plot(problem, measured, directory):
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{problem.name}.svg"
    if problem.rounds:
        path.write_text(svg_chart.lines(problem.name, problem.unit, measured), encoding="utf-8")
    else:
        path.write_text(svg_chart.bars(problem.name, problem.unit, measured), encoding="utf-8")


def arguments():
    parser = argparse.ArgumentParser(description="Runs the contenders of the bench house in turn and compares them.")
    parser.add_argument("problems", nargs="*", help="which; default: all")
    parser.add_argument("--build", type=pathlib.Path, default=HERE.parent / "build" / "release")
    parser.add_argument("--runs", type=int, help="of each contender and case; default: the problem's, mostly 5")
    parser.add_argument("--short", action="store_true", help="small sizes, one run, no files unless asked for")
    parser.add_argument("--out", type=pathlib.Path, help="where tables, JSON and plots go; default: docs/benchmarks/COMPILER")
    parser.add_argument("--timeout", type=float, default=60, help="seconds that one run may take")
    parser.add_argument("--memory", type=int, default=12, help="GiB of addresses that one run may take")
    options = parser.parse_args()
    if options.out is None and not options.short:
        options.out = HERE.parent / "docs" / "benchmarks" / family(compiler_of(options.build))
    return options


def main():
    options = arguments()
    chosen = problems.by_name(options.problems)
    began = time.monotonic()
    failed = False
    for problem in chosen:
        measured = []
        text = [f"## {problem.name}", "", problem.about, ""]
        records = []
        found = []
        for case, results, missing in measure(problem, options):
            rows = summary(problem, results)
            failed |= bool(results.failures)
            measured.append((case.name, case.size, rows))
            found.append((case, rows, results.failures, missing))
            if not problem.rounds:
                text += markdown(problem, case, rows, results.failures, missing)
            records.append({"case": case.name, "rows": rows, "failures": results.failures, "missing": missing,
                            "samples": results.samples})
        progress("")
        if problem.rounds:
            text += markdown_rounds(problem, found)
        now = datetime.date.today().isoformat()
        text += [f"{now}; {machine()}; {compiler_of(options.build)}. Medians of runs in turn.", ""]
        print("\n".join(text), flush=True)
        if options.out:
            plot(problem, measured, options.out)
            (options.out / f"{problem.name}.md").write_text("\n".join(text), encoding="utf-8")
            record = {"problem": problem.name, "unit": problem.unit, "date": now, "machine": machine(),
                      "compiler": compiler_of(options.build), "cases": records}
            (options.out / f"{problem.name}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"{len(chosen)} problems in {time.monotonic() - began:.0f} s" + (", with failures" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
