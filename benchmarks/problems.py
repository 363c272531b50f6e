# SPDX-License-Identifier: MIT
"""The problems of the bench house: what each is, at which sizes it is run, and what every contender must answer.

A problem is a folder with a program for each contender. A case is one size of it. `known(case)` is the right
result, computed here by other means than the contenders use. `value` says what of a sample is compared; less is
better."""

from dataclasses import dataclass, field
from typing import Callable


@dataclass(frozen=True)
class Case:
    size: int
    shape: int = 0  # a second measure, whose meaning is the problem's
    threads: int = 1  # CPUs that a contender may use; 0: all
    name: str = ""


@dataclass(frozen=True)
class Problem:
    name: str
    about: str
    cases: list[Case]
    short: list[Case]
    known: Callable[[Case], int]
    unit: str = "ms"
    value: Callable[[dict], float] = lambda sample: sample["seconds"] * 1e3
    warm_ups: int = 1
    runs: int = 5  # of each contender, where the command line says nothing
    reference: str = ""  # a contender that the others are divided by, in a column of its own
    columns: dict[str, str] = field(default_factory=dict)  # further figures of a sample: key, title
    rounds: bool = False  # one program measures all contenders in turn, and prints a line for each sample


def fibonacci(n: int) -> int:
    a, b = 0, 1
    for _ in range(n):
        a, b = b, a + b
    return a


QUEENS = [1, 1, 0, 0, 2, 10, 4, 40, 92, 352, 724, 2680, 14200, 73712, 365596, 2279184]


def matmul_checksum(n: int) -> int:
    """Sum over i, j of (i % 7 + 1) (j % 5 + 1) C[i][j], for the matrices that matmul/problem.hpp makes."""
    left = [sum((i % 7 + 1) * ((3 * i + k) % 11) for i in range(n)) for k in range(n)]
    right = [sum((j % 5 + 1) * ((k + 5 * j) % 13) for j in range(n)) for k in range(n)]
    return sum(a * b for a, b in zip(left, right))


def ns_an_item(sample: dict) -> float:
    return sample["seconds"] / sample["items"] * 1e9


def microseconds(sample: dict) -> float:
    return sample["seconds"] * 1e6


FAN_OUT_ROUNDS = 100  # fan_out/problem.hpp
NEWS_ROUNDS = 15  # news/problem.hpp

PROBLEMS = [
    Problem(
        "fib",
        "The double recursion for a Fibonacci number, every call a unit of parallel work: two children, no work.",
        [Case(32, threads=1, name="fib(32), 1 CPU"), Case(35, threads=2, name="fib(35), 2 CPUs")],
        [Case(18, threads=1, name="fib(18), 1 CPU"), Case(20, threads=2, name="fib(20), 2 CPUs")],
        known=lambda case: fibonacci(case.size),
        reference="tokengate tasks",
    ),
    Problem(
        "skynet",
        "A tree of ten children a node; every leaf returns its number, every node the sum.",
        [Case(10**6, threads=1, name="10⁶ leaves, 1 CPU"), Case(10**7, threads=2, name="10⁷ leaves, 2 CPUs")],
        [Case(10**3, threads=1, name="10³ leaves, 1 CPU"), Case(10**4, threads=2, name="10⁴ leaves, 2 CPUs")],
        known=lambda case: case.size * (case.size - 1) // 2,
        reference="tokengate tasks",
    ),
    Problem(
        "nqueens",
        "In how many ways n queens can stand on an n × n board: every safe place of a row is a child.",
        [Case(13, threads=2, name="13 queens, 2 CPUs")],
        [Case(7, threads=2, name="7 queens, 2 CPUs")],
        known=lambda case: QUEENS[case.size],
        reference="tokengate tasks",
    ),
    Problem(
        "matmul",
        "The product of two matrices of doubles by quadrants, down to tiles of 32 rows: four products at once, twice. "
        "Plain tasks and conducted operations stay on one core by design.",
        [Case(512, threads=1, name="512 rows, 1 CPU"), Case(1024, threads=2, name="1,024 rows, 2 CPUs")],
        [Case(128, threads=2, name="128 rows, 2 CPUs")],
        known=lambda case: matmul_checksum(case.size),
    ),
    Problem(
        "spawn",
        "A million empty pieces of work, made on one thread and awaited there, memory given back included.",
        [Case(10**6, threads=1, name="10⁶, 1 CPU"), Case(10**6, threads=2, name="10⁶, 2 CPUs")],
        [Case(10**4, threads=2, name="10⁴, 2 CPUs")],
        known=lambda case: case.size,
    ),
    Problem(
        "fan_out",
        "A parent starts 8 or 16 short children at once and awaits them: elapsed ÷ the same calls one after the other. "
        "Half a serial time is ideal on two CPUs; 1 means that the second CPU was of no use.",
        [
            Case(16, 10, 2, "16 × 10 µs"),
            Case(8, 20, 2, "8 × 20 µs"),
            Case(8, 40, 2, "8 × 40 µs"),
        ],
        [Case(16, 10, 2, "16 × 10 µs")],
        known=lambda case: case.size * FAN_OUT_ROUNDS,
        unit="elapsed ÷ serial",
        value=lambda sample: sample["ratio"],
    ),
    Problem(
        "news",
        "A parent starts children and computes on without awaiting: the time until the first of them has begun on the "
        "other, idle CPU. A contender that hides them until the parent is done needs the whole of its computation.",
        [
            Case(4, 10, 2, "4 children, then 10 ms"),
            Case(20, 10, 2, "20 children, then 10 ms"),
            Case(70, 10, 2, "70 children, then 10 ms"),
        ],
        [Case(4, 2, 2, "4 children, then 2 ms")],
        known=lambda case: case.size * NEWS_ROUNDS,
        unit="µs until the first",
        value=microseconds,
        columns={"last_us": "µs until the last", "worst_us": "worst of all"},
    ),
    Problem(
        "channel",
        "Numbers from producers to as many consumers through a queue with room for 1,024; CPU time tells who waits by "
        "spinning.",
        [Case(10**6, 1, 2, "1 producer, 1 consumer, 10⁶"), Case(10**6, 4, 2, "4 producers, 4 consumers, 10⁶")],
        [Case(10**4, 1, 2, "1 producer, 1 consumer, 10⁴"), Case(10**4, 4, 2, "4 producers, 4 consumers, 10⁴")],
        known=lambda case: case.size * (case.size - 1) // 2,
        unit="ns an item",
        value=lambda sample: sample["seconds"] / sample["size"] * 1e9,
    ),
    Problem(
        "ping_pong",
        "Trips from one CPU to another and back, one after the other. Who cannot keep awake, or cannot sleep, is in one "
        "of the tables only.",
        [Case(200_000, 0, 2, "both awake"), Case(20_000, 1, 2, "both asleep")],
        [Case(2_000, 0, 2, "both awake"), Case(500, 1, 2, "both asleep")],
        known=lambda case: case.size,
        unit="ns a trip",
        value=ns_an_item,
        warm_ups=0,  # each trip of a new pair of threads; the contenders leave the first out where that matters
    ),
    Problem(
        "echo",
        "TCP echo over loopback, 64 bytes a request, closed loop; the server on CPU 0, the load on CPU 1.",
        [Case(n, 700, 0, f"{n:,} connection" + ("s" if n > 1 else "")) for n in (1, 64, 1000)],
        [Case(8, 100, 0, "8 connections")],
        known=lambda case: 0,
        unit="ns a request",
        value=ns_an_item,
        warm_ups=0,  # the load warms up by itself
        columns={"p99_us": "99 % within, µs"},
    ),
    Problem(
        "timers",
        "Sleepers on one core, armed and then fired, all within a window so small that the core is busy throughout.",
        [Case(10**6, 0, 0, "10⁶ in order"), Case(10**6, 1, 0, "10⁶ shuffled")],
        [Case(10**4, 1, 0, "10⁴ shuffled")],
        known=lambda case: case.size,
        unit="ns a sleeper",
        value=ns_an_item,
        warm_ups=0,
        runs=3,
        columns={"arm_ns": "armed, ns", "fire_ns": "fired, ns"},
    ),
    Problem(
        "waves",
        "The four functions of the waves sample, pieces of 0.5 to 40 µs, in waves that double; contenders in turn in "
        "one process. 1 is what the same calls take on one thread, divided by the CPUs: the inverse of the efficiency. The "
        "columns on the right divide our time by another's in the same round; the target is at most 1 at every wave.",
        [Case(4 << i, name=f"{4 << i:,} pieces") for i in range(15)],
        [Case(4 << i, name=f"{4 << i:,} pieces") for i in range(6)],
        known=lambda case: case.size,
        unit="elapsed ÷ ideal",
        value=lambda sample: sample["to_ideal"],
        runs=9,
        columns={"to_onetbb": "÷ oneTBB", "to_team": "÷ partition"},
        rounds=True,
    ),
]


def by_name(names: list[str]) -> list[Problem]:
    known = {problem.name: problem for problem in PROBLEMS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SystemExit(f"there is no problem {', '.join(unknown)}; there are {', '.join(known)}")
    return [known[name] for name in names] or PROBLEMS
