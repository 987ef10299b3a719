"""Each thread's share of a call: which strategy every statement runs by, and which points of its kernels each runs.

In: a program's partition, the sizes of a call, a number of threads. Out: a table with a row for each thread, in the
layout that the code reads (`Partition.words`); or None where one thread alone would be as fast.

Statements that can run beside each other (`graphc.codegen.parallel.wavefront`) do so, each whole on one thread, where
that is expected to be faster.

The estimate of a strategy is the largest share of the counted instructions, and what the barriers take; in a loop its
reductions take as long as it takes to read again what every step reads, if that is longer. What a core can do is that
of the machine at hand (`graphc.codegen.team.measure`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graphc.codegen.lengths import evaluate
from graphc.codegen.memory.arena import buffer_bytes
from graphc.codegen.parallel.core import Core
from graphc.codegen.parallel.partition import SKIPPED, THREAD, Cut, Partition, Strategy
from graphc.codegen.parallel.wavefront import Stage, Wavefront
from graphc.codegen.parallel.wavefront_schedule import Rounds, rounds, whole
from graphc.codegen.program import Program, Statement, kernels, nested_kernels

__all__ = ["Shares", "bounds", "in_rounds", "picks", "shares", "table"]

Table = npt.NDArray[np.int64]

WAKE = 60_000.0  # cycles that a call must save before sleeping threads are woken for it
_WORTH = 0.95  # of the time one after another: a wavefront that takes longer is not worth its memory


@dataclass(frozen=True, slots=True)
class Shares:
    """How a call runs: what was chosen for each top-level statement (None: one thread) and for each wavefront (None:
    its statements run one after another), and the table. `cycles` is the estimate.

    `moments` are the statements in the order in which they run, those that run beside each other together.
    """

    threads: int
    chosen: tuple[Strategy | None, ...]
    waves: tuple[Rounds | None, ...]
    table: Table
    moments: tuple[tuple[int, ...], ...]
    cycles: float

    def alone(self, program: Program, partition: Partition, sizes: Mapping[str, int]) -> Table:
        """The table of one thread that runs the statements in the same order."""
        waves = [
            whole(wave, evaluate(wave.extent, sizes)) if made is not None else None
            for wave, made in zip(partition.wavefronts, self.waves, strict=True)
        ]
        return table(program, partition, sizes, 1, (None,) * len(program.body), waves)


def shares(
    program: Program, partition: Partition, sizes: Mapping[str, int], threads: int, core: Core, beside: bool = True
) -> Shares:
    """The shares for at most `threads` threads: for as many of them as pay. `beside`: statements may run beside each
    other, for which more of what they make has to be kept at one time."""
    nothing: tuple[Strategy | None, ...] = (None,) * len(program.body)
    waves: tuple[Rounds | None, ...] = (None,) * len(partition.wavefronts)
    alone = sum(_estimate(s, partition, None, program, sizes, 1, core) for s in program.body)
    best, count = (alone, 1, nothing, waves), threads
    while count > 1:
        picked = picks(program, partition, sizes, count, core)
        running: list[Rounds | None] = []
        for wave in partition.wavefronts:
            positions = [stage.position for stage in wave.stages]
            made = in_rounds(wave, partition, program, sizes, count, core) if beside else None
            if made is not None and made.cycles < _WORTH * sum(picked[k][1] for k in positions):
                picked[positions[0]] = None, made.cycles
                for k in positions[1:]:
                    picked[k] = None, 0.0
                running.append(made)
            else:
                running.append(None)
        cycles = sum(time for _, time in picked) + WAKE
        if cycles < best[0]:
            best = cycles, count, tuple(strategy for strategy, _ in picked), tuple(running)
        count //= 2
    cycles, many, chosen, waves = best
    rows = table(program, partition, sizes, many, chosen, waves)
    return Shares(many, chosen, waves, rows, _moments(program, partition, waves), cycles)


def _moments(program: Program, partition: Partition, waves: Sequence[Rounds | None]) -> tuple[tuple[int, ...], ...]:
    found: list[tuple[int, ...]] = []
    done = 0
    for wave, made in zip(partition.wavefronts, waves, strict=True):
        if made is not None:
            found += [(k,) for k in (*range(done, wave.first), *wave.before)]
            found.append(tuple(stage.position for stage in wave.stages))
            found += [(k,) for k in wave.after]
            done = wave.end
    return (*found, *((k,) for k in range(done, len(program.body))))


def in_rounds(
    wave: Wavefront, partition: Partition, program: Program, sizes: Mapping[str, int], threads: int, core: Core
) -> Rounds | None:
    """The best way to run a wavefront on so many threads, if there is one."""
    statements = [program.body[stage.position] for stage in wave.stages]
    costs = [_estimate(statement, partition, None, program, sizes, 1, core) for statement in statements]
    fixed = [_fixed(s, stage, partition, program, sizes) for s, stage in zip(statements, wave.stages, strict=True)]
    return rounds(wave, evaluate(wave.extent, sizes), costs, fixed, threads, core)


def _fixed(
    statement: Statement, stage: Stage, partition: Partition, program: Program, sizes: Mapping[str, int]
) -> float:
    """The bytes that a stage reads again in every block, as they do not move along the axis."""
    operands = [o for kernel in kernels((statement,)) for o in partition.costs[kernel.name].operands]
    names = {operand.buffer for operand in operands if stage.index not in operand.moving}
    return float(sum(buffer_bytes(program.buffer(name), sizes) for name in names))


# Statements one after another.


def picks(
    program: Program, partition: Partition, sizes: Mapping[str, int], threads: int, core: Core
) -> list[tuple[Strategy | None, float]]:
    """For each top-level statement the best strategy, and the cycles that it takes."""
    return [_pick(s, k, partition, program, sizes, threads, core) for k, s in enumerate(program.body)]


def _pick(
    statement: Statement,
    k: int,
    partition: Partition,
    program: Program,
    sizes: Mapping[str, int],
    threads: int,
    core: Core,
) -> tuple[Strategy | None, float]:
    ways: list[Strategy | None] = [None, *partition.strategies[k]]
    times = [_estimate(statement, partition, way, program, sizes, threads, core) for way in ways]
    best = min(range(len(ways)), key=times.__getitem__)
    return ways[best], times[best]


def _estimate(
    statement: Statement,
    partition: Partition,
    strategy: Strategy | None,
    program: Program,
    sizes: Mapping[str, int],
    threads: int,
    core: Core,
) -> float:
    """Cycles that a top-level statement takes."""
    total = core.meeting(threads)
    sums = 0.0  # of reductions inside loops
    read_again: dict[str, float] = {}
    steps = 1
    for kernel, loops in nested_kernels((statement,)):
        times = math.prod(evaluate(loop.extent, sizes) for loop in loops)
        around = {loop.index for loop in loops}
        cost = partition.costs[kernel.name]
        cut = strategy.cuts.get(kernel.name) if strategy is not None else None
        part = _largest(cut, sizes, threads)
        own, inside = (times * part * cycles for cycles in cost.cycles(sizes, core))
        total += own
        if strategy is not None and kernel.name in strategy.barriers:
            total += times * core.meeting(threads)
        if not around:
            total += inside
            continue
        sums += inside
        steps = max(steps, times)
        for operand in cost.operands:
            if operand.moving.isdisjoint(around):
                share = part if cut is not None and cut.index in operand.moving else 1.0
                size = share * buffer_bytes(program.buffer(operand.buffer), sizes)
                read_again[operand.buffer] = max(read_again.get(operand.buffer, 0.0), size)
    return total + max(sums, steps * core.reading(sum(read_again.values())))


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
    chosen: Sequence[Strategy | None],
    waves: Sequence[Rounds | None],
) -> Table:
    """Each thread's row, given the strategy of each top-level statement (None: the first thread runs it whole), and how
    each wavefront runs (None: one after another)."""
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
    for number, made in enumerate(waves):
        if made is not None:
            _enter(rows, made, number, partition, program)
    return rows


def _enter(rows: Table, made: Rounds, number: int, partition: Partition, program: Program) -> None:
    """Write into the table how a wavefront runs: each stage whole, on its own thread."""
    at = partition.wave(number)
    rows[:, at], rows[:, at + 1] = made.rounds, made.block
    for k, stage in enumerate(partition.wavefronts[number].stages):
        rows[:, at + 2 + k] = [made.lags[k] if made.owners[k] == thread else SKIPPED for thread in range(len(rows))]
        rows[:, partition.mode(stage.position)] = 0
        for kernel in kernels((program.body[stage.position],)):
            rows[:, partition.offsets[kernel.name]] = 1
