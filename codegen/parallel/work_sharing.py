"""Each thread's share of a call: which strategy every statement runs by, and which points of its kernels each runs.

In: a program's partition, the sizes of a call, a number of threads. Out: its `Shares`, with the table that the code
reads (`graphc.codegen.parallel.table`). They are for fewer threads, or for one, where more would not be faster.

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

from graphc.codegen.lengths import evaluate
from graphc.codegen.memory.arena import buffer_bytes
from graphc.codegen.parallel.core import Core
from graphc.codegen.parallel.partition import Cut, Partition, Strategy
from graphc.codegen.parallel.table import Table, bounds, table
from graphc.codegen.parallel.wavefront import Stage, Wavefront
from graphc.codegen.parallel.wavefront_schedule import Rounds, rounds, whole
from graphc.codegen.program import Program, Statement, kernels, nested_kernels

__all__ = ["Estimator", "Shares", "shares"]

WAKE = 60_000.0  # cycles that a call must save before sleeping threads are woken for it
_WORTH = 0.95  # of the time one after another: a wavefront that takes longer is not worth its memory


@dataclass(frozen=True, slots=True)
class _Way:
    """A way to run a call: what was chosen for each top-level statement (None: one thread) and for each wavefront
    (None: its statements run one after another). `cycles` is the estimate."""

    threads: int
    chosen: tuple[Strategy | None, ...]
    waves: tuple[Rounds | None, ...]
    cycles: float


@dataclass(frozen=True, slots=True)
class Shares(_Way):
    """How a call runs, with the table that says so. `time_slots` are the statements in the order in which they run;
    those that run beside each other share a slot."""

    table: Table
    time_slots: tuple[tuple[int, ...], ...]

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
    alone = sum(estimator.cycles(statement, None, 1) for statement in program.body)
    ways = [_Way(1, (None,) * len(program.body), (None,) * len(partition.wavefronts), alone)]
    while threads > 1:
        ways.append(_way(estimator, threads, concurrent))
        threads //= 2
    best = min(ways, key=lambda way: way.cycles)
    rows = table(program, partition, sizes, best.threads, best.chosen, best.waves)
    slots = _time_slots(program, partition, best.waves)
    return Shares(best.threads, best.chosen, best.waves, best.cycles, rows, slots)


def _way(estimator: Estimator, threads: int, concurrent: bool) -> _Way:
    """The best way on so many threads: each statement by its best strategy, and a wavefront in rounds if that is worth
    more than the strategies of its stages."""
    picked = estimator.picks(threads)
    waves: list[Rounds | None] = []
    for wave in estimator.partition.wavefronts:
        positions = [stage.position for stage in wave.stages]
        made = estimator.in_rounds(wave, threads) if concurrent else None
        if made is None or made.cycles >= _WORTH * sum(picked[k][1] for k in positions):
            waves.append(None)
            continue
        for k in positions:
            picked[k] = None, 0.0
        picked[positions[0]] = None, made.cycles
        waves.append(made)
    cycles = sum(time for _, time in picked) + WAKE
    return _Way(threads, tuple(strategy for strategy, _ in picked), tuple(waves), cycles)


def _time_slots(program: Program, partition: Partition, waves: Sequence[Rounds | None]) -> tuple[tuple[int, ...], ...]:
    """The statements in the order in which they run, as in `Shares`."""
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


def _largest(cut: Cut | None, sizes: Mapping[str, int], threads: int) -> float:
    """The largest part of a dim that one thread gets, as a fraction of the dim."""
    if cut is None:
        return 1.0
    places = bounds(cut, sizes, threads)
    return max(b - a for a, b in itertools.pairwise(places)) / max(1, places[-1])
