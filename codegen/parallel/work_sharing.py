"""Each thread's share of a call: which strategy every statement runs by, and which points of its kernels each runs.

In: a program's partition, the sizes of a call, a number of threads. Out: a table with a row for each thread, in the
layout that the code reads (`Partition.words`); or None where one thread alone would be as fast.

Statements that can run beside each other (`graphc.codegen.parallel.wavefront`) do so, each whole on one thread, where
that is expected to be faster.

The estimate of a strategy is the largest share of the counted instructions, and what the barriers take. In a loop,
reductions cost the larger of their arithmetic and of reading again the operands that every step reads. What a core can
do is that of the machine at hand (`graphc.codegen.team.measure`).
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

__all__ = ["Estimator", "Shares", "bounds", "shares", "table"]

Table = npt.NDArray[np.int64]

WAKE = 60_000.0  # cycles that a call must save before sleeping threads are woken for it
_WORTH = 0.95  # of the time one after another: a wavefront that takes longer is not worth its memory


@dataclass(frozen=True, slots=True)
class Shares:
    """How a call runs: what was chosen for each top-level statement (None: one thread) and for each wavefront (None:
    its statements run one after another); and the table. `cycles` is the estimate.

    `time_slots` are the statements in the order in which they run; those that run beside each other share a slot.
    """

    threads: int
    chosen: tuple[Strategy | None, ...]
    waves: tuple[Rounds | None, ...]
    table: Table
    time_slots: tuple[tuple[int, ...], ...]
    cycles: float

    def alone(self, program: Program, partition: Partition, sizes: Mapping[str, int]) -> Table:
        """The table of one thread that runs the statements in the same order."""
        waves = [
            whole(wave, evaluate(wave.extent, sizes)) if made is not None else None
            for wave, made in zip(partition.wavefronts, self.waves, strict=True)
        ]
        return table(program, partition, sizes, 1, (None,) * len(program.body), waves)


def shares(
    program: Program, partition: Partition, sizes: Mapping[str, int], threads: int, core: Core, concurrent: bool = True
) -> Shares:
    """The shares for as many threads as pay, at most `threads`. `concurrent`: statements may run beside each other;
    more of what they make then has to be kept at one time."""
    estimator = Estimator(program, partition, sizes, core)
    nothing: tuple[Strategy | None, ...] = (None,) * len(program.body)
    waves: tuple[Rounds | None, ...] = (None,) * len(partition.wavefronts)
    alone = sum(estimator.cycles(statement, None, 1) for statement in program.body)
    best, count = (alone, 1, nothing, waves), threads
    while count > 1:
        picked = estimator.picks(count)
        running: list[Rounds | None] = []
        for wave in partition.wavefronts:
            positions = [stage.position for stage in wave.stages]
            made = estimator.in_rounds(wave, count) if concurrent else None
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
    return Shares(many, chosen, waves, rows, _time_slots(program, partition, waves), cycles)


def _time_slots(program: Program, partition: Partition, waves: Sequence[Rounds | None]) -> tuple[tuple[int, ...], ...]:
    found: list[tuple[int, ...]] = []
    done = 0
    for wave, made in zip(partition.wavefronts, waves, strict=True):
        if made is not None:
            found += [(k,) for k in (*range(done, wave.first), *wave.before)]
            found.append(tuple(stage.position for stage in wave.stages))
            found += [(k,) for k in wave.after]
            done = wave.end
    return (*found, *((k,) for k in range(done, len(program.body))))


@dataclass(frozen=True, slots=True)
class Estimator:
    """Estimates of what a program's statements take at the sizes of a call, on threads with a `core` each."""

    program: Program
    partition: Partition
    sizes: Mapping[str, int]
    core: Core

    def in_rounds(self, wave: Wavefront, threads: int) -> Rounds | None:
        """The best way to run a wavefront on so many threads, if there is one."""
        costs = [self.cycles(self.program.body[stage.position], None, 1) for stage in wave.stages]
        fixed = [self._fixed(stage) for stage in wave.stages]
        return rounds(wave, evaluate(wave.extent, self.sizes), costs, fixed, threads, self.core)

    def _fixed(self, stage: Stage) -> float:
        """The bytes that a stage reads again in every block, as they do not move along the axis."""
        inside = kernels((self.program.body[stage.position],))
        operands = [operand for kernel in inside for operand in self.partition.costs[kernel.name].operands]
        names = {operand.buffer for operand in operands if stage.index not in operand.moving}
        return float(sum(buffer_bytes(self.program.buffer(name), self.sizes) for name in names))

    def picks(self, threads: int) -> list[tuple[Strategy | None, float]]:
        """For each top-level statement the best strategy, and the cycles that it then takes."""
        picked: list[tuple[Strategy | None, float]] = []
        for statement, strategies in zip(self.program.body, self.partition.strategies, strict=True):
            ways = [(way, self.cycles(statement, way, threads)) for way in (None, *strategies)]
            picked.append(min(ways, key=lambda way: way[1]))
        return picked

    def cycles(self, statement: Statement, strategy: Strategy | None, threads: int) -> float:
        """The cycles that a top-level statement takes."""
        sizes, core = self.sizes, self.core
        total = core.meeting(threads)
        sums = 0.0  # of reductions inside loops
        read_again: dict[str, float] = {}
        steps = 1
        for kernel, loops in nested_kernels((statement,)):
            times = math.prod(evaluate(loop.extent, sizes) for loop in loops)
            cost = self.partition.costs[kernel.name]
            cut = strategy.cuts.get(kernel.name) if strategy is not None else None
            part = _largest(cut, sizes, threads)
            own, inside = (times * part * cycles for cycles in cost.cycles(sizes, core))
            total += own
            if strategy is not None and kernel.name in strategy.barriers:
                total += times * core.meeting(threads)
            if not loops:
                total += inside
                continue
            sums += inside
            steps = max(steps, times)
            for operand in cost.operands:
                if operand.moving.isdisjoint(loop.index for loop in loops):
                    share = part if cut is not None and cut.index in operand.moving else 1.0
                    size = share * buffer_bytes(self.program.buffer(operand.buffer), sizes)
                    read_again[operand.buffer] = max(read_again.get(operand.buffer, 0.0), size)
        return total + max(sums, steps * core.reading(sum(read_again.values())))


# The table.


def bounds(cut: Cut, sizes: Mapping[str, int], threads: int) -> list[int]:
    """Where a dim is cut: the first point of each thread's part, and the end of the last one."""
    extent = evaluate(cut.extent, sizes)
    grains = -(-extent // cut.grain)
    return [min(extent, grains * k // threads * cut.grain) for k in range(threads + 1)]


def _largest(cut: Cut | None, sizes: Mapping[str, int], threads: int) -> float:
    """The largest part of a dim that one thread gets, as a fraction of the dim."""
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
    """A row for each thread, given the strategy of each top-level statement (None: the first thread runs it whole), and
    how each wavefront runs (None: its statements run one after another)."""
    rows = np.zeros((threads, partition.words), np.int64)
    rows[:, THREAD] = range(threads)
    for k, (statement, strategy) in enumerate(zip(program.body, chosen, strict=True)):
        if strategy is None:
            rows[1:, partition.mode(k)] = SKIPPED
        else:
            rows[:, partition.mode(k)] = 1 << partition.strategies[k].index(strategy)
        for kernel in kernels((statement,)):
            own = strategy.cuts.get(kernel.name) if strategy is not None else None
            runs = partition.runs(kernel.name)
            rows[0, runs] = 1  # what is not cut, the first thread runs
            for position, cut in enumerate(partition.cuts[kernel.name]):
                first, end = partition.first(kernel.name, position), partition.end(kernel.name, position)
                rows[:, end] = evaluate(cut.extent, sizes)
                if own is not None and own.index == cut.index:
                    places = bounds(own, sizes, threads)
                    rows[:, first], rows[:, end] = places[:-1], places[1:]
                    rows[:, runs] = rows[:, first] < rows[:, end]
    for number, made in enumerate(waves):
        if made is not None:
            _enter(rows, made, number, partition, program)
    return rows


def _enter(rows: Table, made: Rounds, number: int, partition: Partition, program: Program) -> None:
    """Write into the table how a wavefront runs: each stage whole, on its own thread."""
    rows[:, partition.rounds(number)], rows[:, partition.block(number)] = made.rounds, made.block
    for k, stage in enumerate(partition.wavefronts[number].stages):
        lags = [made.lags[k] if made.owners[k] == thread else SKIPPED for thread in range(len(rows))]
        rows[:, partition.lag(number, k)] = lags
        rows[:, partition.mode(stage.position)] = 0
        for kernel in kernels((program.body[stage.position],)):
            rows[:, partition.runs(kernel.name)] = 1
