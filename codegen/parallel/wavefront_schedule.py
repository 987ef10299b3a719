"""How a wavefront runs: which thread has which of its stages, and in blocks of how many steps.

In: a `Wavefront`, the length of its axis, what each stage costs and reads again, a number of threads. Out: its `Rounds`
with the least estimate. In each round every stage is at one block; a stage lags behind another that it needs, and that
another thread runs, by a round. Long blocks make few rounds, and few times that a thread reads again what its stages
read in every block; short ones let the last stage begin early.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from graphc.codegen.parallel.core import Core
from graphc.codegen.parallel.wavefront import Wavefront

__all__ = ["Rounds", "in_blocks", "rounds", "whole"]

LOOKING = 100_000.0  # cycles that a thread waits at a barrier before it sleeps
SLEEP = 40_000.0  # cycles until a thread that slept is back
_BLOCKS = (8, 16, 32, 64, 128, 256)  # steps


@dataclass(frozen=True, slots=True)
class Rounds:
    """The steps of a `block`; the `rounds` until all stages are through all blocks; and for each stage the thread that
    runs it, and the rounds by which it lags behind. `cycles` is the estimate."""

    block: int
    rounds: int
    owners: tuple[int, ...]
    lags: tuple[int, ...]
    cycles: float


def rounds(
    wave: Wavefront, extent: int, costs: Sequence[float], fixed: Sequence[float], threads: int, core: Core
) -> Rounds | None:
    """The best of several lengths of a block; None if the axis is shorter than all of them. `costs` are the cycles that
    each stage takes in all, `fixed` the bytes that it reads in every block."""
    grain = math.lcm(*(stage.grain for stage in wave.stages))
    blocks = {-(-steps // grain) * grain for steps in _BLOCKS}
    ways = [in_blocks(wave, block, extent, costs, fixed, threads, core) for block in sorted(blocks) if block < extent]
    return min(ways, key=lambda way: way.cycles, default=None)


def in_blocks(
    wave: Wavefront, block: int, extent: int, costs: Sequence[float], fixed: Sequence[float], threads: int, core: Core
) -> Rounds:
    """The rounds in blocks of so many steps."""
    owners = _owners(costs, threads)
    earlier: list[list[tuple[int, int]]] = [[] for _ in wave.stages]
    for (j, later), ahead in wave.ahead.items():
        earlier[later].append((j, ahead))
    lags: list[int] = []
    for k, awaited in enumerate(earlier):
        waits = [lags[j] + (owners[j] != owners[k]) - (-max(0, ahead) // block) for j, ahead in awaited]
        lags.append(max(waits, default=0))
    blocks = -(-extent // block)
    count = blocks + max(lags)
    shares = [[k for k, owner in enumerate(owners) if owner == thread] for thread in range(threads)]
    each = [sum(costs[k] for k in own) / blocks + core.reading(sum(fixed[k] for k in own)) for own in shares]
    sleep = SLEEP if max(each) - min(each) > LOOKING else 0.0
    return Rounds(block, count, owners, tuple(lags), count * (max(each) + core.meeting(threads) + sleep))


def whole(wave: Wavefront, extent: int) -> Rounds:
    """The rounds in which the first thread runs all stages one after another, in one block."""
    zeros = (0,) * len(wave.stages)
    return Rounds(max(1, extent), 1, zeros, zeros, 0.0)


def _owners(costs: Sequence[float], threads: int) -> tuple[int, ...]:
    """Cut a chain of stages into parts, one for each thread, so that the busiest thread has the least to do."""
    sums = [0.0, *itertools.accumulate(costs)]
    busiest, cuts = sums, []  # of the first stages, on one thread; where the last thread's part begins
    for _ in range(1, threads):
        begins = [_last_part(busiest, sums, end) for end in range(len(sums))]
        busiest = [max(busiest[begin], sums[end] - sums[begin]) for end, begin in enumerate(begins)]
        cuts.append(begins)
    owners: list[int] = []
    for thread, begins in reversed(list(enumerate(cuts, start=1))):
        owners = [thread] * (len(costs) - len(owners) - begins[len(costs) - len(owners)]) + owners
    return (*[0] * (len(costs) - len(owners)), *owners)


def _last_part(busiest: Sequence[float], sums: Sequence[float], end: int) -> int:
    """Where the last thread's part of the first `end` stages begins. Where that is later, the part is smaller, and the
    busiest of the threads before has more to do."""
    meet = bisect.bisect_left(range(end), True, key=lambda k: busiest[k] >= sums[end] - sums[k])
    least = min(max(busiest[k], sums[end] - sums[k]) for k in (max(0, meet - 1), meet))
    return bisect.bisect_right(busiest, least, 0, end + 1) - 1
