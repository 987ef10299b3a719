"""Each thread's share of a call: which strategy every statement runs by, and which points of its kernels each runs.

In: a program's partition, the sizes of a call, a number of threads. Out: a table with a row for each thread, in the
layout that the code reads (`Partition.words`); or None where one thread alone would be as fast.

The estimate of a strategy is the largest share of the counted cycles, what the barriers take, and the time it takes to
read again, from beyond the second-level cache, what every step of a loop reads.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graphc.arena import buffer_bytes
from graphc.codegen.cost import evaluate
from graphc.codegen.partition import THREAD, Cut, Partition, Strategy
from graphc.codegen.program import Kernel, Program, Statement, kernels

__all__ = ["SKIPPED", "Shares", "shares", "table"]

Table = npt.NDArray[np.int64]

SKIPPED = -1  # the mode of a statement that another thread runs; 0 is that of one run alone, else 1 << strategy
BARRIER = 1000.0  # cycles that a barrier takes, with what the threads then read of each other
WAKE = 60_000.0  # cycles that a call must save before sleeping threads are woken for it
LEVEL_2 = 3 << 19  # bytes that stay in a core's second-level cache
BEYOND = 8.0  # bytes a cycle that come from beyond it


@dataclass(frozen=True, slots=True)
class Shares:
    """How a call runs: what was chosen for each top-level statement (None: one thread), and the table. `cycles` is the
    estimate."""

    threads: int
    chosen: tuple[Strategy | None, ...]
    table: Table
    cycles: float


def shares(program: Program, partition: Partition, sizes: Mapping[str, int], threads: int) -> Shares:
    """The shares for at most `threads` threads: for as many of them as pay."""
    nothing: tuple[Strategy | None, ...] = (None,) * len(program.body)
    alone = sum(_estimate(s, partition, None, program, sizes, 1) for s in program.body)
    best, count = (alone, 1, nothing), threads
    while count > 1:
        picked = [_pick(s, k, partition, program, sizes, count) for k, s in enumerate(program.body)]
        cycles = sum(time for _, time in picked) + WAKE
        if cycles < best[0]:
            best = cycles, count, tuple(strategy for strategy, _ in picked)
        count //= 2
    cycles, many, chosen = best
    return Shares(many, chosen, table(program, partition, sizes, many, chosen), cycles)


def _pick(
    statement: Statement, k: int, partition: Partition, program: Program, sizes: Mapping[str, int], threads: int
) -> tuple[Strategy | None, float]:
    ways: list[Strategy | None] = [None, *partition.strategies[k]]
    times = [_estimate(statement, partition, way, program, sizes, threads) for way in ways]
    best = min(range(len(ways)), key=times.__getitem__)
    return ways[best], times[best]


def _estimate(
    statement: Statement,
    partition: Partition,
    strategy: Strategy | None,
    program: Program,
    sizes: Mapping[str, int],
    threads: int,
) -> float:
    """Cycles that a top-level statement takes."""
    total = BARRIER if threads > 1 else 0.0
    read_again: dict[str, float] = {}
    steps = 1
    for kernel, times, around in _kernels(statement, sizes, 1, frozenset()):
        cut = strategy.cuts.get(kernel.name) if strategy is not None else None
        part = _largest(cut, sizes, threads)
        total += times * part * partition.costs[kernel.name].cycles(sizes)
        if strategy is not None and kernel.name in strategy.barriers:
            total += times * BARRIER
        if around:
            steps = max(steps, times)
            for operand in partition.costs[kernel.name].operands:
                if operand.moving.isdisjoint(around):
                    share = part if cut is not None and cut.index in operand.moving else 1.0
                    size = share * buffer_bytes(program.buffer(operand.buffer), sizes)
                    read_again[operand.buffer] = max(read_again.get(operand.buffer, 0.0), size)
    again = sum(read_again.values())
    return total + (steps * again / BEYOND if again > LEVEL_2 else 0.0)


def _kernels(
    statement: Statement, sizes: Mapping[str, int], times: int, around: frozenset[str]
) -> Iterator[tuple[Kernel, int, frozenset[str]]]:
    """The kernels, how often each runs, and the loops around it."""
    if isinstance(statement, Kernel):
        yield statement, times, around
        return
    for inner in statement.body:
        yield from _kernels(inner, sizes, times * evaluate(statement.extent, sizes), around | {statement.index})


# The table.


def bounds(cut: Cut, sizes: Mapping[str, int], threads: int) -> list[int]:
    """Where a dim is cut: the first point of each thread's part, and the end."""
    extent = evaluate(cut.extent, sizes)
    grains = -(-extent // cut.grain)
    return [min(extent, grains * k // threads * cut.grain) for k in range(threads + 1)]


def _largest(cut: Cut | None, sizes: Mapping[str, int], threads: int) -> float:
    """The largest part of a dim that one thread gets."""
    if cut is None:
        return 1.0
    places = bounds(cut, sizes, threads)
    return max(b - a for a, b in itertools.pairwise(places)) / max(1, places[-1])


def table(
    program: Program,
    partition: Partition,
    sizes: Mapping[str, int],
    threads: int,
    chosen: tuple[Strategy | None, ...],
) -> Table:
    """Each thread's row, given the strategy of each top-level statement; None: the first thread runs it whole."""
    rows = np.zeros((threads, partition.words), np.int64)
    rows[:, THREAD] = range(threads)
    for k, (statement, strategy) in enumerate(zip(program.body, chosen, strict=True)):
        if strategy is None:
            rows[1:, partition.mode(k)] = SKIPPED
        else:
            rows[:, partition.mode(k)] = 1 << partition.strategies[k].index(strategy)
        for kernel in kernels((statement,)):
            own = strategy.cuts.get(kernel.name) if strategy is not None else None
            at = partition.offsets[kernel.name]
            rows[0, at] = 1  # what is not cut, the first thread runs
            for position, cut in enumerate(partition.cuts[kernel.name]):
                first, last = at + 1 + 2 * position, at + 2 + 2 * position
                rows[:, last] = evaluate(cut.extent, sizes)
                if own is not None and own.index == cut.index:
                    places = bounds(own, sizes, threads)
                    rows[:, first], rows[:, last] = places[:-1], places[1:]
                    rows[:, at] = rows[:, first] < rows[:, last]
    return rows
